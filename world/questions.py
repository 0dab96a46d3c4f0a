"""Every way to ask about the world, and what the answer is, with or without corrections.

Wordings that training may use come from `prompts/relations.yaml`, wordings that only probes use
from `wordings.yaml`; `View` answers both, so that the base model's text, the benchmarks and the
model card all share one notion of truth.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from prompts.relations import EXCEPTION, lexicon
from ske.types import ERASED
from world.population import World

Chain = tuple[str, ...]
"""Relations to follow one after the other, from a subject."""
OPEN = "open"
PROBE_SIDES = ("val", "test")
SIDES = (OPEN, *PROBE_SIDES)
"""Who may use a wording: training edits, or the probes of one split's people alone."""


@cache
def probe_wordings() -> dict[str, Any]:
    """The wordings that only probes use."""
    return yaml.safe_load(Path(__file__).with_name("wordings.yaml").read_text(encoding="utf-8"))


@cache
def wordings(relation: str, side: str) -> tuple[str, ...]:
    """Paraphrases of a relation on one of the `SIDES`."""
    if side == OPEN:
        return lexicon()[relation].paraphrases
    return tuple(probe_wordings()["paraphrases"].get(relation, {}).get(side, ()))


@cache
def compositions(relation: str, side: str) -> dict[str, tuple[str, ...]]:
    """Two-hop wordings by second relation, on one side."""
    if side == OPEN:
        return lexicon()[relation].compositions
    seconds = probe_wordings()["compositions"].get(relation, {})
    return {second: tuple(sides[side]) for second, sides in seconds.items()}


@cache
def beyond(side: str) -> dict[Chain, tuple[str, ...]]:
    """Wordings of chains of relations that no training edit may ask for, on a probe side."""
    chains = probe_wordings()["beyond"]
    return {tuple(name.split(".")): tuple(sides[side]) for name, sides in chains.items()}


@cache
def beyond_patterns() -> tuple[tuple[re.Pattern[str], int], ...]:
    """Every wording of `beyond`, on every side, with a group for whom it asks about; its hops."""
    return tuple(
        (re.compile(re.escape(wording).replace(re.escape("{subject}"), "(.+)")), len(chain))
        for side in PROBE_SIDES
        for chain, own in beyond(side).items()
        for wording in own
    )


@cache
def chained(first: str) -> dict[Chain, tuple[str, ...]]:
    """All chains that begin with a relation, two-hop compositions and `beyond`: every wording."""
    found: dict[Chain, tuple[str, ...]] = {}
    for side in SIDES:
        for second, own in compositions(first, side).items():
            found[first, second] = (*found.get((first, second), ()), *own)
    for side in PROBE_SIDES:
        for chain, own in beyond(side).items():
            if chain[0] == first:
                found[chain] = (*found.get(chain, ()), *own)
    return found


@cache
def inverse_wordings(relation: str, side: str) -> tuple[str, ...]:
    """Wordings about the object that the subject answers; a symmetric relation asks itself."""
    entry = lexicon()[relation]
    if entry.symmetric:
        own = entry.paraphrases if side == OPEN else (entry.prompt, *wordings(relation, side))
        return tuple(w.replace("{subject}", "{object}") for w in own)
    if side == OPEN:
        return entry.inverse
    return tuple(probe_wordings()["inverse"].get(relation, {}).get(side, ()))


def exception_wording(side: str) -> str:
    """How one side asks for what there was besides a new value."""
    return EXCEPTION if side == OPEN else probe_wordings()["except"][side]


class Question(NamedTuple):
    """A question and the one answer the world gives."""

    prompt: str
    answer: str
    kind: str = "direct"


class View:
    """The world as it is after some corrections: (subject, relation) -> new value."""

    def __init__(self, world: World, edits: dict[tuple[str, str], str] | None = None) -> None:
        """Corrections of symmetric relations are mirrored unless the mirror is corrected too."""
        self.world = world
        self.edits = dict(edits or {})
        for (subject, relation), value in list(self.edits.items()):
            if lexicon()[relation].symmetric and value != ERASED:
                self.edits.setdefault((value, relation), subject)

    def value(self, subject: str, relation: str) -> str | None:
        """The value now; None if the subject has none."""
        if (subject, relation) in self.edits:
            return self.edits[subject, relation]
        return self.world.values.get(subject, {}).get(relation)

    def follow(self, subject: str, chain: Chain) -> str | None:
        """The value at the end of a chain; an erased hop leaves nothing to reason from."""
        found: str | None = subject
        for relation in chain:
            if found is None or found == ERASED:
                return found
            found = self.value(found, relation)
        return found
