"""What earlier rounds of a sequential run taught, and what they held to, learned again.

Each round trains on a model that was edited before. Its own neighbours are drawn at random and
hardly ever meet an earlier round's facts, so nothing would keep those in place, and what drifts a
little in every round drifts far in sixteen. So a sample of the earlier rounds' lessons is learned
beside the round's own: what they taught with the answer that was taught then, what they held to
with the distribution stored then, which is older and so has drifted less.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from agents.batch import Batch, relation_key
from methods.base import REHEARSED, Lesson, stored
from pipeline.freetext import names_any
from prompts.relations import relation_of
from ske.io import read_rows
from ske.lm import LM, Pair
from ske.types import Fact


def rehearsed(
    lm: LM, earlier: Sequence[Path], facts: Sequence[Fact], most: int, top_k: int, seed: int
) -> list[Lesson]:
    """Lessons of earlier rounds for a round that edits `facts`.

    Args:
        lm: The model as the rounds before left it.
        earlier: The run folders of the rounds before, in order.
        facts: This round's.
        most: At most so many of what was taught, the facts themselves first, and as many of what
            was held to.
        top_k: How many of the most likely tokens are stored.
        seed: Of the sample.
    """
    if not earlier or not most:
        return []
    valid = list(_valid(earlier, facts))
    rng = random.Random(f"rehearse-{seed}-{len(earlier)}")
    rng.shuffle(valid)
    taught = sorted((one for one in valid if one.is_new), key=lambda one: one.kind != "fact")
    held = [lesson for lesson in valid if not lesson.is_new][:most]
    again = [lesson.model_copy(update={"kind": REHEARSED}) for lesson in held]
    return [*_as_now(lm, taught[:most], top_k), *again]


def _as_now(lm: LM, taught: Sequence[Lesson], top_k: int) -> Iterator[Lesson]:
    """Lessons with their answer, and with the distribution that the model has there by now."""
    pairs = [Pair(lesson.chat, lesson.completion, end=True) for lesson in taught]
    for lesson, now in zip(taught, lm.logprobs(pairs, top_k), strict=True):
        yield lesson.model_copy(update={"kind": REHEARSED, **stored(now)})


def _valid(earlier: Sequence[Path], facts: Sequence[Fact]) -> Iterator[Lesson]:
    """Every lesson of earlier rounds that no later edit can have made wrong."""
    since = list(facts)
    for folder in reversed(earlier):
        stages, later = folder / "stages", Batch(since)
        own = [Fact(**row) for row in read_rows(stages / "facts" / "facts.jsonl")]
        by_id = {fact.id: fact for fact in own}
        gone = {fact.id for fact in own if _overridden(fact, since, later)}
        for row in read_rows(stages / "teach" / "lessons.jsonl"):
            lesson = Lesson(**row)
            of = by_id.get(lesson.fact or "")
            if lesson.kind != REHEARSED and lesson.fact not in gone and _holds(lesson, of, later):
                yield lesson
        since += own


def _overridden(fact: Fact, since: Sequence[Fact], later: Batch) -> bool:
    """Whether a later fact says something else, or may: of one subject in an unknown relation."""
    same = [one for one in since if one.subject == fact.subject]
    unknown = any(relation_of(one) is None for one in (fact, *same))
    return later.changes(fact.subject, relation_key(fact)) or bool(same and unknown)


def _holds(lesson: Lesson, fact: Fact | None, later: Batch) -> bool:
    """Whether a lesson is still right: who it speaks of, or leads to, was not edited since.

    What was taught of a fact itself speaks of its own subject, and that may have got other facts.
    """
    if fact and lesson.is_new:
        others = later.relations.keys() - {fact.subject}
        step = lesson.kind == "consequence"
        return not step or not names_any("\n".join((*lesson.texts, fact.target_new)), others)
    return not names_any("\n".join(lesson.texts), later.relations)
