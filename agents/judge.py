"""The Judge: keeps the best prompts and the Pareto front, and says when to stop.

Stops on budget, on a plateau (nothing left to try that could be better), and when no fact is lost
or repair no longer helps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

from langgraph.runtime import Runtime

from agents.call import decide
from agents.context import Context
from agents.examiner import summary
from agents.front import pareto, wanted, winner
from agents.planner import STEPS, owed, propose, spent, trials_of, within
from agents.records import Plan, Trial, curve_row
from agents.state import Exam, Held, PackState, State, current_exams, gains_of, lost_ids, unexamined
from ske.config import DesignConfig
from ske.types import Frozen

Phase = Literal["search", "repair", "done"]


class Verdict(Frozen):
    """The Judge's decision."""

    winner: int
    """Index of the best trial."""
    passed: bool
    """Whether that trial reached the wanted recall."""
    front: list[int]
    """Indices of the trials that no other one beats in every respect."""
    phase: Phase
    """What comes next."""
    reason: str


def judge(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
    """Node: score the trial, hold the best prompts, decide whether to go on."""
    context = runtime.context
    trial = _trial(state, context)
    trials = [*trials_of(state), trial]
    held, new = _hold(state, trial, trials, context)
    gains = [*gains_of(state), *new]
    verdict = decide(
        context,
        "judge",
        judge_variables(trials, context.config, lost_ids(held), len(context.facts)),
        Verdict,
        lambda: _rule(trials, held, gains, context),
        lambda made: flaw(made, trials, held, gains, context),
        score=lambda _: trial.scores.model_dump(),
    )
    if context.progress:
        context.progress(_line(trial))
    return {
        "trials": [trial.model_dump(mode="json")],
        "held": held,
        "gains": new,
        "front": verdict.front,
        "phase": verdict.phase,
        "verdict": verdict.reason,
    }


def judge_variables(
    trials: Sequence[Trial], config: DesignConfig, lost: Sequence[str], n: int
) -> dict[str, Any]:
    """What `prompts/agents/judge.md` shows."""
    rows = [
        {"trial": t.index, "purpose": t.plan.purpose, **curve_row(t).model_dump(mode="json")}
        for t in trials
    ]
    goals = {"recall": wanted("designer", config), "drift": config.drift}
    return {"trials": rows, **goals, "lost": list(lost), "n": n}


def flaw(
    verdict: Verdict, trials: Sequence[Trial], held: Held, gains: Sequence[int], context: Context
) -> str:
    """What about a verdict would break the design.

    Winner and front follow from what was measured, so there is only one right answer; whether to
    go on is the Judge's own decision, as long as something is left to do and nothing is owed.
    """
    best = winner(trials, context.config)
    if best is None or verdict.winner != best.index or verdict.passed != best.passed:
        right = f"{best.index}, passed {best.passed}" if best else "none"
        return f"winner {verdict.winner}, passed {verdict.passed}: by rules 1 and 2 it is {right}"
    front = {trial.index for trial in pareto(trials)}
    if set(verdict.front) != front:
        wrong, missing = sorted(set(verdict.front) - front), sorted(front - set(verdict.front))
        return f"front: trials {wrong} are beaten by others, or none; trials {missing} are missing"
    return _phase_flaw(verdict.phase, trials, held, gains, context)


def _phase_flaw(
    phase: Phase, trials: Sequence[Trial], held: Held, gains: Sequence[int], context: Context
) -> str:
    config, n = within(context, trials), len(context.facts)
    repairing = trials[-1].plan.purpose == "repair"
    if phase == "search":
        if repairing or propose(trials, n, config, held["trial"]) is None:
            return "phase `search`: the search is over, nothing is left to try or to pay for"
        return ""
    due = None if repairing else owed(trials, n, config, held["trial"])
    if due is not None:
        return f"phase `{phase}`: before the search ends, this is due: {due.reason}"
    if phase == "repair" and not lost_ids(held):
        return "phase `repair`: no fact is lost"
    if phase == "repair" and len(gains) >= len(STEPS) * config.max_repairs:
        return f"phase `repair`: {len(gains)} repairs were made, and no more are allowed"
    return ""


def _trial(state: State, context: Context) -> Trial:
    exams = current_exams(state)
    if unexamined(exams):  # What was seen of a part says nothing about the whole.
        exams = []
    facts = [fact for exam in exams for fact in exam["facts"]]
    scores = summary(facts, sum(exam["tokens"] for exam in exams))
    return Trial(
        index=len(state["trials"]),
        plan=Plan(**state["plan"]),
        n=len(facts),
        prompts=len(exams),
        scores=scores,
        passed=bool(facts) and scores.recall >= wanted(state["plan"]["packer"], context.config),
        lost=tuple(fact["id"] for fact in facts if not fact["recall"]),
    )


def _hold(
    state: State, trial: Trial, trials: Sequence[Trial], context: Context
) -> tuple[Held, list[int]]:
    """The best prompts, and what a repair has won."""
    if trial.plan.purpose == "repair":
        held = merge(state["held"], state["packs"], current_exams(state), state["reasons"])
        return held, [len(lost_ids(state["held"])) - len(lost_ids(held))]
    best = winner(trials, context.config)
    if state["held"]["packs"] and (best is None or best.index != trial.index):
        return state["held"], []
    return {
        "trial": trial.index,
        "plan": trial.plan.model_dump(mode="json"),
        "packs": state["packs"],
        "exams": current_exams(state),
        "reasons": state["reasons"],
    }, []


def merge(
    held: Held, packs: Sequence[PackState], exams: Sequence[Exam], reasons: dict[str, str]
) -> Held:
    """Replace the held prompts whose new version answers more facts; keep all others."""
    kept: list[tuple[PackState, Exam]] = []
    for pack, exam in zip(held["packs"], held["exams"], strict=True):
        new = [(p, e) for p, e in zip(packs, exams, strict=True) if p["origin"] == pack["index"]]
        better = sum(_recalled(e) for _, e in new) > _recalled(exam)
        kept += new if better else [(pack, exam)]
    return {
        **held,
        "packs": [cast(PackState, {**p, "index": i}) for i, (p, _) in enumerate(kept)],
        "exams": [cast(Exam, {**e, "pack": i}) for i, (_, e) in enumerate(kept)],
        "reasons": {**held["reasons"], **reasons},
    }


def _recalled(exam: Exam) -> int:
    return sum(fact["recall"] for fact in exam["facts"])


def _rule(trials: Sequence[Trial], held: Held, gains: Sequence[int], context: Context) -> Verdict:
    best = winner(trials, context.config)
    assert best is not None, "the first trial is always a search"
    phase, why = _phase(trials, held, gains, context)
    goal = f"recall {best.scores.recall:.0%} of wanted {context.config.recall:.0%}"
    found = f"best so far: {_name(best.plan)}, {goal}"
    if not best.passed:
        found = f"no prompt reaches the wanted recall; {found}"
    return Verdict(
        winner=best.index,
        passed=best.passed,
        front=[trial.index for trial in pareto(trials)],
        phase=phase,
        reason=f"{why}; {found}",
    )


def _phase(
    trials: Sequence[Trial], held: Held, gains: Sequence[int], context: Context
) -> tuple[Phase, str]:
    config = within(context, trials)
    repairing = trials[-1].plan.purpose == "repair"
    if not repairing and propose(trials, len(context.facts), config, held["trial"]):
        return "search", "there is more to try"
    stopped = "budget" if spent(trials) >= config.max_trials else "plateau"
    stopped = context.meter.spent() or stopped
    if any(t.plan.purpose == "revise" for t in trials):
        stopped = "revised"
    lost = len(lost_ids(held))
    if not lost:
        return "done", f"{stopped}: no fact is lost"
    if not context.meter.allows(lost):
        return "done", f"{stopped}: {lost} facts lost, and no budget to repair them"
    if len(gains) >= len(STEPS) * config.max_repairs:
        return "done", f"{stopped}: {lost} facts lost after all repairs"
    enough = lost <= (1 - config.recall) * len(context.facts)
    if enough and STEPS[len(gains) % len(STEPS)] == "own":
        return "done", f"{stopped}: {lost} facts lost, too few for a prompt of their own"
    if len(gains) >= len(STEPS) and not any(gains[-len(STEPS) :]):
        return "done", f"{stopped}: {lost} facts lost, repair no longer helps"
    return "repair", f"{stopped}: {lost} facts lost, repairing"


def _name(plan: Plan) -> str:
    return f"{plan.layout} x {plan.capacity} ({plan.packer})"


def _line(trial: Trial) -> str:
    scores, plan = trial.scores, trial.plan
    drift = "-" if scores.drift is None else f"{scores.drift:.0%}"
    head = f"trial {trial.index + 1}: {plan.purpose}{' ' + plan.step if plan.step else ''}"
    return f"{head}, {_name(plan)}: recall {scores.recall:.0%}, drift {drift}"
