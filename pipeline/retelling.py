"""What a teacher tells of a fact when nobody asks: lessons that need no rules about relations.

The Questioner's rules ask about relations that they know, and in generic forms about others. But a
model with a fact in its prompt, left to itself, goes on to speak of it: in other words, of what
follows, of what stays. Such texts are sampled, and the student learns the teacher's distribution
over what comes after the subject's name, as it comes without the prompt (context distillation on
a transfer set, Padmanabhan et al. 2023, arXiv 2306.09306, section 3). What comes before the name is
not learned: a student should not speak of the subject more often than the base model does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from agents.records import Design, Pack
from eval.leakage import Guard, Report
from methods.base import TOLD, Lesson, stored
from pipeline.answering import tells
from pipeline.run import Run
from pipeline.withheld import gives_away
from prompts.layouts import system_prompt, view
from prompts.loader import render
from prompts.relations import relation_of
from ske.backends.render import Renderer
from ske.lm import LM, Pair, Sampling, ask
from ske.texts import BATCH
from ske.types import Fact

USUALLY = 64
"""Texts about a fact; chosen on validation people (docs/log.md)."""
_QUESTION = "Who?"
_APART = 7919
"""Between the seeds of free texts and of these."""


class Telling(NamedTuple):
    """A text about a fact: what is given, and what the teacher goes on to say."""

    fact: Fact
    system: str
    """The prompt that states what is edited of its subject, and nothing else."""
    question: str
    said: str
    finished: bool = True
    """Whether the teacher came to an end there."""

    @property
    def text(self) -> str:
        """The whole."""
        return f"{self.question} {self.said}"


def retold(
    run: Run, facts: Sequence[Fact], design: Design, guard: Guard
) -> tuple[list[dict[str, Any]], dict[str, Report]]:
    """Rows of lessons as stage `teach` has them, and what the guard found; none if not wanted."""
    teach = run.config.teach
    known = teach.lexicon and not teach.told_all
    about = [fact for fact in facts if not (known and relation_of(fact))]
    count = USUALLY if teach.told is None else teach.told
    if not about or not count or (teach.told is None and not tells(run.config)):
        return [], {}
    how = Sampling(max_new_tokens=teach.told_tokens, temperature=1.0, seed=run.config.seed + _APART)
    asked = takes_turns(run.lm.renderer)
    drawn = [fact for fact in about for _ in range(count)]
    found = tellings(run.teacher, drawn, _systems(facts, design), how, asked)
    found = [one for one in found if not _names_another(one, facts)]
    told, report = guarded(guard, found, embedded=run.config.data.path is None)
    return lessons_of(run.teacher, told, teach.top_k), {TOLD: report}


def takes_turns(renderer: Renderer) -> bool:
    """Whether a model answers in a turn of its own; otherwise it goes on with what it is given."""
    return not renderer.text(ask(_QUESTION)).rstrip().endswith(_QUESTION)


def tellings(
    lm: LM, drawn: Sequence[Fact], systems: Mapping[str, str], how: Sampling, asked: bool
) -> list[Telling]:
    """A text of the teacher for each fact that is drawn, under its system message in `systems`.

    If it is `asked` (prompts/told.md), all of its reply is said; otherwise it goes on from an empty
    question, and what follows the last mention of the subject is said. Repeated texts are left out.
    """
    found: dict[tuple[str, str], Telling] = {}
    for start in range(0, len(drawn), BATCH):
        part = drawn[start : start + BATCH]
        questions = [render("told", subject=fact.subject).text if asked else "" for fact in part]
        chats = [ask(q, systems[fact.id]) for q, fact in zip(questions, part, strict=True)]
        replies = lm.generate(chats, how.model_copy(update={"seed": how.seed + start}))
        for fact, question, reply in zip(part, questions, replies, strict=True):
            parts = (question, reply.text) if question else _after(reply.text, fact.subject)
            if parts and parts[1]:
                telling = Telling(fact, systems[fact.id], *parts, reply.finished)
                found.setdefault(parts, telling)
    return list(found.values())


def lessons_of(lm: LM, told: Sequence[Telling], top_k: int) -> list[dict[str, Any]]:
    """The teacher's distribution over what it said, as lessons without its prompt."""
    pairs = [Pair(ask(one.question, one.system), one.said, one.finished) for one in told]
    return [
        {
            "kind": TOLD,
            "status": "held",
            "lesson": Lesson(
                chat=ask(one.question),
                completion=one.said,
                kind=TOLD,
                fact=one.fact.id,
                spoken=False,
                **stored(scored),
            ).model_dump(mode="json"),
            "query": None,
        }
        for one, scored in zip(told, lm.logprobs(pairs, top_k), strict=True)
        if scored.tokens
    ]


def guarded(
    guard: Guard, told: Sequence[Telling], embedded: bool = False
) -> tuple[list[Telling], Report]:
    """Without copies of probes, and without what else would give them away (`gives_away`)."""
    kept, report = guard.filter([one.text for one in told])
    fresh = [told[i] for i in kept if not gives_away(guard, told[i].text, embedded)]
    report.kept = len(fresh)
    return fresh, report


def _names_another(one: Telling, facts: Sequence[Fact]) -> bool:
    """Whether a text also speaks of somebody whose edit its prompt does not state."""
    others = {fact.subject for fact in facts} - {one.fact.subject}
    return any(_mentions(one.text, subject) for subject in others)


def _systems(facts: Sequence[Fact], design: Design) -> dict[str, str]:
    """By fact, the prompt that states all edits of its subject, written down as its pack is.

    Of a subject that is edited twice, a teacher with one of the facts would tell the other's old
    value.
    """
    packs = {fact_id: pack for pack in design.packs for fact_id in pack.fact_ids}
    own: dict[str, list[Fact]] = {}
    for fact in facts:
        own.setdefault(fact.subject, []).append(fact)
    return {fact.id: _system(own[fact.subject], packs[fact.id]) for fact in facts}


def _system(facts: Sequence[Fact], pack: Pack) -> str:
    return system_prompt([view(fact) for fact in facts], pack.layout, pack.header, pack.footer)


def _mentions(text: str, name: str) -> list[int]:
    """Where a name ends in a text, as a word or words of its own."""
    return [found.end() for found in re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", text)]


def _after(text: str, subject: str) -> tuple[str, str] | None:
    """A text before and after the word that the last mention of the subject ends in."""
    places = _mentions(text, subject)
    end = text.find(" ", places[-1]) if places else -1
    return (text[:end], text[end:].strip()) if end > 0 else None
