"""Which trial is best: the winner among the designer's, and the Pareto front of all. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from agents.records import Trial
from ske.config import DesignConfig

SETTLING = ("verify", "revise")
"""Trials on all facts, after which nothing else is handed over."""
NEAR = 1.25
"""Capacities within this factor count as equal; consequences and drift decide between them."""


def wanted(packer: str, config: DesignConfig) -> float:
    """The recall that a trial has to reach; the designer's prompts can be repaired afterwards."""
    spare = config.repairable if packer == "designer" and config.max_repairs else 0.0
    return config.recall - spare


def passing_capacity(trials: Sequence[Trial]) -> int:
    """The largest capacity that the designer's packer has passed with; 0 if none."""
    return max((t.plan.capacity for t in candidates(trials) if t.passed), default=0)


def candidates(trials: Sequence[Trial]) -> list[Trial]:
    """Trials whose prompts could be handed over."""
    searched = ("search", "frame", *SETTLING)
    return [t for t in trials if t.plan.packer == "designer" and t.plan.purpose in searched]


def winner(trials: Sequence[Trial], config: DesignConfig) -> Trial | None:
    """The best trial so far; a verified one, and later one that answers a rejection, settles it.

    If none passes, the best recall.
    """
    able = candidates(trials)
    verified = [t for t in able if t.plan.purpose in SETTLING]
    if verified:
        return verified[-1]
    passing = [t for t in able if t.passed]
    if not passing:
        return max(able, key=_unpassed, default=None)
    largest = max(t.plan.capacity for t in passing)
    near = [t for t in passing if t.plan.capacity * NEAR >= largest]
    leanest = min(t.scores.tokens_per_fact for t in near)
    return max(near, key=lambda t: (_utility(t, leanest, config.drift), -t.index))


def _unpassed(trial: Trial) -> tuple[float, bool, int, int]:
    """The best of what did not pass; prompts that nobody could examine (no tokens) come last."""
    examined = trial.scores.tokens_per_fact > 0
    return trial.scores.recall, examined, trial.plan.capacity, -trial.index


def _utility(trial: Trial, leanest: float, weight: float) -> float:
    """What decides between near ties: consequences first, then facts per token against drift."""
    density = leanest / trial.scores.tokens_per_fact if trial.scores.tokens_per_fact else 1.0
    stay = 1 - (trial.scores.drift or 0.0)
    return (trial.scores.consequences or 0.0) + weight * stay + (1 - weight) * density


def pareto(trials: Sequence[Trial]) -> list[Trial]:
    """Trials that no other one beats or equals in every respect (of equals the first stays)."""
    rows = [t for t in trials if t.plan.purpose != "repair" and t.n]
    return [t for t in rows if not any(_dominates(other, t) for other in rows)]


def _dominates(a: Trial, b: Trial) -> bool:
    mine, other = _merits(a), _merits(b)
    no_worse = all(x >= y for x, y in zip(mine, other, strict=True))
    return no_worse and (mine != other or a.index < b.index)


def _merits(trial: Trial) -> tuple[float, ...]:
    scores = trial.scores
    return (trial.plan.capacity, scores.recall, -(scores.drift or 0.0), -scores.tokens_per_fact)
