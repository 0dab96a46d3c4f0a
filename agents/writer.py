"""The Writer: turns a pack of facts into the text of a PROMPT (template `agents/designer`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langgraph.runtime import Runtime

from agents.call import decide
from agents.context import Context
from agents.records import Plan
from agents.state import State, rejections
from prompts.layouts import FactView, system_prompt, view
from ske.types import Frozen

LONGER = 1.5
"""A message this many times as long as the template's is no dense prompt."""
SPARE = 200
"""Characters that any message may be longer."""


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
        said = [r.reason for r in rejections(state)]
        written.append({**pack, "system": _write(runtime.context, plan, ids, said)})
    return {"packs": written}


def _write(context: Context, plan: Plan, ids: Sequence[str], rejected: Sequence[str]) -> str:
    views: list[FactView] = [view(context.facts[fact_id]) for fact_id in ids]
    by_template = system_prompt(views, plan.layout, plan.header, plan.footer)
    draft = decide(
        context,
        "writer",
        {
            "facts": views,
            "layout": plan.layout,
            "header": plan.header,
            "footer": plan.footer,
            "rejected": list(rejected),
        },
        Draft,
        lambda: Draft(system=by_template),
        lambda draft: flaw(draft, views, by_template),
        facts=list(dict.fromkeys(ids)),
    )
    return draft.system


def flaw(draft: Draft, views: Sequence[FactView], by_template: str) -> str:
    """What about a message would break the design: a fact lost or torn apart, or far too long.

    Args:
        draft: The message.
        views: The facts it must state; one that is listed twice is to be stated twice.
        by_template: The same message as the templates write it.
    """
    for name in dict.fromkeys(text for v in views for text in (v["subject"], v["object"])):
        if draft.system.count(name) < min(
            by_template.count(name), sum(name in (v["subject"], v["object"]) for v in views)
        ):
            return f"a fact is missing: {name!r} is not stated as often as it is listed"
    lines, usual = draft.system.splitlines(), by_template.splitlines()
    for seen in views:
        if _together(usual, seen) and not _together(lines, seen):
            return (
                f"a fact is missing: no line has both {seen['subject']!r} and {seen['object']!r}; "
                "keep the layout"
            )
    most = int(LONGER * len(by_template)) + SPARE
    if len(draft.system) > most:
        return f"the message has {len(draft.system)} characters; at most {most} are allowed"
    return ""


def _together(lines: Sequence[str], seen: FactView) -> bool:
    return any(seen["subject"] in line and seen["object"] in line for line in lines)
