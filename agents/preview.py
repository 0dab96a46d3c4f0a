"""Renders any template of the agents or the teacher for one fact, without a model.

`ske prompt agents/designer --fact ID` prints this; the other variables are plausible examples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from agents.critic import Critique, failure_view
from agents.examiner import Answer, Marks
from agents.judge import Verdict, judge_variables
from agents.packer import Packing, pack_variables
from agents.planner import FRAMES
from agents.questioner import Batch, ExamLimits, Questions, question_variables
from agents.records import Plan, Scores, Trial, curve_row
from agents.state import FactScore
from prompts.layouts import frames, system_prompt, view
from prompts.loader import Rendered, names, render, schema_text
from ske.config import DesignConfig
from ske.types import Fact, UserError

EXAMPLE_REPLY = "an example of an answer"


def preview(template: str, fact: Fact) -> Rendered:
    """The message that a role would be asked about this fact.

    Args:
        template: e.g. "agents/designer" or "teacher/triples".
        fact: Fills the template; what else it needs is made up.

    Raises:
        UserError: A template that is not the agents' or the teacher's, or that doesn't exist.
    """
    if template.startswith("teacher/"):
        return render(template, facts=[view(fact)])
    if template not in EXAMPLES:
        there = [name for name in names() if name.startswith("teacher/")]
        raise UserError(f"no preview of {template!r}; there are: {', '.join([*EXAMPLES, *there])}")
    variables, schema = EXAMPLES[template]
    shown = schema_text(schema) if schema else ""
    return render(template, **variables(fact), schema=shown)


def _trials() -> list[Trial]:
    scores = Scores(recall=1.0, paraphrase=1.0, consequences=0.9, drift=0.05, tokens_per_fact=9.5)
    plan = Plan(purpose="search", layout="triples", capacity=64, sample=64)
    return [Trial(index=0, plan=plan, n=64, prompts=1, scores=scores, passed=True)]


def _planner(fact: Fact) -> dict[str, Any]:
    config = DesignConfig.model_validate({})
    return {
        "n": 64,
        "recall": config.recall,
        "max_facts": config.max_facts,
        "layouts": list(config.layouts),
        "headers": list(frames()["headers"]),
        "footers": list(frames()["footers"]),
        "trials": [curve_row(trial).model_dump(mode="json") for trial in _trials()],
        "left": config.max_trials - 1,
        "phase": "search",
        "lost": [],
        "held": {},
        "rejected": [],
        "parent": None,
        "missed": [],
        "sample": 64,
    }


def _packer(fact: Fact) -> dict[str, Any]:
    return {**pack_variables([fact], 16, "designer", ""), "rejected": []}


def _designer(fact: Fact) -> dict[str, Any]:
    header, footer = FRAMES[0]
    frame = {"layout": "triples", "header": header, "footer": footer}
    return {"facts": [view(fact)], **frame, "rejected": []}


def _questioner(fact: Fact) -> dict[str, Any]:
    return question_variables(fact, Batch([fact]), ExamLimits(), ())


def _examiner(fact: Fact) -> dict[str, Any]:
    row = Answer(
        fact=fact.id,
        kind="fact",
        question=fact.prompt,
        expected=fact.target_new,
        answer=EXAMPLE_REPLY,
    )
    return {"system": system_prompt([view(fact)], "triples"), "rows": [row.model_dump()]}


def _critic(fact: Fact) -> dict[str, Any]:
    score: FactScore = {
        "id": fact.id,
        "position": 0,
        "size": 1,
        "recall": False,
        "paraphrase": None,
        "consequences": [],
        "drift": [],
        "reply": EXAMPLE_REPLY,
        "prior": EXAMPLE_REPLY,
    }
    return {"layout": "triples", "failures": [failure_view(score, fact)]}


def _judge(fact: Fact) -> dict[str, Any]:
    config = DesignConfig.model_validate({})
    return judge_variables(_trials(), config, [fact.id], 64)


def _again(fact: Fact) -> dict[str, Any]:
    question = render("agents/questioner", **_questioner(fact), schema="...").text
    return {"question": question, "problem": "not JSON", "attempt": 1, "attempts": 3}


EXAMPLES: dict[str, tuple[Callable[[Fact], dict[str, Any]], type[BaseModel] | None]] = {
    "agents/planner": (_planner, Plan),
    "agents/packer": (_packer, Packing),
    "agents/designer": (_designer, None),
    "agents/questioner": (_questioner, Questions),
    "agents/examiner": (_examiner, Marks),
    "agents/critic": (_critic, Critique),
    "agents/judge": (_judge, Verdict),
    "agents/again": (_again, None),
    "agents/hello": (lambda fact: {}, None),
}
