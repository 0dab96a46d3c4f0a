"""The student: supervised knowledge editing itself.

Learns by TRL SFT what a teacher (the base model under a designed PROMPT) answered about the facts
and their consequences, and is held to the base model's own distribution on neighbours and on free
text. Needs no prompt afterwards: what comes out is an ordinary change of weights. It may start from
another method's edit (`start`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any, get_type_hints

from methods.base import REHEARSED, Editor, Lesson, Workshop, options_of, weights_of
from methods.delta import DeltaEdit
from methods.sft import train
from ske.lm import LM, ask
from ske.training import StudentOptions
from ske.types import Fact, UserError

NEW_SHARE = 0.4
"""Of all lessons of a pass but the rehearsed ones; chosen on validation people (docs/log.md)."""


class Student:
    """The `ske` editor. Its lessons come from the workshop's teacher.

    Without a teacher it falls back to the facts themselves, which is plain fine-tuning; the
    pipeline always brings a teacher.
    """

    def __init__(self, options: dict[str, Any], workshop: Workshop) -> None:
        """Raises UserError on unknown options, or a start that is none."""
        self.options: StudentOptions = options_of(StudentOptions, options, "ske")
        lessons = workshop.lessons
        self.workshop = replace(workshop, lessons=lessons and cache(lessons))
        self.start = self._starter()

    def edit(self, lm: LM, facts: Sequence[Fact]) -> DeltaEdit:
        """Train on the teacher's lessons about these facts."""
        if self.workshop.lessons is None:
            lessons: Sequence[Lesson] = [
                Lesson(chat=ask(f.prompt), completion=f.target_new, fact=f.id) for f in facts
            ]
        else:
            lessons = self.workshop.lessons()
        lessons = balanced(lessons)
        with self._started(lm, facts) as first:
            learned = train(weights_of(lm, "ske"), lessons, self.options, self.workshop, "ske")
        return learned if first is None else learned.on(first)

    def _starter(self) -> Editor | None:
        name = self.options.start
        if name is None:
            return None
        from methods.table import METHODS, build  # The table names this module.

        if name in METHODS and METHODS[name].taught:
            raise UserError(f"train.start = {name!r}: the student cannot start from itself")
        aside = replace(self.workshop, folder=None)
        editor = build(name, self.options.start_options, aside)
        made = get_type_hints(editor.edit)["return"]
        if not (isinstance(made, type) and issubclass(made, DeltaEdit)):
            raise self._no_start()
        return editor

    def _no_start(self) -> UserError:
        return UserError(
            f"train.start = {self.options.start!r}: it does not change weights by differences; "
            "take one that does, e.g. memit, alphaedit or rome"
        )

    @contextmanager
    def _started(self, lm: LM, facts: Sequence[Fact]) -> Iterator[DeltaEdit | None]:
        """The model with the edit that the student starts from, and that edit."""
        if self.start is None:
            yield None
            return
        first = self.start.edit(lm, facts)
        if not isinstance(first, DeltaEdit):
            raise self._no_start()
        with first.applied(lm):
            yield first


def balanced(lessons: Sequence[Lesson]) -> list[Lesson]:
    """Repeat the lessons that say something new until they are `NEW_SHARE` of all.

    New is what the base model would not say (`Lesson.is_new`). What is to stay as it was
    need not be seen as often, but of it there must be much: so a pass over much of it has what is
    new several times.
    """
    new = [lesson for lesson in lessons if lesson.is_new]
    others = sum(not lesson.is_new and lesson.kind != REHEARSED for lesson in lessons)
    if not new:
        return list(lessons)
    wanted = NEW_SHARE * others / (1 - NEW_SHARE)
    return [*lessons, *new * (math.ceil(wanted / len(new)) - 1)]
