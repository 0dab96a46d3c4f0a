"""The relation lexicon is consistent, recognises facts, and has no wording that a benchmark asks.

The real wiki_* files are not part of the project: they are found at `../shared/data` from its
root, or where SKE_REAL_DATA says.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from prompts.relations import Relation, lexicon, relation_of
from ske.types import Fact

REAL = Path(os.environ.get("SKE_REAL_DATA") or Path(__file__).parents[2] / "shared" / "data")
FILES = sorted(REAL.glob("knowedit/wiki_*/*.json"))
real = pytest.mark.skipif(
    not FILES,
    reason=f"no real data at {REAL / 'knowedit'}/wiki_*; set SKE_REAL_DATA to check on it",
)
ENTRIES = list(lexicon().values())
each = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)


def own_wordings(entry: Relation) -> Iterator[str]:
    """All that the project words itself, about the subject or about the object."""
    yield from entry.paraphrases
    yield from (wording.replace("{object}", "{subject}") for wording in entry.inverse)
    for wordings in entry.compositions.values():
        yield from wordings


def fact(prompt: str, subject: str, relation: str | None = None) -> Fact:
    return Fact(id="1", subject=subject, prompt=prompt, target_new="new", relation=relation)


def name_of(prompt: str, subject: str, relation: str | None = None) -> str | None:
    found = relation_of(fact(prompt, subject, relation))
    return found and found.id


# -- the lexicon itself -----------------------------------------------------------------------


@each
def test_every_relation_an_entry_names_exists(entry: Relation) -> None:
    assert {*entry.neighbours, *entry.object, *entry.compositions} <= set(lexicon())
    assert entry.id not in entry.neighbours
    assert all(entry.compositions.values()), "a second relation without wordings"
    for names in (entry.neighbours, entry.object):
        assert len(names) == len(set(names))


@each
def test_wordings_leave_one_place_open(entry: Relation) -> None:
    composed = [wording for wordings in entry.compositions.values() for wording in wordings]
    for wording in (entry.prompt, *entry.paraphrases, *composed):
        assert wording.count("{subject}") == 1, wording
        assert wording.count("{") == wording.count("}") == 1, wording
    for wording in entry.inverse:
        assert wording.count("{object}") == 1, wording
        assert wording.count("{") == wording.count("}") == 1, wording
    for wording in (entry.prompt, *entry.paraphrases, *composed, *entry.inverse):
        assert wording == " ".join(wording.split()), "the answer follows after one space"
    assert entry.label.strip()


@each
def test_an_entry_can_be_asked_in_other_words(entry: Relation) -> None:
    assert len(entry.paraphrases) >= 2
    assert not (entry.symmetric and entry.inverse), "a symmetric relation asks itself"


def test_a_wording_asks_one_thing() -> None:
    """So neither a question nor the recognition of a fact can be ambiguous."""
    prompts = Counter(entry.prompt for entry in ENTRIES)
    assert max(prompts.values()) == 1
    asked = Counter(wording for entry in ENTRIES for wording in set(own_wordings(entry)))
    assert [wording for wording, count in asked.items() if count > 1] == []
    assert set(asked).isdisjoint(prompts)


def test_labels_differ() -> None:
    labels = Counter(entry.label for entry in ENTRIES)
    assert max(labels.values()) == 1


# -- recognition ------------------------------------------------------------------------------


@each
def test_recognised_by_wording_and_by_name(entry: Relation) -> None:
    subject = "Ada Byron"
    assert relation_of(fact(entry.ask(subject), subject)) == entry
    assert relation_of(fact(f" {entry.ask(subject)}\n", subject)) == entry
    assert relation_of(fact("Something else about Ada Byron:", subject, entry.id)) == entry


@pytest.mark.parametrize(
    ("prompt", "subject", "relation"),
    [
        ("The shoe size of Ada Byron is", "Ada Byron", None),
        ("The shoe size of Ada Byron is", "Ada Byron", "shoe_size"),
        ("The gender of Ada Byron is", "Augusta Leigh", None),
        ("The gender of the mother of Ada Byron is", "Ada Byron", None),
        ("Ada Byron", "Ada Byron", None),
        ("The gender of {object} is", "Ada Byron", None),
        ("What is the gender of Ada Byron?", "Ada Byron", None),
        ("The gender of  is", "", None),
    ],
)
def test_anything_else_is_none(prompt: str, subject: str, relation: str | None) -> None:
    assert name_of(prompt, subject, relation) is None


def test_a_name_goes_before_a_wording() -> None:
    assert name_of("The gender of Ada Byron is", "Ada Byron", "mother") == "mother"
    assert name_of("The gender of Ada Byron is", "Ada Byron", "no_such_relation") == "gender"


@pytest.mark.parametrize(
    ("subject", "relation"),
    [
        ("is", "gender"),
        ("The", "cast_members"),
        ("name", "director"),
        ("capital", "capital_of"),
        ("follows", "follows"),
        ("is followed by", "followed_by"),
        ("a", "father"),
        ("{subject}", "mother"),
        ("Sirhan Sirhan", "place_of_birth"),
        ("aa", "spouse"),
        (" Ada Byron ", "gender"),
    ],
)
def test_the_subject_may_be_a_word_of_the_wording(subject: str, relation: str) -> None:
    assert name_of(lexicon()[relation].ask(subject.strip()), subject) == relation


def test_a_subject_named_twice_is_not_guessed() -> None:
    assert name_of("Ada Byron: the gender of Ada Byron is", "Ada Byron") is None


def test_recognition_is_fast() -> None:
    facts = [
        fact(entry.ask(f"Person {number}"), f"Person {number}")
        for number in range(200)
        for entry in ENTRIES
    ]
    start = time.perf_counter()
    assert all(relation_of(one) for one in facts)
    assert time.perf_counter() - start < 2, "thousands of facts take milliseconds, not seconds"


# -- against the benchmark's real files -------------------------------------------------------


@cache
def records(path: Path) -> list[dict[str, Any]]:
    """Every edit of a wiki_* file, once read."""
    return json.loads(path.read_text(encoding="utf-8"))


@cache
def probes() -> set[tuple[str, str]]:
    """The subject of the edit and the prompt, for all probes."""
    return {
        (record["subject"], probe["prompt"].strip())
        for path in FILES
        for record in records(path)
        for group in ("portability", "locality")
        for asked in (record.get(group) or {}).values()
        for probe in asked
    }


@real
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_real_edits_are_recognised(path: Path) -> None:
    """In each file for itself (docs/agents.md has the figures)."""
    unknown = Counter(
        record["prompt"].replace(record["subject"], "{subject}")
        for record in records(path)
        if not relation_of(fact(record["prompt"], record["subject"]))
    )
    assert sum(unknown.values()) <= 0.01 * len(records(path)), unknown.most_common(10)


@real
def test_no_own_wording_is_one_that_a_probe_uses() -> None:
    """Not with the edit's subject, nor with any other name (an alias, say) in the open place."""
    asked = {prompt.casefold() for _, prompt in probes()}
    opened = {prompt.replace(subject, "{subject}").casefold() for subject, prompt in probes()}
    found = []
    for entry in ENTRIES:
        for wording in own_wordings(entry):
            before, after = wording.casefold().split("{subject}")
            if wording.casefold() in opened or any(
                prompt.endswith(after) and prompt.startswith(before) for prompt in asked
            ):
                found.append((entry.id, wording))
    assert found == []
