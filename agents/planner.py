"""The Planner: which capacity, layout and frame to try next, from the scores so far.

`propose` is a pure function of the trials, so a resumed run goes on just where it stopped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from langgraph.runtime import Runtime

from agents.call import decide
from agents.context import Context
from agents.front import SETTLING, candidates, winner
from agents.records import Plan, Purpose, Step, Trial, curve_row
from agents.revise import another, balanced, unfit
from agents.searching import parent, searcher
from agents.state import State, gains_of, lost_ids, rejections
from prompts.layouts import frames
from ske.config import DesignConfig

STEPS: tuple[Step, ...] = ("move", "repeat", "own")
"""A round of repair, one trial each."""
SEARCHED = 256
"""Most facts that one trial of a search asks about; the winner is verified on all of them."""
SAMPLED = 32
"""Facts asked about for a point of the curve, or one full prompt if that is more."""
CURVE = (1, 4, 16, 64)
FRAMES = (("use", "rest_long"), ("acknowledge", "rest"), ("none", "rest"))
"""Headers and footers tried at the best capacity."""
MISSED = 8
"""Lost facts that a model is shown of the trial it is to change."""
NAIVE_TRIALS = 2
"""Kept back from the search's budget: the naive packer is always measured."""


def planner(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
    """Node: decide what to try next."""
    context = runtime.context
    plan = decide(
        context,
        "planner",
        _variables(state, context),
        Plan,
        lambda: _next(state, context),
        lambda plan: flaw(plan, state, len(context.facts), within(context, trials_of(state))),
        facts=lost_ids(state["held"]) if state["phase"] == "repair" else (),
    )
    return {"plan": plan.model_dump(mode="json")}


def _next(state: State, context: Context) -> Plan:
    if state["phase"] == "repair":
        step = STEPS[len(gains_of(state)) % len(STEPS)]
        return repair_plan(Plan(**state["held"]["plan"]), step)
    trials, n = trials_of(state), len(context.facts)
    if state["phase"] == "revise":
        plan = another(trials, rejections(state), n, context.config)
    else:
        held = held_trial(state)
        # Seconds go by between the Judge's word and this: what it saw room for is tried.
        plan = propose(trials, n, within(context, trials), held) or propose(
            trials, n, context.config, held
        )
    if plan is None:
        raise RuntimeError("the Judge went on although there is nothing left to try")
    return plan


def _variables(state: State, context: Context) -> dict[str, Any]:
    trials = trials_of(state)
    return {
        "n": len(context.facts),
        "recall": context.config.recall,
        "max_facts": context.config.max_facts,
        "layouts": list(context.config.layouts),
        "headers": list(frames()["headers"]),
        "footers": list(frames()["footers"]),
        "trials": [curve_row(t).model_dump(mode="json") for t in trials],
        "left": max(0, context.config.max_trials - spent(trials)),
        "phase": state["phase"],
        "lost": lost_ids(state["held"]) if state["phase"] == "repair" else [],
        "held": state["held"]["plan"],
        "rejected": [r.model_dump(exclude={"prompts", "gains"}) for r in rejections(state)],
        **_to_change(state, trials, context),
    }


def _to_change(state: State, trials: Sequence[Trial], context: Context) -> dict[str, Any]:
    """The trial that a search by GEPA changes next, and some of the facts lost in it."""
    sample = min(len(context.facts), SEARCHED)
    found = parent(trials, sample, context.config) if state["phase"] == "search" else None
    if found is None:
        return {"parent": None, "missed": [], "sample": sample}
    lost = [context.facts[i] for i in found.lost[:MISSED]]
    return {
        "parent": {"trial": found.index, **curve_row(found).model_dump(mode="json")},
        "missed": [{"prompt": fact.prompt, "answer": fact.target_new} for fact in lost],
        "sample": sample,
    }


def trials_of(state: State) -> list[Trial]:
    """The trials so far, as records."""
    return [Trial(**trial) for trial in state["trials"]]


def held_trial(state: State) -> int | None:
    """Which trial's prompts are held; None before the first."""
    held = state["held"]
    return held["trial"] if held["packs"] else None


def spent(trials: Sequence[Trial]) -> int:
    """What the trials cost of the budget: repairs and revisions are not part of the search."""
    return sum(t.plan.purpose not in ("repair", "revise") for t in trials)


def within(context: Context, trials: Sequence[Trial]) -> DesignConfig:
    """The configuration; without trials left if a budget has no room for one more."""
    n, cost = len(context.facts), spent(trials)
    naive = any(t.plan.packer == "naive" for t in trials)
    facts = min(n, SEARCHED) * (1 if naive else 2) + (n if n > SEARCHED else 0)
    if not trials or context.meter.allows(facts) or cost > context.config.max_trials:
        return context.config
    return context.config.model_copy(update={"max_trials": max(1, cost)})


def repair_plan(held: Plan, step: Step) -> Plan:
    """Treat the lost facts of the held prompts."""
    why = {
        "move": "move lost facts to the end",
        "repeat": "state lost facts twice",
        "own": "give lost facts a prompt of their own",
    }[step]
    return held.model_copy(update={"purpose": "repair", "step": step, "reason": why})


def propose(
    trials: Sequence[Trial], n: int, config: DesignConfig, held: int | None = None
) -> Plan | None:
    """The next plan, or None when nothing is left to try or to pay for.

    Args:
        trials: What was tried; a plan is never tried twice.
        n: Number of facts.
        config: Budget, layouts and the wanted recall.
        held: The trial whose prompts are held. If it is not the winner, or did not cover all
            facts, the winner is verified before the search ends.
    """
    if any(t.plan.purpose == "revise" for t in trials):
        return None  # A person has ended the search.
    cost = spent(trials)
    plan: Plan | None = None
    if cost < max(1, config.max_trials - NAIVE_TRIALS):
        plan = searcher(config)(trials, min(n, SEARCHED), config)
    plan = plan or _naive(trials, n, config)
    if plan is None and cost < config.max_trials:
        plan = _frame(trials, n, config) or _curve(trials, n, config)
    return plan or _verify(trials, n, config, held)


def owed(trials: Sequence[Trial], n: int, config: DesignConfig, held: int | None) -> Plan | None:
    """What no search may end without: a naive trial, and the winner's trial on all facts."""
    naive = any(t.plan.packer == "naive" for t in trials)
    return (None if naive else _naive(trials, n, config)) or _verify(trials, n, config, held)


def flaw(plan: Plan, state: State, n: int, config: DesignConfig) -> str:
    """What about a plan would break the design: nothing to carry out, or no end of trials."""
    if state["phase"] == "repair":
        wanted = repair_plan(Plan(**state["held"]["plan"]), plan.step) if plan.step else None
        if wanted is None or plan.model_copy(update={"reason": wanted.reason}) != wanted:
            return f"a repair is the held plan with purpose `repair` and a step of {list(STEPS)}"
        return ""
    order = _revision if state["phase"] == "revise" else _order
    return _unknown(plan, config) or _bounds(plan, n, config) or order(plan, state, n, config)


def _unknown(plan: Plan, config: DesignConfig) -> str:
    layouts = ("prose",) if plan.packer == "naive" else config.layouts
    choices = {"layout": layouts, "header": frames()["headers"], "footer": frames()["footers"]}
    for key, known in choices.items():
        value = plan.model_dump()[key]
        if value not in known:
            return f"{key} {value!r} is unknown; there are: {', '.join(known)}"
    if plan.purpose == "repair" or plan.step:
        return "nothing is repaired while the search goes on"
    if (plan.purpose == "naive") != (plan.packer == "naive"):
        return "purpose `naive` and packer `naive` go together"
    if plan.packer == "naive" and (plan.header, plan.footer) != ("none", "none"):
        return "the naive packer has header `none` and footer `none`"
    return ""


def _bounds(plan: Plan, n: int, config: DesignConfig) -> str:
    if not 1 <= plan.capacity <= config.max_facts:
        return f"capacity {plan.capacity} is not between 1 and {config.max_facts}"
    if not plan.capacity <= plan.sample <= n:
        return f"sample {plan.sample} is not between the capacity {plan.capacity} and {n}"
    return ""


def _revision(plan: Plan, state: State, n: int, config: DesignConfig) -> str:
    return unfit(plan, rejections(state), n, config)


def _order(plan: Plan, state: State, n: int, config: DesignConfig) -> str:
    if plan.purpose == "revise":
        return "nothing was rejected that a plan of purpose `revise` could answer"
    trials, held = trials_of(state), held_trial(state)
    best = winner(trials, config)
    if best is None and plan.purpose != "search":
        return "the first trial has purpose `search`"
    left = propose(trials, n, config, held)
    if left is not None and _same(plan, left):
        return ""
    if spent(trials) >= config.max_trials - NAIVE_TRIALS and left is not None and best is not None:
        return f"there is budget for this trial only: {left.model_dump_json(exclude={'reason'})}"
    if plan.purpose == "verify":
        wanted = best.plan.model_copy(update={"purpose": "verify", "sample": n}) if best else None
        if wanted is None or not _same(plan, wanted):
            return f"`verify` is the best trial's plan with sample {n}"
    done = [t.index for t in trials if _same(t.plan, plan)]
    return f"trial {done[0]} was just this" if done else ""


def _same(a: Plan, b: Plan) -> bool:
    return a.model_copy(update={"reason": b.reason}) == b


def _naive(trials: Sequence[Trial], n: int, config: DesignConfig) -> Plan | None:
    sample = min(n, SEARCHED)
    best = winner(trials, config)
    sizes = [balanced(sample, config.max_facts), *([best.plan.capacity] if best else [])]
    done = {t.plan.capacity for t in trials if t.plan.packer == "naive"}
    for capacity in dict.fromkeys(sizes):
        # Frames and curves come later and do not move the winner far: two are enough.
        if capacity not in done and len(done) < NAIVE_TRIALS:
            return _plan(
                "naive",
                "prose",
                capacity,
                sample,
                "the naive packer, for comparison",
                header="none",
                footer="none",
                packer="naive",
            )
    return None


def _frame(trials: Sequence[Trial], n: int, config: DesignConfig) -> Plan | None:
    best = winner([t for t in trials if t.plan.purpose == "search"], config)
    if best is None or not best.passed:
        return None
    layout, capacity = best.plan.layout, best.plan.capacity
    own = [
        t.plan
        for t in candidates(trials)
        if t.plan.purpose == "frame" or (t.plan.layout, t.plan.capacity) == (layout, capacity)
    ]
    tried = {(plan.header, plan.footer) for plan in own}
    for header, footer in FRAMES:
        if (header, footer) not in tried:
            return _plan(
                "frame",
                layout,
                capacity,
                best.plan.sample,
                "another header",
                header=header,
                footer=footer,
            )
    return None


def _curve(trials: Sequence[Trial], n: int, config: DesignConfig) -> Plan | None:
    top = balanced(min(n, SEARCHED), config.max_facts)
    for layout in config.layouts:
        own = [t.plan for t in trials if t.plan.layout == layout]
        known = {plan.capacity for plan in own if plan.packer == "designer"}
        for capacity in dict.fromkeys([c for c in CURVE if c <= top] + [top]):
            if capacity not in known:
                sample = min(n, max(SAMPLED, capacity))
                return _plan("curve", layout, capacity, sample, "a point of the capacity curve")
    return None


def _verify(trials: Sequence[Trial], n: int, config: DesignConfig, held: int | None) -> Plan | None:
    best = winner(trials, config)
    if best is None or best.plan.purpose in SETTLING or (best.index == held and best.n == n):
        return None
    return best.plan.model_copy(
        update={"purpose": "verify", "sample": n, "reason": "the winner, on all facts"}
    )


def _plan(purpose: str, layout: str, capacity: int, sample: int, reason: str, **more: Any) -> Plan:
    return Plan(
        purpose=cast(Purpose, purpose),
        layout=layout,
        capacity=capacity,
        sample=sample,
        reason=reason,
        **more,
    )
