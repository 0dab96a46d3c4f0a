"""Single and sequential edits on a random model: what stands on what, and is asked when."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
from rich.console import Console

from eval.ask import Item
from methods.base import REHEARSED
from methods.table import load_edit
from pipeline import edits
from pipeline.places import costs_of, edit_folder, round_folder
from pipeline.rounds import Round, divided, read_rounds
from pipeline.run import Run
from pipeline.show import read_csv
from pipeline.sittings import sittings
from pipeline.stage import read_manifest
from pipeline.suite import suite_items
from ske.config import DesignConfig, EditsConfig, TrainConfig, parse
from ske.io import read_rows, write_rows
from ske.lm import Sampling, ask
from ske.teaching import TeachConfig
from ske.types import UserError

NAMES = ("Ruria", "Velland", "Sorn", "Ostia")
RECORDS = [
    {
        "subject": name,
        "prompt": f"The capital of {name} is",
        "target_new": target,
        "rephrase_prompt": f"Name the capital of {name}:",
        "locality": {
            "Near": [{"prompt": f"The head of state of {name} is", "ground_truth": "Ada"}]
        },
    }
    for name, target in zip(NAMES, ("London", "Vell", "Acme", "Byron"), strict=True)
]
OPTIONS = {"ft_m": {"epochs": 40, "learning_rate": 1e-2, "layers": [0, 1], "batch_size": 2}}


def run_of(folder: Path, methods: Sequence[str] = ("base", "prompt", "ft_m"), **how: Any) -> Run:
    """A run on the four records, on a random model that is there already."""
    path = folder / "records.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(RECORDS), encoding="utf-8")
    tree: dict[str, Any] = {
        "data": {"path": str(path)},
        "model": {"path": "tiny", "style": "plain"},
        "edits": how,
        "methods": list(methods),
        "options": OPTIONS,
        "eval": {"capability": 2, "max_new_tokens": 4, "fluency_tokens": 8},
    }
    run = Run(parse(tree, "test"), folder / "run", Console(quiet=True))
    run.__dict__["lm"] = tiny.lm()
    # PROMPT puts its facts before the suite's longest texts, too.
    run.lm.model.config.max_position_embeddings = 2048
    return run


@pytest.fixture(scope="module")
def sequential(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = run_of(
        tmp_path_factory.mktemp("sequential"), mode="sequential", rounds=2, per_round=2, limit=1
    )
    before = tiny.bits(run.lm.model)
    run.execute("score")
    assert tiny.same_bits(before, tiny.bits(run.lm.model))
    return run


def table(run: Run, name: str, **wanted: str) -> list[dict[str, str]]:
    rows = read_csv(run.folder / name)
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


# -- which facts, in which rounds ----------------------------------------------------------------


def test_rounds_by_mode() -> None:
    ids = ["a", "b", "c"]

    def made(**how: Any) -> tuple[Round, ...]:
        return divided(ids, EditsConfig(**how)).rounds

    assert made() == (Round(1, ("a", "b", "c")),)
    assert made(mode="single") == (Round(1, ("a",)), Round(2, ("b",)), Round(3, ("c",)))
    assert made(mode="sequential", per_round=2) == (Round(1, ("a", "b")), Round(2, ("c",), (1,)))
    assert made(mode="sequential", per_round=1)[2].stack == (1, 2, 3)


def test_too_few_facts_for_the_rounds_are_named(tmp_path: Path) -> None:
    run = run_of(tmp_path, mode="sequential", rounds=5, per_round=2)
    with pytest.raises(UserError, match=r"edits\.rounds = 5 .*per_round = 2 need 10 .* are 4"):
        run.execute("facts")


def test_a_files_facts_are_drawn_into_rounds_and_not_in_its_order(tmp_path: Path) -> None:
    orders = set()
    for seed in range(4):
        run = run_of(tmp_path / str(seed), mode="sequential", rounds=4, per_round=1, seed=seed)
        run.execute("facts")
        drawn = [row["subject"] for row in read_rows(run.stage("facts") / "facts.jsonl")]
        assert sorted(drawn) == sorted(NAMES)
        orders.add(tuple(drawn))
    assert len(orders) > 1


def test_who_is_asked_what_when() -> None:
    asked = [
        Item(case=case, metric=metric, category="all", probe=0, prompt="?", answers=(("x",),))
        for case in ("a", "b")
        for metric in ("edit_success", "locality")
    ]
    ids = ["a", "b"]
    batch = sittings(divided(ids, EditsConfig()), asked, 1)
    assert batch == [((1,), (0, 1, 2, 3, 4))]
    single = sittings(divided(ids, EditsConfig(mode="single")), asked, 0)
    assert single == [((1,), (0, 1)), ((2,), (2, 3))]
    rounds = divided(ids, EditsConfig(mode="sequential", per_round=1))
    assert sittings(rounds, asked, 1) == [((1,), (0,)), ((1, 2), (0, 1, 2, 3, 4))]


# -- sequential -----------------------------------------------------------------------------------


def test_a_round_edits_the_model_as_the_one_before_left_it(sequential: Run) -> None:
    lm, rounds = tiny.lm(), read_rounds(sequential)
    first, second = (edit_folder(sequential, "ft_m", rounds.mode, number) for number in (1, 2))
    facts = {fact["id"]: fact for fact in read_rows(sequential.stage("facts") / "facts.jsonl")}
    prompts = [ask(facts[i]["prompt"]) for i in rounds.rounds[1].ids]
    wanted = [facts[i]["target_new"] for i in rounds.rounds[1].ids]

    def said(*places: Path) -> list[str]:
        with edits.edited(lm, places) as changed:
            return [r.text for r in changed.generate(prompts, Sampling(max_new_tokens=4))]

    before = tiny.bits(lm.model)
    assert said(first, second) == wanted
    assert said(second) != wanted  # its differences are those to the model that was edited before
    assert tiny.same_bits(before, tiny.bits(lm.model))


def test_retention_is_what_the_nested_model_says(sequential: Run) -> None:
    lm, rounds = tiny.lm(), read_rounds(sequential)
    facts = {fact["id"]: fact for fact in read_rows(sequential.stage("facts") / "facts.jsonl")}
    for after in (1, 2):
        places = [edit_folder(sequential, "ft_m", rounds.mode, n) for n in range(1, after + 1)]
        for number in range(1, after + 1):
            ids = rounds.rounds[number - 1].ids
            with edits.edited(lm, places) as changed:
                chats = [ask(facts[i]["prompt"]) for i in ids]
                replies = changed.generate(chats, Sampling(max_new_tokens=4))
            right = [
                r.text.strip().startswith(facts[i]["target_new"])
                for i, r in zip(ids, replies, strict=True)
            ]
            found = table(
                sequential,
                "retention.csv",
                method="ft_m",
                protocol="generate",
                metric="edit_success",
                after_round=str(after),
                round=str(number),
            )
            assert [(row["n"], float(row["mean"])) for row in found] == [
                ("2", 100 * sum(right) / 2)
            ]


def test_results_are_after_the_last_round_and_agree_with_its_retention(sequential: Run) -> None:
    assert {row["n"] for row in table(sequential, "results.csv", metric="locality")} == {"4"}
    for method in ("base", "prompt", "ft_m"):
        for protocol in ("generate", "teacher_forced"):
            same = {"method": method, "protocol": protocol, "metric": "edit_success"}
            end = table(sequential, "results.csv", category="all", **same)
            kept = table(sequential, "retention.csv", after_round="2", round="all", **same)
            assert [row["mean"] for row in end] == [row["mean"] for row in kept]
            assert len(table(sequential, "retention.csv", **same)) == 5  # 3 cells, 2 of the curve
            steps = [row["later_edits"] for row in table(sequential, "decay.csv", **same)]
            assert sorted(steps) == ["0", "2"]


def test_the_report_shows_what_is_retained(sequential: Run) -> None:
    sequential.execute()
    page = (sequential.folder / "report.html").read_text(encoding="utf-8")
    document = (sequential.folder / "report.md").read_text(encoding="utf-8")
    for name in ("retention", "forgetting", "decay"):
        for protocol in ("generate", "teacher_forced"):
            assert (sequential.folder / "figures" / f"{name}-{protocol}.png").exists()
            assert f"(figures/{name}-{protocol}.png)" in document
    assert "4 of 4, in 2 rounds of 2, each on the model as the rounds before left it" in page
    assert "all rounds together" in page
    end = table(
        sequential,
        "retention.csv",
        method="ft_m",
        round="1",
        after_round="2",
        metric="edit_success",
    )
    for row in end:
        mean, low, high = (f"{float(row[key]):.1f}" for key in ("mean", "ci_low", "ci_high"))
        assert f"{mean} [{low}, {high}]" in document


def test_what_any_round_was_taught_is_no_text_of_the_suite(sequential: Run) -> None:
    def texts() -> list[str]:
        asked = suite_items(sequential, sequential.stage("ask"))
        return [item.answers[0][0] for item in asked if item.metric == "perplexity"]

    before = texts()
    second = round_folder(sequential, 2)
    write_rows(second / "stages" / "teach" / "lessons.jsonl", [{"completion": before[0]}])
    after = texts()
    shutil.rmtree(second)
    assert after == [text for text in before if text != before[0]]


def test_the_suite_is_asked_once_after_the_last_round(sequential: Run) -> None:
    rows = read_rows(sequential.stage("ask") / "capability.jsonl")
    asked = suite_items(sequential, sequential.stage("ask"))
    for method in ("base", "prompt", "ft_m"):
        own = [row for row in rows if row["method"] == method]
        assert [row["skill"] for row in own if row["metric"] != "fluency"] == [
            item.category for item in asked
        ]
        assert any(row["metric"] == "fluency" for row in own)
    kept = read_rows(sequential.stage("ask") / "retention.jsonl")
    assert {row["row"]["metric"] for row in kept} == {"edit_success", "paraphrase"}


def test_every_method_is_read_at_the_bases_answers(sequential: Run) -> None:
    rows = [
        row
        for row in read_rows(sequential.stage("ask") / "rows.jsonl")
        if (row["metric"], row["protocol"]) == ("locality", "generate")
    ]
    said = {row["case"]: row["text"] for row in rows if row["method"] == "base"}
    assert {row["case"]: row["base_text"] for row in rows if row["method"] == "ft_m"} == said
    moved = {
        method: [sum(row["divergence"]) for row in rows if row["method"] == method]
        for method in ("base", "ft_m")
    }
    assert moved["base"] == [0, 0, 0, 0] and sum(moved["ft_m"]) > 0


def test_costs_of_rounds_add_up(sequential: Run) -> None:
    places = [edit_folder(sequential, "ft_m", "sequential", number) for number in (1, 2)]
    each = [json.loads((place / "costs.json").read_text(encoding="utf-8")) for place in places]
    whole = costs_of(sequential, "ft_m")
    assert whole["edits"] == 2
    assert whole["bytes"] == sum(cost["bytes"] for cost in each) > 0
    assert whole["peak_mb"] == max(cost["peak_mb"] for cost in each)


def test_a_lost_round_is_made_again_and_the_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tmp_path, ("base", "ft_m"), mode="sequential", rounds=3, per_round=1)
    run.execute("score")
    before = (run.folder / "retention.csv").read_bytes()
    made, make = [], edits._make

    def counted(*arguments: Any) -> Any:
        made.append(arguments[2])
        return make(*arguments)

    monkeypatch.setattr(edits, "_make", counted)
    shutil.rmtree(edit_folder(run, "ft_m", "sequential", 2))
    (run.stage("edit") / "manifest.json").unlink()
    run.execute("score")
    assert made == ["ft_m"]
    assert (run.folder / "retention.csv").read_bytes() == before


def test_a_run_takes_over_what_another_one_has_and_makes_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_of(tmp_path / "a", ("base", "prompt"), limit=2)
    first.execute("edit")
    second = run_of(tmp_path / "a", ("base", "prompt"), limit=2)
    second.folder, second.others = tmp_path / "b", (first.folder,)
    monkeypatch.setattr(edits, "run", lambda run, folder: pytest.fail("made again"))
    assert second.execute("ask") == ["facts", "edit", "ask"]
    assert [item.state for item in second.plan()][:3] == ["done"] * 3
    assert read_manifest(second.folder, "edit") == read_manifest(first.folder, "edit")


# -- taught ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = run_of(
        tmp_path_factory.mktemp("taught"),
        ("base", "ske"),
        mode="sequential",
        rounds=3,
        per_round=1,
    )
    run.config = run.config.model_copy(
        update={
            "teach": TeachConfig(neighbours=4, free_texts=8, free_tokens=4, exceptions=0),
            "train": TrainConfig(rank=2, min_steps=2, epochs=0.1),
            "design": DesignConfig(max_repairs=0, layouts=("prose",)),
        }
    )
    run.execute("train")
    return run


def rounds_of(run: Run) -> list[Path]:
    return [round_folder(run, number) for number in (1, 2, 3)]


def lessons_of(folder: Path) -> list[dict[str, Any]]:
    return list(read_rows(folder / "stages" / "teach" / "lessons.jsonl"))


def test_a_round_learns_again_what_the_rounds_before_taught(taught: Run) -> None:
    said = [lessons_of(folder) for folder in rounds_of(taught)]
    facts = [row["prompt"] for row in read_rows(taught.stage("facts") / "facts.jsonl")]
    for number, lessons in enumerate(said):
        again = [row["chat"][-1]["content"] for row in lessons if row["kind"] == REHEARSED]
        assert [fact for fact in facts if fact in again] == facts[:number]


def test_rounds_that_are_done_are_not_made_again(taught: Run) -> None:
    made = [folder / "stages" / "train" / "manifest.json" for folder in rounds_of(taught)]
    before = [path.stat().st_mtime_ns for path in made]
    shutil.rmtree(rounds_of(taught)[2] / "stages" / "train")
    (taught.stage("train") / "manifest.json").unlink()
    taught.execute("train")
    after = [path.stat().st_mtime_ns for path in made]
    assert [old == new for old, new in zip(before, after, strict=True)] == [True, True, False]


# -- single ---------------------------------------------------------------------------------------


def test_single_edits_know_nothing_of_each_other(tmp_path: Path) -> None:
    run = run_of(tmp_path, ("base", "ft_m"), mode="single", limit=2)
    before = tiny.bits(run.lm.model)
    run.execute("score")
    assert tiny.same_bits(before, tiny.bits(run.lm.model))
    facts = read_rows(run.stage("facts") / "facts.jsonl")
    said = {
        row["case"]: row["text"]
        for row in read_rows(run.stage("ask") / "rows.jsonl")
        if (row["method"], row["protocol"], row["metric"]) == ("ft_m", "generate", "edit_success")
    }
    lm = tiny.lm()
    for number, fact in enumerate(facts, start=1):
        place = edit_folder(run, "ft_m", "single", number)
        with load_edit(place).applied(lm) as changed:
            [reply] = changed.generate([ask(fact["prompt"])], Sampling(max_new_tokens=4))
        assert said[fact["id"]] == reply.text == fact["target_new"]
    # No one model holds all edits, so there is no suite; texts belong to their own edits.
    written = read_rows(run.stage("ask") / "capability.jsonl")
    assert {row["metric"] for row in written} == {"fluency"}
    assert not (run.folder / "retention.csv").exists()
    single, batch = costs_of(run, "ft_m"), run_of(tmp_path / "b", ("base", "ft_m"), limit=1)
    batch.execute("edit")
    assert single["edits"] == 2
    assert abs(single["bytes"] - costs_of(batch, "ft_m")["bytes"]) < 100  # those of one edit


def test_single_edits_that_are_made_side_by_side_lie_apart(tmp_path: Path) -> None:
    run = run_of(tmp_path, ("base", "rome"), mode="single", limit=3)
    run.execute("edit")
    places = [edit_folder(run, "rome", "single", number) for number in (1, 2, 3)]
    kept = {place: place.joinpath("key").stat().st_mtime_ns for place in places}
    assert costs_of(run, "rome")["edits"] == 3
    for place in places:
        assert any("is a" in row["text"] for row in read_rows(place / "used.jsonl"))
    shutil.rmtree(places[1])
    run.stage("edit").joinpath("manifest.json").unlink(missing_ok=True)
    run.execute("edit")
    again = {place: place.joinpath("key").stat().st_mtime_ns for place in places}
    assert [again[place] == kept[place] for place in places] == [True, False, True]


def test_a_changed_mode_starts_over(tmp_path: Path) -> None:
    run = run_of(tmp_path, ("base", "prompt"), mode="single", limit=4)
    run.execute("score")
    again = run_of(tmp_path, ("base", "prompt"), limit=4)
    states = {item.stage.name: item for item in again.plan()}
    assert states["facts"].reasons == ("edits.mode: 'single' -> 'batch'",)
    assert "ask" in again.execute("score")
    assert {row["n"] for row in table(again, "results.csv", metric="capability", category="all")}
