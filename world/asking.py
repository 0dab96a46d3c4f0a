"""How the model card asks and counts: greedily, and a reply is right if it is the answer.

The full scorer lives in `eval/`, which this floor may not import; a world's answers are exact
names, so equal texts are enough here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ske.lm import LM, Reply, Sampling, ask
from world.questions import Question

SAMPLING = Sampling(max_new_tokens=96)
Note = Callable[[str], None]
Groups = Mapping[str, Sequence[Question]]


def silent(text: str) -> None:
    """Hear of progress and say nothing."""


def normal(text: str) -> str:
    """What is compared: case, blanks and a final period don't make an answer."""
    return " ".join(text.casefold().split()).rstrip(".")


def replies(lm: LM, prompts: Sequence[str], system: str | None = None) -> list[Reply]:
    """The replies to questions under one system message, in one call."""
    return lm.generate([ask(prompt, system) for prompt in prompts], SAMPLING)


def right(lm: LM, groups: Groups) -> dict[str, list[bool]]:
    """Whether each question of each group was answered; all are asked in one call."""
    questions = [question for group in groups.values() for question in group]
    told = iter(replies(lm, [question.prompt for question in questions]))
    return {
        name: [normal(next(told).text) == normal(question.answer) for question in group]
        for name, group in groups.items()
    }


def figure(name: str, hits: Sequence[bool], goal: float | None = None) -> dict[str, Any]:
    """One number of the card, in per cent; `met` is None where there is no goal."""
    value = round(100 * sum(hits) / len(hits), 2) if hits else None
    met = None if goal is None or value is None else value >= goal
    return {"name": name, "value": value, "n": len(hits), "goal": goal, "met": met}
