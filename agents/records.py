"""What the agents decide and hand over: plans, trials, packs and the finished `Design`.

Pure records: no model, no file. The graph's state holds them as plain dicts (`state.py`).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ske.types import Frozen

Purpose = Literal["search", "naive", "frame", "curve", "verify", "repair", "revise"]
Packer = Literal["designer", "naive"]
Step = Literal["", "move", "repeat", "own"]


class Plan(Frozen):
    """What the Planner wants tried next."""

    purpose: Purpose
    layout: str
    header: str = "correct"
    footer: str = "rest"
    capacity: int
    """Most facts in one prompt."""
    packer: Packer = "designer"
    sample: int
    """How many facts are tried; less than all of them on the curve and in searches over many."""
    step: Step = ""
    """How a repair treats lost facts: moved to the end, stated twice, or a prompt of their own."""
    reason: str = ""


class Scores(Frozen):
    """How a trial went, as shares from 0 to 1; None where nothing could be asked."""

    recall: float
    """Facts whose own prompt is answered with the new target."""
    paraphrase: float | None = None
    consequences: float | None = None
    drift: float | None = None
    """Neighbour questions whose answer differs from the base model's."""
    tokens_per_fact: float


class Trial(Frozen):
    """One plan, carried out."""

    index: int
    plan: Plan
    n: int
    """Facts that were tried."""
    prompts: int
    scores: Scores
    passed: bool
    """Whether recall reached `design.recall`, or comes so near that repairs may bring it there."""
    lost: tuple[str, ...] = ()
    """Ids of the facts whose own prompt was answered otherwise."""


class Pack(Frozen):
    """One finished prompt."""

    id: str
    fact_ids: tuple[str, ...]
    """In the order in which the prompt states them."""
    repeated: tuple[str, ...] = ()
    """Facts stated a second time at the end, because once was not enough."""
    system: str
    """The prompt itself, word for word."""
    layout: str
    header: str
    footer: str
    capacity: int
    recall: float
    tokens: int
    """What the prompt adds to a question."""


class CurveRow(Frozen):
    """One point of the capacity curve."""

    layout: str
    packer: Packer
    header: str
    footer: str
    facts_per_prompt: int
    n: int
    recall: float
    paraphrase: float | None
    consequences: float | None
    drift: float | None
    tokens_per_fact: float


class Rejected(Frozen):
    """A person's no to finished prompts."""

    reason: str
    """In the person's words."""
    layout: str
    header: str
    footer: str
    capacity: int
    prompts: str
    """The hash of the prompts that were read."""
    gains: int = 0
    """How many steps of repair had been made until then."""


class Turns(Frozen):
    """Who decided while the design was made."""

    brain: str = "rules"
    asked: int = 0
    """Decisions that a model was asked for."""
    by_rules: dict[str, int] = Field(default_factory=dict)
    """How many of them the rules had to take, for want of a reply that could be used, by role."""


class Design(Frozen):
    """What the agents hand over: every fact is in a pack, and in `lost` if it is not answered."""

    packs: tuple[Pack, ...]
    curve: tuple[CurveRow, ...]
    front: tuple[CurveRow, ...]
    """Rows of the curve that no other row beats in every respect."""
    lost: dict[str, str]
    """Facts that stayed unanswered, with the Critic's reason."""
    trials: int
    passed: bool
    """Whether the prompts recall as many facts as wanted, repairs included."""
    verdict: str
    """Why the search stopped and what it chose, in words."""
    turns: Turns = Turns()
    rejected: tuple[Rejected, ...] = ()
    """What a person said no to before, oldest first."""


def curve_row(trial: Trial) -> CurveRow:
    """A trial as a point of the curve."""
    plan = trial.plan
    return CurveRow(
        layout=plan.layout,
        packer=plan.packer,
        header=plan.header,
        footer=plan.footer,
        facts_per_prompt=plan.capacity,
        n=trial.n,
        **trial.scores.model_dump(),
    )
