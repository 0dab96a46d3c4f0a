"""The Writer: turns a pack of facts into the text of a PROMPT (template `agents/designer`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langgraph.runtime import Runtime

from agents.call import decide
from agents.context import Context
from agents.records import Plan
from agents.state import State
from prompts.layouts import FactView, system_prompt, view
from ske.types import Frozen


class Draft(Frozen):
    """The Writer's decision."""

    system: str
    """The system message, word for word."""


def writer(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
    """Node: write every prompt of the trial."""
    plan = Plan(**state["plan"])
    written = []
    for pack in state["packs"]:
        ids = [*pack["fact_ids"], *pack["repeated"]]
        written.append({**pack, "system": _write(runtime.context, plan, ids)})
    return {"packs": written}


def _write(context: Context, plan: Plan, ids: Sequence[str]) -> str:
    views: list[FactView] = [view(context.facts[fact_id]) for fact_id in ids]
    draft = decide(
        context,
        "writer",
        {"facts": views, "layout": plan.layout, "header": plan.header, "footer": plan.footer},
        Draft,
        lambda: Draft(system=system_prompt(views, plan.layout, plan.header, plan.footer)),
        facts=list(dict.fromkeys(ids)),
    )
    return draft.system
