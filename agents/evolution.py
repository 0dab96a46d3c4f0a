"""The Planner's search by GEPA (Agrawal et al. 2025, arXiv 2507.19457): prompts evolve.

GEPA owns its loop, and so does the agents' graph. They meet because every trial is stored: GEPA is
run from its start over the trials so far, each of them the child of the parent that GEPA draws at
that turn, and stopped at the draw that no trial answers yet. What it drew there is changed next,
by the rules below or by a model that is the Planner. So the next plan follows from the trials and
a seed, nothing of GEPA has to be saved, and it can ask no question that the graph does not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from math import log2
from typing import Any

from gepa.api import optimize
from gepa.core.adapter import EvaluationBatch, ProposalFn
from gepa.core.data_loader import DataLoader
from gepa.core.state import GEPAState
from gepa.proposer.reflective_mutation.base import CandidateSelector
from gepa.strategies.batch_sampler import BatchSampler
from gepa.strategies.proposal_sampling import ProposalTask

from agents.bisection import next_capacity
from agents.front import candidates
from agents.records import Plan, Trial
from agents.revise import balanced
from prompts.layouts import frames
from ske.config import DesignConfig

Candidate = dict[str, str]
"""What GEPA evolves: layout, header, footer and capacity of a plan, by name."""
ALWAYS = ""
"""Stands for a fact that no trial has lost; their ids make no difference."""


def search(trials: Sequence[Trial], sample: int, config: DesignConfig) -> Plan | None:
    """The next plan: GEPA's choice with one thing changed; None if all changes were tried."""
    top = balanced(sample, config.max_facts)
    parent = chosen(trials, sample, config.search_seed)
    if parent is None:
        first = {"layout": config.layouts[0], "capacity": top, "reason": "as many as fit"}
        return Plan.model_validate({"purpose": "search", "sample": sample, **first})
    population = _population(trials, sample)
    tried = [_candidate(t.plan) for t in population]
    # Should all changes of GEPA's choice be tried, the newest of the others are changed.
    for trial in [parent, *reversed(population)]:
        for change in _changes(trial.plan, trials, top, config):
            plan = trial.plan.model_copy(update=change)
            if _candidate(plan) not in tried:
                why = "GEPA's choice" if trial is parent else "GEPA's choice is exhausted"
                reason = f"trial {trial.index} with another {next(iter(change))}; {why}"
                return plan.model_copy(update={"reason": reason})
    return None


def _changes(
    plan: Plan, trials: Sequence[Trial], top: int, config: DesignConfig
) -> Iterator[dict[str, Any]]:
    """What can be changed about a plan, most promising first: the capacity until it is settled."""
    known = _passed(trials, plan.layout)
    capacity = top if all(known.values()) else next_capacity(known, plan.sample, top, 0)
    if capacity is not None:
        yield {"capacity": capacity}
    for layout in config.layouts:
        failed = [size for size, ok in _passed(trials, layout).items() if not ok]
        if plan.capacity < min(failed, default=top + 1):
            yield {"layout": layout}
    yield from ({"header": name} for name in frames()["headers"])
    yield from ({"footer": name} for name in frames()["footers"])


def _passed(trials: Sequence[Trial], layout: str) -> dict[int, bool]:
    """By capacity that a layout was tried at: whether it passed, under any header and footer."""
    found: dict[int, bool] = {}
    for trial in candidates(trials):
        if trial.plan.layout == layout:
            capacity = trial.plan.capacity
            found[capacity] = found.get(capacity, False) or trial.passed
    return found


def chosen(trials: Sequence[Trial], sample: int, seed: int) -> Trial | None:
    """The trial that GEPA changes next, after all of these; None before the first.

    Args:
        trials: Those of the search over `sample` facts are GEPA's population.
        sample: How many facts a trial of the search asks about.
        seed: Of GEPA's draws from its Pareto front.
    """
    population = _population(trials, sample)
    if not population:
        return None
    replay = _Replay(population)
    lost = sorted({fact_id for trial in population for fact_id in trial.lost})
    optimize(
        seed_candidate=_candidate(population[0].plan),
        trainset=[*lost, *[ALWAYS] * (sample - len(lost))],
        adapter=replay,
        sampling_strategy=replay,
        stop_callbacks=replay.finished,
        frontier_type="hybrid",  # Facts and objectives alike.
        acceptance_criterion="improvement_or_equal",  # Another layout may only pay when it grows.
        skip_perfect_score=False,
        track_best_outputs=False,
        logger=_Silent(),
        seed=seed,
    )
    return replay.chosen


def _population(trials: Sequence[Trial], sample: int) -> list[Trial]:
    own = [t for t in candidates(trials) if t.plan.purpose == "search"]
    return [t for t in own if t.plan.sample == sample]


def _candidate(plan: Plan) -> Candidate:
    parts = {"layout": plan.layout, "header": plan.header, "footer": plan.footer}
    return {**parts, "capacity": str(plan.capacity)}


class _Replay:
    """GEPA's adapter and its source of tasks: all that it could ask for is stored."""

    chosen: Trial | None = None
    """What GEPA drew when no trial was left."""

    def __init__(self, population: Sequence[Trial]) -> None:
        self.stored = {tuple(_candidate(t.plan).values()): t for t in population}
        self.left = deque(_candidate(t.plan) for t in population[1:])
        self.propose_new_texts: ProposalFn | None = self._next

    def sample_tasks(
        self,
        state: GEPAState,
        candidate_selector: CandidateSelector,
        batch_sampler: BatchSampler[int, str],
        trainset: DataLoader[int, str],
    ) -> list[ProposalTask[int, str]]:
        """The parent of the next trial, on all facts, as trials are; none after the last one."""
        index = candidate_selector.select_candidate_idx(state)
        drawn = state.program_candidates[index]
        if not self.left:
            self.chosen = self.stored[tuple(drawn.values())]
            return []
        ids = list(trainset.all_ids())
        return [ProposalTask(index, drawn, ids, trainset.fetch(ids))]

    def finished(self, gepa_state: GEPAState) -> bool:
        """Whether every trial has had its turn."""
        return self.chosen is not None

    def evaluate(
        self, batch: list[str], candidate: Candidate, capture_traces: bool = False
    ) -> EvaluationBatch[str, str]:
        """How a stored trial went, fact by fact."""
        trial = self.stored[tuple(candidate.values())]
        # By recall alone, a prompt of one fact would beat all others; capacities are felt as
        # ratios. So a fact's best prompts are the fullest ones that the teacher knows it from.
        worth = 1 + log2(trial.plan.capacity)
        lost = set(trial.lost)
        known = [trial.n > 0 and fact_id not in lost for fact_id in batch]
        return EvaluationBatch(
            outputs=batch,
            scores=[worth if hit else 0.0 for hit in known],
            trajectories=batch,
            objective_scores=[_objectives(trial)] * len(batch),
        )

    def make_reflective_dataset(
        self, candidate: Candidate, eval_batch: Any, components_to_update: list[str]
    ) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Nothing: a Planner that is a model reads the lost facts in its own template."""
        return {}

    def _next(
        self,
        candidate: Candidate,
        reflective_dataset: Mapping[str, Sequence[Mapping[str, Any]]],
        components_to_update: list[str],
    ) -> Candidate:
        """What the Planner made of this parent then: the next trial."""
        return self.left.popleft()


def _objectives(trial: Trial) -> dict[str, float]:
    """More is better."""
    return {
        "facts per prompt": float(trial.plan.capacity),
        "recall": trial.scores.recall,
        "kept neighbours": 1 - (trial.scores.drift or 0.0),
        "tokens saved": -trial.scores.tokens_per_fact,
    }


class _Silent:
    """What GEPA tells of its run was told when the trials were made."""

    def log(self, message: str) -> None:
        """Say nothing."""
