"""Whom sampled text speaks of: subjects that are not being edited, and those that are."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import cache

from prompts.relations import lexicon
from ske.types import Fact

_NAME = re.compile(r"\b[A-Z][\w'-]+(?: [A-Z][\w'-]+)+")


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Every wording of the lexicon as a pattern that finds its subject."""
    found = []
    for relation in lexicon().values():
        for wording in (relation.prompt, *relation.paraphrases):
            before, _, after = wording.partition("{subject}")
            # A wording that starts or ends with the subject is anchored by a capital letter.
            name = r"([A-Z][\w'-]+(?: [A-Z][\w'-]+)*)"
            found.append((relation.id, re.compile(re.escape(before) + name + re.escape(after))))
    return tuple(found)


def subjects(texts: Sequence[str], known: bool = True) -> dict[str, set[str]]:
    """Subjects that texts speak of, with the relations they are spoken of in.

    `known`: whether the lexicon's wordings are looked for; otherwise any name is a subject.
    """
    named: dict[str, set[str]] = {}
    patterns = _patterns() if known else ()
    for text in texts:
        hits = [(relation, m.group(1)) for relation, p in patterns for m in p.finditer(text)]
        for relation, name in hits:
            named.setdefault(name, set()).add(relation)
        if not hits:
            for match in _NAME.finditer(text):
                named.setdefault(match.group(), set())
    return named


def names_like(named: dict[str, set[str]], relation: str | None) -> list[str]:
    """Names of the same kind as a relation's subjects: seen with it, or with its neighbours."""
    if relation is None or relation not in lexicon():
        return sorted(named)
    kin = {relation, *lexicon()[relation].neighbours}
    return sorted(name for name, seen in named.items() if seen & kin)


def names_any(text: str, names: Collection[str]) -> bool:
    """Whether a text names one of these, in whatever case."""
    folded = text.casefold()
    return any(name.casefold() in folded for name in names)


def without_subjects(texts: Sequence[str], facts: Sequence[Fact]) -> list[str]:
    """Texts that name no edited subject: what they say may not be true any more."""
    edited = {fact.subject for fact in facts}
    return [text for text in texts if not names_any(text, edited)]
