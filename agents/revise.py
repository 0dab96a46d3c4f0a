"""What to propose after a person has rejected prompts: pure functions of trials and rejections.

A rejected way of writing facts down (layout, header, footer, capacity) never comes again. What was
tried and passed comes first, other layouts and sizes before other headers; then smaller prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from agents.front import winner
from agents.records import Plan, Rejected, Trial
from prompts.layouts import frames
from ske.config import DesignConfig

Way = tuple[str, str, str, int]
"""Layout, header, footer and evenly filled capacity."""


def balanced(n: int, capacity: int) -> int:
    """The largest of the fewest, evenly filled prompts; capacities in between add nothing."""
    prompts = -(-n // min(n, capacity))
    return -(-n // prompts)


def another(
    trials: Sequence[Trial], rejected: Sequence[Rejected], n: int, config: DesignConfig
) -> Plan | None:
    """The next plan after a rejection, on all facts; None when nothing is left to propose."""
    gone = {way(r, n) for r in rejected}
    tried = [t for t in trials if t.plan.packer == "designer" and t.plan.purpose != "repair"]
    left = [t for t in tried if way(t.plan, n) not in gone]
    if any(t.passed for t in tried):  # What failed is no proposal, unless nothing else was found.
        left = [t for t in left if t.passed]
    looks = {(r.layout, balanced(n, r.capacity)) for r in rejected}
    other = [t for t in left if (t.plan.layout, balanced(n, t.plan.capacity)) not in looks]
    best = _best(other, config) or _best(left, config)
    if best is not None:
        return _plan(best.plan, n, f"{len(rejected)} rejected; the next best that was tried")
    for plan in _smaller(rejected, n, config):
        if way(plan, n) not in gone:
            return plan
    return None


def way(of: Plan | Rejected, n: int) -> Way:
    """What two plans must share to be the same proposal."""
    return of.layout, of.header, of.footer, balanced(n, of.capacity)


def unfit(plan: Plan, rejected: Sequence[Rejected], n: int, config: DesignConfig) -> str:
    """What about a plan makes it no answer to a rejection; "" if nothing."""
    if plan.purpose != "revise" or plan.packer != "designer" or plan.step:
        return "after a rejection the purpose is `revise`, the packer `designer`, the step empty"
    if plan.sample != n:
        return f"what a person is asked about covers all facts: sample {n}"
    if way(plan, n) in {way(r, n) for r in rejected}:
        return "just this layout, header, footer and capacity were rejected; propose another"
    return ""


def _best(trials: Sequence[Trial], config: DesignConfig) -> Trial | None:
    """The winner among these, as if they had all been searched for."""
    as_search = {"purpose": "search"}
    same = [t.model_copy(update={"plan": t.plan.model_copy(update=as_search)}) for t in trials]
    return winner(same, config)


def _plan(plan: Plan, n: int, reason: str) -> Plan:
    capacity = balanced(n, plan.capacity)
    more = {"purpose": "revise", "sample": n, "capacity": capacity, "reason": reason}
    return plan.model_copy(update=more)


def _smaller(rejected: Sequence[Rejected], n: int, config: DesignConfig) -> Iterator[Plan]:
    """Halved prompts, layout after layout, down to single facts; then other headers of the same."""
    sizes = [balanced(n, min(n, config.max_facts))]
    while sizes[-1] > 1:
        sizes.append(balanced(n, max(1, sizes[-1] // 2)))
    least = min(balanced(n, r.capacity) for r in rejected)
    for header in dict.fromkeys(["correct", *frames()["headers"]]):
        for capacity in [size for size in sizes if size <= least]:
            for layout in config.layouts:
                plan = Plan(
                    purpose="revise", layout=layout, header=header, capacity=capacity, sample=n
                )
                yield _plan(plan, n, f"{len(rejected)} rejected; smaller prompts, untried so far")
