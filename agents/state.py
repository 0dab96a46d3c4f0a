"""The graph's state: plain dicts, lists, strings and numbers, so that a checkpoint can hold it.

Models, facts and files are in the context (`context.py`); prompts' texts are kept for the best
trial only, because SQLite stores the whole state at every step.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Annotated, Any, NotRequired, TypedDict

from agents.records import Pack, Plan, Rejected


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
    skipped: NotRequired[str]
    """Why it was not examined; "" if it was."""


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
    """"search", "repair", "done"; after a rejection "revise", or "exhausted" if nothing is left."""
    plan: dict[str, Any]
    packs: list[PackState]
    exams: Annotated[list[Exam], latest]
    reasons: dict[str, str]
    trials: Annotated[list[dict[str, Any]], operator.add]
    held: Held
    gains: Annotated[list[int], operator.add]
    """Facts won back by each step of repair."""
    rejected: Annotated[list[dict[str, Any]], operator.add]
    """What a person said no to, as `agents.records.Rejected`."""
    front: list[int]
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
        "rejected": [],
        "front": [],
        "verdict": "",
    }


def current_exams(state: State) -> list[Exam]:
    """The exams of the trial under way; a repair that changes nothing has none."""
    trial = len(state["trials"])
    return [exam for exam in state["exams"] if exam["trial"] == trial]


def packs_of(held: Held) -> tuple[Pack, ...]:
    """The best prompts so far, as they would be handed over."""
    plan = Plan(**held["plan"])
    pairs = zip(held["packs"], held["exams"], strict=True)
    return tuple(_pack(pack, exam, plan) for pack, exam in pairs)


def _pack(pack: PackState, exam: Exam, plan: Plan) -> Pack:
    recalled = sum(fact["recall"] for fact in exam["facts"])
    return Pack(
        id=f"pack-{pack['index']:02}",
        fact_ids=tuple(pack["fact_ids"]),
        repeated=tuple(pack["repeated"]),
        system=pack["system"],
        layout=plan.layout,
        header=plan.header,
        footer=plan.footer,
        capacity=plan.capacity,
        recall=round(recalled / len(exam["facts"]), 4),
        tokens=exam["tokens"],
    )


def rejections(state: State) -> list[Rejected]:
    """What a person said no to, as records; a checkpoint of an older version has no such key."""
    return [Rejected(**row) for row in state.get("rejected", [])]


def gains_of(state: State) -> list[int]:
    """The gains of repair since the last rejection: every proposal has its own repairs."""
    said = rejections(state)
    return state["gains"][said[-1].gains if said else 0 :]


def unexamined(exams: Sequence[Exam]) -> dict[str, str]:
    """Facts of prompts that were not examined, and why."""
    return {
        fact["id"]: why
        for exam in exams
        if (why := exam.get("skipped", ""))
        for fact in exam["facts"]
    }


def lost_ids(held: Held) -> list[str]:
    """The facts that the held prompts do not answer."""
    return [f["id"] for exam in held["exams"] for f in exam["facts"] if not f["recall"]]
