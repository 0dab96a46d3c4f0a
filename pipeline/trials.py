"""The trials of a design, read from its trace: what was planned, written, examined and judged.

One pass over `trace.jsonl`, event by event (it can be large). A turn that was done again after a
kill has two events; the later one counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from agents.records import Design
from ske.trace import Event


class Prompt(NamedTuple):
    """One prompt of one trial."""

    name: str
    """Trial and place, e.g. "3.0"."""
    system: str
    fact_ids: tuple[str, ...]
    recalled: dict[str, bool]
    """Which facts were answered; empty if it was not examined."""


class Tried(NamedTuple):
    """A trial, as the Judge saw it, with why it was tried and what came of it."""

    row: dict[str, Any]
    """Plan and scores: purpose, layout, packer, facts_per_prompt, n, recall, ..."""
    why: str
    verdict: str
    passed: bool
    chosen: bool
    prompts: list[Prompt]
    questions: int
    """Put to the teacher for it."""
    tokens: int


@dataclass
class _Open:
    """A trial whose verdict is not there yet."""

    plan: dict[str, Any]
    written: dict[tuple[str, ...], str] = field(default_factory=dict)
    marks: dict[tuple[str, ...], dict[str, bool]] = field(default_factory=dict)
    questions: int = 0
    tokens: int = 0

    def hear(self, event: Event) -> None:
        """Take in one event of the trial."""
        facts = tuple(event.facts)
        if event.brain == "teacher":
            self.questions += int(event.scores.get("questions", 0))
            self.tokens += event.tokens
        elif event.role == "writer":
            self.written[facts] = str(event.parsed.get("system", ""))
        elif event.role == "examiner":
            rows = event.parsed.get("rows", [])
            self.marks[facts] = {r["fact"]: r["ok"] for r in rows if r["kind"] == "fact"}
            # A trace without the Writer's turns has the text here, cut if it is long.
            self.written.setdefault(facts, str(event.variables.get("system", "")))

    def close(self, number: int, event: Event, recall: float) -> Tried:
        """The finished trial."""
        prompts = [
            Prompt(f"{number}.{place}", system, facts, self.marks.get(facts, {}))
            for place, (facts, system) in enumerate(self.written.items())
        ]
        n = sum(map(len, self.marks))
        plan, scores = self.plan, event.scores
        row = {**plan, **scores, "facts_per_prompt": plan.get("capacity"), "n": n}
        return Tried(
            row,
            str(plan.get("reason", "")),
            str(event.parsed.get("reason", "")),
            n > 0 and scores.get("recall", 0.0) >= recall,
            False,
            prompts,
            self.questions,
            self.tokens,
        )


class Trials:
    """Collects trials from events, in their order."""

    def __init__(self, recall: float) -> None:
        """`recall`: what passes."""
        self.recall = recall
        self.tried: list[Tried] = []
        self.winner: int | None = None
        self._open: _Open | None = None

    def hear(self, event: Event) -> None:
        """Take in the next event."""
        if event.role == "planner":
            self._open = _Open(event.parsed)
        elif self._open is not None and event.role == "judge":
            self.tried.append(self._open.close(len(self.tried), event, self.recall))
            self.winner, self._open = event.parsed.get("winner"), None
        elif self._open is not None:
            self._open.hear(event)

    def all(self) -> list[Tried]:
        """The trials; the winner is marked."""
        return [t._replace(chosen=i == self.winner) for i, t in enumerate(self.tried)]


def versions(design: Design, tried: Iterable[Tried]) -> list[Prompt]:
    """Every prompt that was ever written, in that order, and then the finished ones."""
    written = [prompt for trial in tried for prompt in trial.prompts]
    for pack in design.packs:
        recalled = {fact: fact not in design.lost for fact in pack.fact_ids}
        written.append(Prompt(pack.id, pack.system, pack.fact_ids, recalled))
    return written


def pieces(text: str) -> list[str]:
    """The lines of a prompt; prose, which has only one, is cut behind its sentences."""
    lines = text.splitlines()
    return [part for line in lines for part in line.replace(". ", ".\n").split("\n")]
