"""Hard probes for data sets that have none of their own, as far as their facts' fields allow.

A claim and a context can be made of a fact whose prompt is a statement to be completed ("The place
of birth of Ada Byron is") and whose old answer is known. Questions, passages and facts without an
old answer get none: better no probe than an odd one. Reads and writes no file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from eval.records import Case, Probe
from prompts.loader import lower_first
from ske.types import ERASED, Fact

CLAIM = "Is it right that {statement} {value}?"
_ASKS = re.compile(
    r"(?:who|whom|whose|what|which|where|when|why|how|in which|in what|on which|is|are|was|were"
    r"|do|does|did|has|have|can|name|tell|give|answer|from the)\b",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.?!:;\"]")
"""A passage, or a question that somebody else is to have asked: no statement to be completed."""
_NO_STATEMENT = re.compile(r", (?:who|whose|which|that|where)\b|\bare$")
"""A clause that is no sentence with its value ("Bo Ek, who plays"), and lists ("the siblings of Bo
Ek are"), whose old value may well be right beside the new one."""
_LONGEST = 30
"""Words of a statement at most."""


def with_hard(cases: Sequence[Case]) -> list[Case]:
    """The cases, each with hard probes: its own, or made from its fact where its fields allow it.

    - `Claims`: the new value in a claim (yes), and the old one (no).
    - `Contradicted`: the fact's own prompt behind a sentence with its old value.
    - `Distracted`: behind the old fact of the next case in the file that has another subject.
    """
    stated = [case.fact for case in cases if is_stated(case.fact)]
    places = {fact.id: place for place, fact in enumerate(stated)}
    return [
        case
        if case.hard or case.fact.id not in places
        else case.model_copy(update={"hard": _made(case.fact, _next(stated, places[case.fact.id]))})
        for case in cases
    ]


def is_stated(fact: Fact) -> bool:
    """Whether a fact can be put as a statement, with its new and with its old value."""
    words, old = fact.prompt.split(), (fact.ground_truth or "").strip()
    texts = (fact.target_new, old)
    return (
        old.casefold() not in ("", fact.target_new.strip().casefold())
        and ERASED not in texts
        and fact.subject in fact.prompt
        and 2 < len(words) <= _LONGEST
        and not _ASKS.match(fact.prompt)
        and not _NO_STATEMENT.search(fact.prompt.replace(fact.subject, ""))
        and not _SENTENCE_END.search(fact.prompt.replace(fact.subject, ""))
        and not any(_SENTENCE_END.search(text) for text in texts)
    )


def _next(stated: Sequence[Fact], place: int) -> Fact | None:
    """The next fact of another subject, from the file's start again after its end."""
    own = stated[place]
    following = (stated[(place + step) % len(stated)] for step in range(1, len(stated)))
    return next((fact for fact in following if fact.subject != own.subject), None)


def _made(fact: Fact, other: Fact | None) -> dict[str, tuple[Probe, ...]]:
    wanted = ((fact.target_new,),)
    behind = Probe(prompt=f"{_sentence(fact)} {fact.prompt}", answers=wanted)
    claims = (_claim(fact, fact.target_new, "yes"), _claim(fact, fact.ground_truth or "", "no"))
    made = {"Claims": claims, "Contradicted": (behind,)}
    if other is not None:
        distracted = Probe(prompt=f"{_sentence(other)} {fact.prompt}", answers=wanted)
        made["Distracted"] = (distracted,)
    return made


def _sentence(fact: Fact) -> str:
    return f"{fact.prompt} {fact.ground_truth}."


def _claim(fact: Fact, value: str, answer: str) -> Probe:
    statement = lower_first(fact.prompt)
    prompt = CLAIM.replace("{statement}", statement).replace("{value}", value)
    return Probe(prompt=prompt, answers=((answer,),))
