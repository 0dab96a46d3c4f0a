"""The Critic: why a fact was lost in its prompt, and what to change. Rules, and the node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langgraph.runtime import Runtime

from agents.call import decide
from agents.context import Context
from agents.packer import collides
from agents.records import Plan
from agents.state import FactScore, State, current_exams, unexamined
from eval.score import matches, normalise
from prompts.relations import relation_of
from ske.types import Fact, Frozen


class Reason(Frozen):
    """One lost fact."""

    fact: str
    why: str
    change: str
    """What the Planner or the Packer could do about it."""


class Critique(Frozen):
    """The Critic's decision."""

    reasons: list[Reason]


def critic(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
    """Node: say why each lost fact of this trial was lost."""
    context, plan = runtime.context, Plan(**state["plan"])
    failures = [
        (score, [context.facts[f["id"]] for f in exam["facts"]])
        for exam in current_exams(state)
        for score in exam["facts"]
        if not score["recall"]
    ]
    skipped = unexamined(current_exams(state))
    failures = [(score, pack) for score, pack in failures if score["id"] not in skipped]
    if not failures:
        return {"reasons": skipped}
    critique = decide(
        context,
        "critic",
        {
            "layout": plan.layout,
            "failures": [failure_view(score, context.facts[score["id"]]) for score, _ in failures],
        },
        Critique,
        lambda: Critique(reasons=[reason(s, pack, plan.layout) for s, pack in failures]),
        lambda made: flaw(made, [score["id"] for score, _ in failures]),
        facts=[score["id"] for score, _ in failures],
    )
    return {"reasons": {**skipped, **{r.fact: r.why for r in critique.reasons}}}


def flaw(critique: Critique, lost: Sequence[str]) -> str:
    """What about a critique would break the design: every lost fact has one reason, in words."""
    told = [r.fact for r in critique.reasons]
    if sorted(told) != sorted(lost):
        return f"reasons are wanted for just these facts, one each: {list(lost)}; there are {told}"
    empty = [r.fact for r in critique.reasons if not r.why.strip()]
    return f"`why` is empty for {empty}" if empty else ""


def failure_view(score: FactScore, fact: Fact) -> dict[str, Any]:
    """A lost fact as `prompts/agents/critic.md` shows it."""
    return {
        "fact": fact.id,
        "question": fact.prompt,
        "expected": fact.target_new,
        "answer": score["reply"],
        "base": score["prior"],
        "position": score["position"] + 1,
        "size": score["size"],
    }


def reason(score: FactScore, pack: Sequence[Fact], layout: str) -> Reason:
    """Every cause that applies, the most telling one first; the change follows from that one."""
    fact = next(f for f in pack if f.id == score["id"])
    found = [cause for cause in _causes(score, fact, pack) if cause]
    found.append((f"{_third(score)} of {score['size']} facts in layout {layout}", "move it"))
    return Reason(
        fact=fact.id,
        why="; ".join(why for why, _ in found),
        change=found[0][1],
    )


def _causes(score: FactScore, fact: Fact, pack: Sequence[Fact]) -> list[tuple[str, str] | None]:
    return [
        _mixed_up(score, fact, pack),
        _prior(score),
        _collision(fact, pack),
        None if relation_of(fact) else ("unknown relation", "use a layout with the full prompt"),
    ]


def _mixed_up(score: FactScore, fact: Fact, pack: Sequence[Fact]) -> tuple[str, str] | None:
    mine = normalise(fact.target_new)
    others = [f for f in pack if f.id != fact.id and normalise(f.target_new) != mine]
    for other in others:
        if matches(score["reply"], other.target_new):
            why = f"mixed up with {other.id} ({other.subject}: {other.target_new})"
            return why, "put the two facts into different prompts"
    return None


def _prior(score: FactScore) -> tuple[str, str] | None:
    if normalise(score["reply"]) != normalise(score["prior"]):
        return None
    return "strong prior: the base model's own answer came through", "state it twice"


def _collision(fact: Fact, pack: Sequence[Fact]) -> tuple[str, str] | None:
    near = [f.id for f in pack if collides(f, fact)]
    if not near:
        return None
    return f"collision: same surname and relation as {', '.join(near)}", "separate them"


def _third(score: FactScore) -> str:
    names = ("first third", "middle third", "last third")
    return names[min(2, 3 * score["position"] // max(1, score["size"]))]
