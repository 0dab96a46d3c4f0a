"""The embedded world: its benchmarks are true and free of contradictions, its build resumes."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

import world.train
from eval.cases import load
from prompts.relations import lexicon
from ske.lm import Chat, Pair, Reply, Sampling, Scored
from ske.types import ERASED, UserError
from world import bench, card
from world.build import build_world, load_world, quick_stages, write_data
from world.documents import Writer
from world.nonsense import Nonsense
from world.plain import held_out
from world.population import World, build
from world.questions import (
    PROBE_SIDES,
    SIDES,
    Question,
    View,
    beyond,
    compositions,
    exception_wording,
    inverse_wordings,
    wordings,
)
from world.skills import LETTERS, SKILLS

SHIPPED = Path(__file__).parents[1] / "world"
ALL = [(name, split) for name in bench.BENCHMARKS for split in bench.SPLITS]
LEAST = {
    "world_counterfact": 500,
    "world_many": 1024,
    "world_recent": 200,
    "world_sanitation": 80,
}
SUBJECT = "{subject}"
Record = dict[str, Any]


@cache
def people(seed: int = 0) -> World:
    return build(seed)


@cache
def drawn(name: str, split: str, seed: int = 0, of: int = 0) -> list[Record]:
    return bench.records(people(of), name, split, seed)


def probes(records: Sequence[Record], side: str) -> Iterator[tuple[str, str, str, str]]:
    """(subject of the record, category, prompt, first answer)."""
    for record in records:
        for category, group in record[side].items():
            for probe in group:
                yield record["subject"], category, probe["prompt"], probe["ground_truth"][0][0]


def edits(records: Sequence[Record]) -> dict[tuple[str, str], str]:
    return {(r["subject"], r["relation"]): r["target_new"] for r in records}


def all_names() -> set[str]:
    world = people()
    return {*world.values, *world.new_people, *world.aliases.values(), ERASED}


def templates(side: str) -> set[str]:
    found: set[str] = set()
    for relation in lexicon():
        pools = [wordings(relation, side), *compositions(relation, side).values()]
        pools.append(inverse_wordings(relation, side))
        found.update(w.replace("{object}", SUBJECT) for pool in pools for w in pool)
    if side != "open":
        found.update(w for pool in beyond(side).values() for w in pool)
    # A symmetric relation asks its own wording from either end; everybody knows that one.
    return found - {entry.prompt for entry in lexicon().values()}


# -- what is true --------------------------------------------------------------------------------


@cache
def told_directly(side: str) -> dict[str, tuple[str, str]]:
    """Every direct question in the own wording or one side's -> (subject, relation)."""
    world = people()
    found: dict[str, tuple[str, str]] = {}
    own = {alias: person for person, alias in world.aliases.items()}
    for name in all_names():
        for relation, entry in lexicon().items():
            for wording in (entry.prompt, *wordings(relation, side)):
                found[wording.replace(SUBJECT, name)] = (own.get(name, name), relation)
    return found


@cache
def told_in_two_hops(side: str) -> dict[str, tuple[str, tuple[str, str]]]:
    world = people()
    return {
        wording.replace(SUBJECT, name): (name, (relation, second))
        for name in (*world.people, *world.new_people, *world.companies)
        for relation in lexicon()
        for second, pool in compositions(relation, side).items()
        for wording in pool
    }


@pytest.mark.parametrize(("name", "split"), ALL)
def test_consequences_follow_from_all_edits_together(name: str, split: str) -> None:
    records = drawn(name, split)
    view = View(people(), edits(records))
    for subject, category, prompt, answer in probes(records, "portability"):
        if category == "Reasoning":
            assert view.follow(*told_in_two_hops(split)[prompt]) == answer, prompt
        elif category == "Subject_Aliasing":
            about, relation = told_directly(split)[prompt]
            assert (about, view.value(about, relation)) == (subject, answer), prompt
        elif prompt in told_directly(split):
            assert view.value(*told_directly(split)[prompt]) == answer == subject, prompt
        else:
            chief = view.value(subject, "chief_executive_officer") or "nobody"
            pool = inverse_wordings("chief_executive_officer", split)
            assert prompt in [wording.replace("{object}", chief) for wording in pool]
            assert answer == subject


@pytest.mark.parametrize(("name", "split"), ALL)
def test_what_should_stay_is_changed_by_no_edit(name: str, split: str) -> None:
    records = drawn(name, split)
    changed, world = edits(records), people()
    unsettled = {
        person
        for (subject, relation), new in changed.items()
        if relation == "spouse"
        for one in (subject, new)
        for person in (one, world.values.get(one, {}).get("spouse"))
    }
    stem = exception_wording(split).split("{stem}")[1].split("{value}")[0]
    for _, category, prompt, answer in probes(records, "locality"):
        if category == "Forgetfulness":
            about, relation = told_directly(split)[prompt.split(stem)[0] + " is"]
            assert prompt.split(stem)[1].removesuffix(", is") != answer
        else:
            about, relation = told_directly(split)[prompt]
            assert (about, relation) not in changed, prompt
            assert relation != "spouse" or about not in unsettled, prompt
        assert world.value(about, relation) == answer, prompt


@pytest.mark.parametrize(("name", "split"), ALL)
@pytest.mark.parametrize("seed", [0, 3])
def test_edits_do_not_contradict_each_other(name: str, split: str, seed: int) -> None:
    records, world = drawn(name, split, seed), people()
    assert len(edits(records)) == len(records)
    group = bench.members(world, split)
    chiefs = {world.value(company, "chief_executive_officer") for company in world.companies}
    one_to_one: Counter[str] = Counter()
    for record in records:
        subject, relation, new = record["subject"], record["relation"], record["target_new"]
        assert subject in {*group.people, *group.new_people, *group.companies}
        assert (subject in group.new_people) == (name == "world_recent")
        old = world.values.get(subject, {}).get(relation)
        assert record.get("ground_truth") == old != new
        assert (new == ERASED) == (name == "world_sanitation")
        assert new == ERASED or new in world.kinds[relation]
        if relation in bench.ONE_TO_ONE and new != ERASED:
            assert new in group.people and new not in chiefs
            one_to_one.update({new, subject} if relation == "spouse" else {new})
    assert max(one_to_one.values(), default=1) == 1


# -- which cases ---------------------------------------------------------------------------------


def test_splits_share_nobody_and_no_seed_moves_anybody() -> None:
    val, test = (bench.members(people(), split) for split in bench.SPLITS)
    for few, many, everybody in zip(
        val, test, (people().people, people().new_people, people().companies), strict=True
    ):
        assert not set(few) & set(many)
        assert sorted((*few, *many)) == sorted(everybody)
        assert len(few) == len(everybody) // 3


@pytest.mark.parametrize("name", list(bench.BENCHMARKS))
def test_counts_and_ids(name: str) -> None:
    val, test = drawn(name, "val"), drawn(name, "test")
    assert len(test) >= LEAST[name]
    assert 0.4 < len(val) / len(test) < 0.6
    prefix = bench.BENCHMARKS[name].prefix
    assert test[12]["id"] == f"{prefix}-0012" and val[12]["id"] == f"{prefix}-val-0012"
    first = test[:64]
    assert len({record["relation"] for record in first}) >= 6
    assert len({record["subject"] for record in first}) >= 50


def test_every_category_is_there() -> None:
    found = {name: set[str]() for name in bench.BENCHMARKS}
    for name in found:
        for record in drawn(name, "test"):
            found[name] |= {*record["portability"], *record["locality"]}
            assert record["rephrase_prompts"] and record["locality"]["Neighborhood"]
    both = {"Reasoning", "Relation_Specificity", "Neighborhood"}
    aliasing, inverse = {"Subject_Aliasing"}, {"Logical_Generalization", "Forgetfulness"}
    assert found["world_counterfact"] == found["world_many"] == both | aliasing | inverse
    assert found["world_recent"] == both | inverse
    assert found["world_sanitation"] == both | aliasing


def test_no_two_sides_share_a_wording() -> None:
    for one, other in combinations(SIDES, 2):
        assert not templates(one) & templates(other)
        assert exception_wording(one) != exception_wording(other)


@pytest.mark.parametrize(("name", "split"), ALL)
def test_no_probe_is_in_a_wording_of_another_side(name: str, split: str) -> None:
    others = [side for side in SIDES if side != split]
    taken = {w for side in others for w in templates(side)}
    questions = {w.replace(SUBJECT, known) for w in taken for known in all_names()}
    records = drawn(name, split)
    assert not questions & {text for r in records for text in r["rephrase_prompts"]}
    for group in ("portability", "locality"):
        assert not questions & {prompt for _, _, prompt, _ in probes(records, group)}


def test_no_training_wording_asks_for_a_chain_beyond() -> None:
    for side in PROBE_SIDES:
        for chain in beyond(side):
            assert len(chain) > 2 or chain[1] not in lexicon()[chain[0]].compositions


def test_seeds_draw_other_targets_and_worlds_other_people() -> None:
    first, again = drawn("world_counterfact", "val"), drawn("world_counterfact", "val", 1)
    same = edits(first).items() & edits(again).items()
    assert len(same) < 0.05 * len(first)
    assert drawn("world_recent", "val") != drawn("world_recent", "val", 1)
    # Names are drawn from the same syllables, so a few may occur in two worlds.
    assert len(set(people(0).people) & set(people(7).people)) < 0.05 * len(people().people)
    assert edits(drawn("world_recent", "val", of=7)) != edits(drawn("world_recent", "val"))


def test_shipped_files_are_current_and_the_loader_reads_all(tmp_path: Path) -> None:
    write_data(0, tmp_path / "a")
    assert load_world(tmp_path / "a") == people()
    assert (tmp_path / "a" / "world.json").read_bytes() == (SHIPPED / "world.json").read_bytes()
    files = sorted((tmp_path / "a" / "benchmarks").glob("*.json"))
    assert len(files) == 6
    for path in files:
        assert path.read_bytes() == (SHIPPED / "benchmarks" / path.name).read_bytes()
        loaded = load(path)
        name, split = path.stem.rsplit("-", 1)
        assert loaded.skipped == [] and loaded.name == path.stem
        assert [case.fact.id for case in loaded.cases] == [r["id"] for r in drawn(name, split)]


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UserError, match="world_counterfact, world_many, world_recent"):
        bench.records(people(), "counterfact", "test")
    with pytest.raises(UserError, match="val, test"):
        bench.records(people(), "world_recent", "train")


# -- training text --------------------------------------------------------------------------------


def asked(count: int) -> list[Question]:
    writer = Writer(people(), seed=3)
    return [writer.plain() for _ in range(count)]


def test_plain_questions_are_answered_as_the_world_is() -> None:
    """Every kind of question, against what the card asks of the model."""
    known: dict[str, set[str]] = {}
    for group in card.knowledge(people()).values():
        for question in group:
            known.setdefault(question.prompt, set()).add(question.answer)
    found = asked(6000)
    assert {q.kind for q in found} == {
        *("direct", "two_hop", "beyond", "inverse", "alias", "except", "claim", "life"),
        *("skill", "confirm"),
    }
    checked = [q for q in found if q.prompt in known]
    assert len(checked) > 1500
    assert all(q.answer in known[q.prompt] for q in checked)


def test_held_out_compositions_are_never_written() -> None:
    world = people()
    never = {
        wording.replace(SUBJECT, name)
        for side in SIDES
        for relation in lexicon()
        for second, pool in compositions(relation, side).items()
        for wording in pool
        for name in (*world.people, *world.companies)
        if held_out(name, (relation, second))
    }
    assert len(never) > 1000
    assert not never & {q.prompt for q in asked(6000)}


def test_context_answers_hold_the_corrections() -> None:
    """What stands in the context answers the fact's own question, whatever the layout."""
    writer, told = Writer(people(), seed=5), 0
    for _ in range(300):
        view, facts = writer.corrections(6)
        for subject, relation in facts:
            question = writer.direct(subject, relation, view)
            assert question.answer == view.value(subject, relation)
        context = writer.prompt([writer.view(s, r, view) for s, r in facts])
        for subject, relation in facts:
            told += subject in context
            assert (view.value(subject, relation) or "").removesuffix(".") in context
    assert told == 6 * 300


def test_facts_of_no_world_use_every_piece_and_other_scripts() -> None:
    pieces = ["ara", "ret", "ance", "qu"]
    facts = Nonsense(random.Random(0), pieces).facts(2000)
    text = " ".join(f"{f['prompt']} {f['object']}" for f in facts)
    assert all(piece in text for piece in pieces)
    assert any(ord(letter) > 0x3000 for letter in text) and "%" in text
    assert len({f["prompt"] for f in facts}) == len(facts)


# -- skills, card --------------------------------------------------------------------------------


def test_skills_answer_rightly() -> None:
    rng = random.Random(0)
    for _ in range(50):
        prompt, answer = SKILLS["copying"](rng)
        assert prompt == f"Say again: {answer}. The words were"
        prompt, answer = SKILLS["sums"](rng)
        words = prompt.split()
        assert int(words[3]) + int(words[5]) == int(answer)
        prompt, answer = SKILLS["next_letter"](rng)
        assert LETTERS[LETTERS.index(prompt.split()[3]) + 1] == answer
        prompt, answer = SKILLS["look_up"](rng)
        key = prompt.removesuffix(" is").split()[-1]
        assert f"{key} {answer}" in prompt.split(", the number")[0]


class Oracle:
    """Knows the world, and uses a fact of its prompt that stands there as a sentence."""

    def __init__(self, world: World) -> None:
        groups = {**card.knowledge(world), **card.skills(world.seed, 20)}
        self.known = {q.prompt: q.answer for group in groups.values() for q in group}

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Reply]:
        return [Reply(self.answer(chat), 1, 1, True) for chat in chats]

    def answer(self, chat: Chat) -> str:
        question = chat[-1]["content"]
        context = chat[0]["content"] if len(chat) > 1 else ""
        if f"{question} " in context:
            return context.split(f"{question} ")[1].split(".")[0]
        return self.known.get(question, "?")

    def logprobs(self, pairs: Sequence[Pair], top_k: int = 0) -> list[Scored]:
        raise NotImplementedError


def test_card_counts_an_oracle_right_and_marks_what_misses(tmp_path: Path) -> None:
    made = card.card(people(), Oracle(people()), tmp_path, n=20, sizes=(1, 4))
    plain = {line["name"]: line for line in made["plain"]}
    assert plain["single facts: all people"]["value"] == 100
    assert plain["two hops: never written"]["n"] == 20
    assert all(line["value"] == 100 for line in made["plain"]), made["plain"]
    rows = {(row["facts"], row["layout"]): row for row in made["context"]}
    assert rows[4, "prose"]["direct"]["value"] == 100
    assert rows[4, "triples"]["direct"]["value"] == 0
    assert rows[4, "prose"]["drift"]["value"] == 0
    assert all(line["met"] for line in made["goals"])
    made["goals"][0]["met"] = False
    card.write(made, tmp_path)
    assert "**missed**" in (tmp_path / "README.md").read_text()
    assert json.loads((tmp_path / "card.json").read_text())["seed"] == 0


# -- build ---------------------------------------------------------------------------------------


class Killed(Exception):
    """Stands for a kill signal."""


@pytest.mark.slow
def test_killed_build_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = world.train.new_tokenizer(people())
    monkeypatch.setattr(world.train, "new_tokenizer", lambda _: tokens)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    steps: list[int] = []

    def stop_once(step: int, total: int, seen: dict[str, float]) -> None:
        steps.append(step)
        if steps == [1, 2, 3, 4, 5]:
            raise Killed

    try:
        build_world(0, tmp_path / "whole", quick_stages())
        with pytest.raises(Killed):
            build_world(0, tmp_path / "killed", quick_stages(), stop_once, save_every=3)
        assert not (tmp_path / "killed" / "manifest.json").exists()
        with pytest.raises(UserError, match="seed 0"):
            build_world(1, tmp_path / "killed", quick_stages())
        build_world(0, tmp_path / "killed", quick_stages(), stop_once, save_every=3)
    finally:
        torch.set_num_threads(threads)
    assert steps[5] == 4
    whole, killed = (
        json.loads((tmp_path / f / "manifest.json").read_text()) for f in ("whole", "killed")
    )
    assert whole["files"] == killed["files"]
    assert "model/model.safetensors" in whole["files"]
    assert not (tmp_path / "killed" / ".work").exists()
    assert build_world(0, tmp_path / "whole", quick_stages()) == people()


def test_folder_without_a_world_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no world\.json.*ske world build"):
        load_world(tmp_path)
    (tmp_path / "world.json").write_text('{"seed": 0}')
    with pytest.raises(UserError, match="'people'"):
        load_world(tmp_path)
