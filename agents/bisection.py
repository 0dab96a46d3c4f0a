"""The Planner's search by bisection: in each layout the largest capacity that passes. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from agents.front import NEAR, candidates, passing_capacity
from agents.records import Plan, Trial
from agents.revise import balanced
from ske.config import DesignConfig


def search(trials: Sequence[Trial], sample: int, config: DesignConfig) -> Plan | None:
    """The next plan; None when every layout is settled."""
    top = balanced(sample, config.max_facts)
    for layout in config.layouts:
        own = _measured(trials, layout)
        elsewhere = [t for t in trials if t.plan.layout != layout]
        capacity = next_capacity(own, sample, top, passing_capacity(elsewhere))
        if capacity is not None:
            reason = "as many as fit" if not own else "between what passed and what failed"
            return Plan(
                purpose="search", layout=layout, capacity=capacity, sample=sample, reason=reason
            )
    return None


def _measured(trials: Sequence[Trial], layout: str) -> dict[int, bool]:
    own = [t for t in candidates(trials) if t.plan.layout == layout and t.plan.purpose == "search"]
    return {t.plan.capacity: t.passed for t in own}


def next_capacity(own: dict[int, bool], n: int, top: int, best: int) -> int | None:
    """Bisection inside one layout.

    Args:
        own: Capacities this layout was tried at, and whether it passed.
        n: Number of facts tried.
        top: The largest capacity; tried first.
        best: What another layout passed with: this one has to reach it, or is left.
    """
    if not own:
        return top
    passed = max((c for c, ok in own.items() if ok), default=0)
    failed = min((c for c, ok in own.items() if not ok and c > passed), default=0)
    if not failed:
        return None
    if not passed:
        return _first_foothold(failed, n, best)
    between = sorted({balanced(n, c) for c in range(passed + 1, failed)} - {passed, failed})
    between = [c for c in between if passed < c < failed]
    if not between or failed / passed <= NEAR:
        return None
    middle = (passed * failed) ** 0.5  # capacities are felt as ratios
    return min(between, key=lambda c: (abs(c - middle), c))


def _first_foothold(failed: int, n: int, best: int) -> int | None:
    if best:
        return best if best < failed else None
    grid = [c for c in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024) if c < failed]
    return balanced(n, grid[len(grid) // 2]) if grid else None
