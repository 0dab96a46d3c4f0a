"""The graph's state: plain dicts, lists, strings and numbers, so that a checkpoint can hold it.

Models, facts and files are in the context (`context.py`); prompts' texts are kept for the best
trial only, because SQLite stores the whole state at every step.
"""

from __future__ import annotations

import operator
from typing import Annotated, Any, TypedDict


class PackState(TypedDict):
    """A prompt under examination."""

    index: int
    origin: int
    """In a repair: the index of the held pack that it replaces, or a part of which it takes."""
    fact_ids: list[str]
    repeated: list[str]
    system: str


class FactScore(TypedDict):
    """How one fact fared in one prompt."""

    id: str
    position: int
    size: int
    """Number of facts in the prompt."""
    recall: bool
    paraphrase: bool | None
    consequences: list[bool]
    drift: list[bool]
    reply: str
    """The answer to the fact's own prompt."""
    prior: str
    """The base model's answer to it, without PROMPT."""


class Exam(TypedDict):
    """How one prompt fared."""

    trial: int
    pack: int
    tokens: int
    facts: list[FactScore]


class Held(TypedDict):
    """The best prompts so far."""

    trial: int
    plan: dict[str, Any]
    packs: list[PackState]
    exams: list[Exam]
    reasons: dict[str, str]
    """Why each lost fact was lost, from the Critic."""


def latest(old: list[Exam], new: list[Exam]) -> list[Exam]:
    """Reducer of the map over packs: the newest trial's exams, in pack order."""
    rows = [*old, *new]
    trial = max((row["trial"] for row in rows), default=0)
    return sorted((row for row in rows if row["trial"] == trial), key=lambda row: row["pack"])


class State(TypedDict):
    """What the nodes read and write."""

    phase: str
    """"search", "repair" or "done"."""
    plan: dict[str, Any]
    packs: list[PackState]
    exams: Annotated[list[Exam], latest]
    reasons: dict[str, str]
    trials: Annotated[list[dict[str, Any]], operator.add]
    held: Held
    gains: Annotated[list[int], operator.add]
    """Facts won back by each step of repair."""
    front: list[int]
    passed: bool
    verdict: str


class ExamTask(TypedDict):
    """What one examiner gets from `Send`."""

    trial: int
    layout: str
    pack: PackState


def start() -> State:
    """The state before the first trial: nothing is held."""
    return {
        "phase": "search",
        "plan": {},
        "packs": [],
        "exams": [],
        "reasons": {},
        "trials": [],
        "held": {"trial": -1, "plan": {}, "packs": [], "exams": [], "reasons": {}},
        "gains": [],
        "front": [],
        "passed": False,
        "verdict": "",
    }


def current_exams(state: State) -> list[Exam]:
    """The exams of the trial under way; a repair that changes nothing has none."""
    trial = len(state["trials"])
    return [exam for exam in state["exams"] if exam["trial"] == trial]


def lost_ids(held: Held) -> list[str]:
    """The facts that the held prompts do not answer."""
    return [f["id"] for exam in held["exams"] for f in exam["facts"] if not f["recall"]]
