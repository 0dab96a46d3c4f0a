"""The node that lets a person read the prompts: after a no, the agents propose something else."""

from __future__ import annotations

from typing import Any

from langgraph.runtime import Runtime
from langgraph.types import interrupt

from agents.approval import prompts_hash
from agents.context import Context
from agents.records import Plan, Rejected, Trial
from agents.revise import another
from agents.state import State, packs_of, rejections


def approval(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
    """Node: let a person read the prompts first, if the configuration says so.

    After a no the agents propose something else; prompts that were rejected before are not shown
    again. If nothing is left to propose, the last prompts go on waiting.
    """
    context = runtime.context
    before, ended = rejections(state), state["phase"] == "exhausted"
    mine = prompts_hash(packs_of(state["held"]))
    again = next((r for r in before if r.prompts == mine), None)
    if again is not None and not ended:
        return _rejected(state, context, again.reason, mine)
    if not (context.config.approve or context.answered or ended):
        return {"phase": "done"}
    word = interrupt({"question": "May the teacher use these prompts?", "prompts": mine})
    context.answered = False  # The next prompts are another question.
    if word["approved"]:
        return {"phase": "done"}
    return _rejected(state, context, word["reason"], mine)


def _rejected(state: State, context: Context, reason: str, prompts: str) -> dict[str, Any]:
    plan, trials = Plan(**state["held"]["plan"]), [Trial(**t) for t in state["trials"]]
    new = Rejected(
        reason=reason,
        **plan.model_dump(include={"layout", "header", "footer", "capacity"}),
        prompts=prompts,
        gains=len(state["gains"]),
    )
    left = another(trials, [*rejections(state), new], len(context.facts), context.config)
    phase = "revise" if left else "exhausted"
    return {"rejected": [new.model_dump(mode="json")], "phase": phase}
