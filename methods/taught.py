"""What a teacher has taught about a fact, beside the fact's own prompt: for the start of a student.

MEMIT and AlphaEdit find what the subject's last token must say for one prompt to be answered anew.
Here that also has to make other wordings and consequences come out, and to leave what else is true
of the subject as it was. Of the first, keys are read, too: a subject stands in many sentences.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from methods.base import HasWeights, Lesson
from methods.keyvalue import Asked, Query
from methods.subjects import subject_end
from ske.types import Fact

TAUGHT = ("paraphrase", "consequence")
HELD = "neighbour"


def by_fact(lessons: Sequence[Lesson]) -> dict[str, list[Lesson]]:
    """Lessons by the id of the fact that they belong to; those of none are left out."""
    found: dict[str, list[Lesson]] = {}
    for lesson in lessons:
        if lesson.fact is not None:
            found.setdefault(lesson.fact, []).append(lesson)
    return found


def joined(
    holder: HasWeights,
    fact: Fact,
    own: Query,
    lessons: Sequence[Lesson],
    *,
    taught: int,
    held: int,
    end: bool,
    seed: int,
) -> Query:
    """A fact's query with rows of its lessons, as many for every fact.

    Where there are fewer lessons they are taken again; where there is none, the fact's own prompt.

    Args:
        holder: the model; it renders the prompts.
        fact: the fact.
        own: its query without lessons.
        lessons: the fact's; only those that name the subject are of use here.
        taught: how many of what is new, in the value and in the key.
        held: how many of what stays, in the value alone.
        end: whether the token that ends a reply belongs to the answer.
        seed: draws the lessons.
    """
    rng = random.Random(f"taught-{seed}-{fact.id}")
    naming = [one for one in lessons if fact.subject in one.chat[-1]["content"]]
    new = [one for one in naming if one.kind in TAUGHT]
    # "Apart from NEW, ..." asks about the edit itself, which no change of the subject can answer.
    kept = [
        one
        for one in naming
        if one.kind == HELD and one.spoken and fact.target_new not in one.chat[-1]["content"]
    ]

    def rows(some: list[Lesson], count: int) -> list[Asked]:
        drawn = rng.sample(some, len(some))
        return [_asked(holder, one, fact.subject, end) for one in (drawn * count)[:count]]

    return Query(
        rows=[*own.rows, *(rows(new, taught) or own.rows[:1] * taught)],
        essence=own.essence,
        held=[*own.held, *(rows(kept, held) or own.rows[:1] * held)],
    )


def _asked(holder: HasWeights, lesson: Lesson, subject: str, end: bool) -> Asked:
    renderer = holder.renderer
    answer = list(lesson.ids) or renderer.answer_ids(lesson.chat, lesson.completion, end)
    place = subject_end(renderer, lesson.chat, subject)
    return Asked(renderer.prompt_ids(lesson.chat), place, answer)
