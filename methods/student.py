"""The student: supervised knowledge editing itself.

Learns by TRL SFT what a teacher (the base model under a designed PROMPT) answered about the facts
and their consequences, and is held to the base model's own distribution on neighbours and on free
text. Needs no prompt afterwards: what comes out is an ordinary change of weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from methods.base import REHEARSED, Lesson, Workshop, options_of, weights_of
from methods.delta import DeltaEdit
from methods.sft import train
from ske.lm import LM, ask
from ske.training import SftOptions
from ske.types import Fact

NEW_SHARE = 0.4
"""Of all lessons of a pass but the rehearsed ones; chosen on validation people (docs/log.md)."""


class Student:
    """The `ske` editor. Its lessons come from the workshop's teacher.

    Without a teacher it falls back to the facts themselves, which is plain fine-tuning; the
    pipeline always brings a teacher.
    """

    def __init__(self, options: dict[str, Any], workshop: Workshop) -> None:
        """Raises UserError on unknown options."""
        self.options: SftOptions = options_of(SftOptions, options, "ske")
        self.workshop = workshop

    def edit(self, lm: LM, facts: Sequence[Fact]) -> DeltaEdit:
        """Train on the teacher's lessons about these facts."""
        if self.workshop.lessons is None:
            lessons: Sequence[Lesson] = [
                Lesson(chat=ask(f.prompt), completion=f.target_new, fact=f.id) for f in facts
            ]
        else:
            lessons = self.workshop.lessons()
        lessons = balanced(lessons)
        return train(weights_of(lm, "ske"), lessons, self.options, self.workshop, "ske")


def balanced(lessons: Sequence[Lesson]) -> list[Lesson]:
    """Repeat the lessons that say something new until they are `NEW_SHARE` of all.

    New is what has no distribution of the base model to be held to. What is to stay as it was
    need not be seen as often, but of it there must be much: so a pass over much of it has what is
    new several times.
    """
    new = [lesson for lesson in lessons if not lesson.top_ids]
    others = sum(bool(lesson.top_ids) and lesson.kind != REHEARSED for lesson in lessons)
    if not new:
        return list(lessons)
    wanted = NEW_SHARE * others / (1 - NEW_SHARE)
    return [*lessons, *new * (math.ceil(wanted / len(new)) - 1)]
