"""The student: supervised knowledge editing itself.

Learns by TRL SFT what a teacher (the base model under a designed PROMPT) answered about the facts
and their consequences, and is held to the base model's own distribution on neighbours and on free
text. Needs no prompt afterwards: what comes out is an ordinary change of weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from methods.base import Lesson, Workshop, options_of, weights_of
from methods.delta import DeltaEdit
from methods.sft import train
from ske.lm import LM, ask
from ske.training import SftOptions
from ske.types import Fact


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
        return train(weights_of(lm, "ske"), lessons, self.options, self.workshop, "ske")
