"""The relation lexicon: reads `relations.yaml`, recognises a fact's relation, words questions.

A relation that is not in the lexicon gives None, never a guess.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import yaml
from pydantic import Field

from ske.types import Fact, Frozen

LEXICON = Path(__file__).with_name("relations.yaml")
EXCEPTIONS = (
    "Apart from {value}, {stem} is",
    "{Stem}, other than {value}, is",
    "{Stem}, leaving out {value}, is",
    "{Stem}, if we do not count {value}, is",
    "{Stem}, besides {value}, is",
    "{Stem}, apart from {value}, is",
    "{Stem}, except for {value}, is",
    "Leaving {value} aside, {stem} is",
    "{Stem}, rather than {value}, is",
    "Besides {value}, {stem} is",
    "{Stem}, excluding {value}, is",
    "{Stem}, without {value}, is",
    "Other than {value}, {stem} is",
    "{Stem}, aside from {value}, is",
    "{Stem}, instead of {value}, is",
    "{Stem}, with {value} set aside, is",
    "If {value} is left out, {stem} is",
    "{Stem}, in place of {value}, is",
    "{Stem}, not counting {value}, is",
    "Without {value}, {stem} is",
)
"""Ask for what a relation had besides a new value: the old one, which an edit must not erase.

`{stem}` is a prompt without its final "is", `{Stem}` the same at the start of a sentence. Many, in
both orders: a student learns from all of them together how such a question is read, whatever its
words are."""
EXCEPTION = EXCEPTIONS[0]
"""The one that the embedded world's text has, too."""


class Relation(Frozen):
    """One entry of `relations.yaml`; wordings hold `{subject}` (inverse ones `{object}`)."""

    id: str
    label: str
    prompt: str
    paraphrases: tuple[str, ...] = ()
    neighbours: tuple[str, ...] = ()
    symmetric: bool = False
    inverse: tuple[str, ...] = ()
    compositions: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    object: tuple[str, ...] = ()

    def ask(self, subject: str) -> str:
        """The relation's own wording for one subject."""
        return self.prompt.replace("{subject}", subject)


@cache
def lexicon() -> dict[str, Relation]:
    """All relations by id, in file order."""
    entries = yaml.safe_load(LEXICON.read_text(encoding="utf-8"))
    return {key: Relation(id=key, **entry) for key, entry in entries.items()}


@cache
def _by_prompt() -> dict[str, Relation]:
    return {relation.prompt: relation for relation in lexicon().values()}


def relation_of(fact: Fact) -> Relation | None:
    """The fact's relation: the one it names, or the one whose wording its prompt has."""
    if fact.relation is not None and fact.relation in lexicon():
        return lexicon()[fact.relation]
    known = _by_prompt()
    return next((known[text] for text in _templates(fact) if text in known), None)


def _templates(fact: Fact) -> Iterator[str]:
    """The prompt with the subject left open, once for every place where the subject stands.

    One place at a time: a subject such as "capital" may be a word of the wording as well.
    """
    prompt, subject = fact.prompt.strip(), fact.subject.strip()
    start = prompt.find(subject) if subject else -1
    while start >= 0:
        yield prompt[:start] + "{subject}" + prompt[start + len(subject) :]
        start = prompt.find(subject, start + 1)
