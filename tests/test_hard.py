"""Hard probes: what the world writes, and what real files' fields allow."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from eval.cases import load
from eval.hard import with_hard
from eval.records import Case
from prompts.relations import lexicon
from ske.types import ERASED, Fact
from world import bench
from world.population import World, build
from world.questions import OPEN, PROBE_SIDES, View, beyond, inverse_wordings, wordings

Record = dict[str, Any]
ALL = [(name, split) for name in bench.BENCHMARKS for split in bench.SPLITS]


@cache
def people() -> World:
    return build(0)


@cache
def drawn(name: str, split: str) -> list[Record]:
    return bench.records(people(), name, split)


def hard(records: list[Record], category: str) -> Iterator[tuple[Record, str, str]]:
    """(record, prompt, first answer)."""
    for record in records:
        for probe in record["hard"].get(category, []):
            yield record, probe["prompt"], probe["ground_truth"][0][0]


def starts(template: str, prompt: str) -> str | None:
    """The subject, if the prompt is in this wording."""
    before, after = template.split("{subject}")
    fits = prompt.startswith(before) and prompt.endswith(after)
    name = prompt[len(before) : len(prompt) - len(after)] if fits else None
    return name if name in people().values or name in people().new_people else None


@pytest.mark.parametrize(("name", "split"), ALL)
def test_chains_beyond_training_hold_with_all_edits_made_and_not_before(
    name: str, split: str
) -> None:
    records, world = drawn(name, split), people()
    edits = {(r["subject"], r["relation"]): r["target_new"] for r in records}
    before, together = View(world), View(world, edits)
    found = 0
    for record, prompt, answer in hard(records, "Beyond"):
        chain, subject = next(
            (chain, subject)
            for chain, options in beyond(split).items()
            for option in options
            if (subject := starts(option, prompt))
        )
        assert record["relation"] in chain[:2]
        alone = View(world, {(record["subject"], record["relation"]): record["target_new"]})
        assert together.follow(subject, chain) == alone.follow(subject, chain) == answer
        assert before.follow(subject, chain) != answer
        found += 1
    assert found > 0.5 * len(records)


def test_a_chain_may_lead_through_the_edited_fact_from_somebody_else() -> None:
    world = people()
    others = [
        (record, prompt)
        for record, prompt, _ in hard(drawn("world_counterfact", "test"), "Beyond")
        if record["subject"] not in prompt
    ]
    assert others
    record, prompt = next((r, p) for r, p in others if r["relation"] == "occupation")
    assert world.value(record["subject"], "spouse") in prompt


@pytest.mark.parametrize("split", bench.SPLITS)
def test_claims_are_yes_for_the_new_value_and_no_for_the_old(split: str) -> None:
    for record in drawn("world_counterfact", split):
        new, old = record["hard"]["Claims"]
        assert new["prompt"].endswith(f" {record['target_new']}?")
        assert new["ground_truth"] == [["yes"]]
        assert old["prompt"].endswith(f" {record['ground_truth']}?")
        assert old["ground_truth"] == [["no"]]
        same = new["prompt"].removesuffix(f" {record['target_new']}?")
        assert old["prompt"] == f"{same} {record['ground_truth']}?"


def test_a_new_subject_gets_a_false_claim_in_place_of_an_old_value() -> None:
    for record in drawn("world_recent", "test"):
        (new,) = record["hard"]["Claims"]
        (wrong,) = record["hard"]["False_Claims"]
        assert (new["ground_truth"], wrong["ground_truth"]) == ([["yes"]], [["no"]])
        assert not wrong["prompt"].endswith(f" {record['target_new']}?")
        assert "Contradicted" not in record["hard"]


def test_contexts_state_what_is_true_of_another_or_was_of_the_subject() -> None:
    records, world = drawn("world_counterfact", "test"), people()
    for category in ("Distracted", "Contradicted"):
        for record, prompt, answer in hard(records, category):
            assert answer == record["target_new"] and prompt.endswith(f". {record['prompt']}")
            sentence = prompt.removesuffix(f". {record['prompt']}")
            relation = record["relation"]
            about, told = next(
                (subject, sentence[-len(value) :])
                for subject in [record["subject"], *world.values]
                if subject in sentence and (value := world.values[subject].get(relation))
                if sentence.endswith(f" {value}")
            )
            assert (about == record["subject"]) == (category == "Contradicted")
            assert told == world.value(about, relation) != answer


def test_reversals_ask_for_the_subject_by_the_new_values_other_name() -> None:
    world, records = people(), drawn("world_counterfact", "test")
    found = list(hard(records, "Reversal"))
    assert {r["relation"] for r, _, _ in found} == {"spouse", "chief_executive_officer"}
    for record, prompt, answer in found:
        new = record["target_new"]
        assert answer == record["subject"]
        assert world.aliases.get(new, new) in prompt


def test_an_erasure_is_not_argued_about() -> None:
    for record in drawn("world_sanitation", "test"):
        assert set(record["hard"]) <= {"Beyond", "Distracted"}
        (probe,) = record["hard"]["Distracted"]
        assert probe["ground_truth"] == [[ERASED]]


@pytest.mark.parametrize(("name", "split"), ALL)
def test_only_wordings_of_the_splits_own_side(name: str, split: str) -> None:
    (other,) = set(PROBE_SIDES) - {split}
    for record in drawn(name, split):
        relation = record["relation"]
        pools = [f(relation, side) for f in (wordings, inverse_wordings) for side in (OPEN, other)]
        named = {w.replace("{object}", "{subject}") for pool in pools for w in pool}
        named.discard(lexicon()[relation].prompt)  # everybody may use a relation's own
        for group in record["hard"].values():
            for probe in group:
                for wording in named:
                    for who in (record["subject"], record["target_new"]):
                        assert wording.replace("{subject}", who) not in probe["prompt"]


# -- data sets that have none of their own ---------------------------------------------------------


def plain(
    prompt: str, subject: str, new: str, old: str | None = "Sorn", number: int = 0, **more: Any
) -> Case:
    fact = Fact(id=f"c{number}", subject=subject, prompt=prompt, target_new=new, ground_truth=old)
    return Case(fact=fact, data="mine", **more)


BORN = plain("The place of birth of Odo Brann is", "Odo Brann", "Vell")
CEO = plain("St. Ives & Co. is led by", "St. Ives & Co.", "Ada Moss", "Una Pell", number=1)


def prompts(case: Case) -> dict[str, list[tuple[str, str]]]:
    return {
        name: [(probe.prompt, probe.answers[0][0]) for probe in probes]
        for name, probes in case.hard.items()
    }


def test_real_files_get_claims_and_contexts_from_their_own_fields() -> None:
    born, ceo = with_hard([BORN, CEO])
    assert prompts(born) == {
        "Claims": [
            ("Is it right that the place of birth of Odo Brann is Vell?", "yes"),
            ("Is it right that the place of birth of Odo Brann is Sorn?", "no"),
        ],
        "Contradicted": [
            (
                "The place of birth of Odo Brann is Sorn. The place of birth of Odo Brann is",
                "Vell",
            )
        ],
        "Distracted": [
            ("St. Ives & Co. is led by Una Pell. The place of birth of Odo Brann is", "Vell")
        ],
    }
    assert prompts(ceo)["Claims"][1] == (
        "Is it right that St. Ives & Co. is led by Una Pell?",
        "no",
    )
    assert prompts(ceo)["Distracted"][0][0].startswith("The place of birth of Odo Brann is Sorn. ")


@pytest.mark.parametrize(
    "case",
    [
        plain("Which city is Odo Brann from?", "Odo Brann", "Vell"),
        plain("Where was Odo Brann born", "Odo Brann", "Vell"),
        plain("Odo Brann is a baker. Odo Brann was born in", "Odo Brann", "Vell"),
        plain("The place of birth of Odo Brann is", "Odo Brann", "Vell", old=None),
        plain("The place of birth of Odo Brann is", "Odo Brann", "Vell", old=" vell"),
        plain("The place of birth of Odo Brann is", "Odo Brann", ERASED),
        plain("The place of birth of Odo Brann is", "Odo Brann", "He was born in Vell."),
        plain("The place of birth of Odo is", "Odo Brann", "Vell"),
        plain("Odo Brann, who works in", "Odo Brann", "Vell"),
        plain("The names of the towns of Odo Brann are", "Odo Brann", "Vell"),
    ],
)
def test_what_is_no_statement_or_has_no_old_value_gets_none(case: Case) -> None:
    assert with_hard([case, CEO])[0].hard == {}


def test_a_single_subject_has_nobody_to_distract_from_it() -> None:
    again = plain("The city where Odo Brann works is", "Odo Brann", "Vell", number=2)
    assert [set(case.hard) for case in with_hard([BORN, again])] == [{"Claims", "Contradicted"}] * 2


def test_a_files_own_hard_probes_are_read_and_kept(tmp_path: Path) -> None:
    record = {
        "prompt": BORN.fact.prompt,
        "subject": "Odo Brann",
        "target_new": "Vell",
        "ground_truth": "Sorn",
        "hard": {"Beyond": [{"prompt": "The mayor of there is", "ground_truth": [["Una"]]}]},
    }
    (tmp_path / "mine.json").write_text(json.dumps([record]), encoding="utf-8")
    loaded = load(tmp_path / "mine.json")
    assert loaded.skipped == []
    (case,) = with_hard(loaded.cases)
    assert prompts(case) == {"Beyond": [("The mayor of there is", "Una")]}
