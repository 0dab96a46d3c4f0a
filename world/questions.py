"""Every way to ask about the world, and what the answer is, with or without corrections.

Wordings that training may use come from `prompts/relations.yaml`, wordings that only probes use
from `wordings.yaml`; `View` answers both, so that the base model's text, the benchmarks and the
model card all share one notion of truth.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from prompts.relations import lexicon
from ske.types import ERASED
from world.population import World


@cache
def probe_wordings() -> dict[str, Any]:
    """The wordings that only probes use."""
    return yaml.safe_load(Path(__file__).with_name("wordings.yaml").read_text(encoding="utf-8"))


@cache
def wordings(relation: str, side: str) -> tuple[str, ...]:
    """Paraphrases of a relation on one `side`: "open" (training may use them) or "probe"."""
    if side == "open":
        return lexicon()[relation].paraphrases
    return tuple(probe_wordings()["paraphrases"].get(relation, ()))


@cache
def compositions(relation: str, side: str) -> dict[str, tuple[str, ...]]:
    """Two-hop wordings by second relation, on one side."""
    if side == "open":
        return lexicon()[relation].compositions
    return {k: tuple(v) for k, v in probe_wordings()["compositions"].get(relation, {}).items()}


@cache
def inverse_wordings(relation: str, side: str) -> tuple[str, ...]:
    """Wordings about the object that the subject answers; a symmetric relation asks itself."""
    entry = lexicon()[relation]
    if entry.symmetric:
        own = entry.paraphrases if side == "open" else (entry.prompt, *wordings(relation, "probe"))
        return tuple(w.replace("{subject}", "{object}") for w in own)
    if side == "open":
        return entry.inverse
    return tuple(probe_wordings()["inverse"].get(relation, ()))


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

    def two_hop(self, subject: str, first: str, second: str) -> str | None:
        """The value's value; an erased first hop leaves nothing to reason from."""
        middle = self.value(subject, first)
        if middle is None or middle == ERASED:
            return middle
        return self.value(middle, second)
