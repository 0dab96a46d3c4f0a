"""A question, and the batch of corrections it belongs to: what the batch changes, and what not.

Pure: reads the relation lexicon only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from eval.score import matches
from prompts.relations import relation_of
from ske.types import ERASED, Fact, Frozen

Kind = Literal["fact", "paraphrase", "consequence", "neighbour"]
UNKNOWN = "unknown relation: generic wordings only"


class Query(Frozen):
    """One question."""

    prompt: str
    kind: Kind
    fact_id: str
    expected: str | None = None
    """The answer with PROMPT, if rules can tell. A neighbour has none: the base model's is true."""
    of: str | None = None
    """The relation asked for: "employer", "employer.industry" (of the object), "inverse.spouse"."""
    note: str = ""


class Batch:
    """All corrections that are made together: what they change, by name and by implication."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        """Index the facts; of two for one subject and relation the last counts."""
        self.by_id = {fact.id: fact for fact in facts}
        self.edits: dict[tuple[str, str], str] = {}
        self.targets: Counter[tuple[str, str]] = Counter()
        self.touched: dict[tuple[str, str], None] = {}
        self.relations: dict[str, list[str]] = {}
        for fact in self.by_id.values():
            self._index(fact)

    def _index(self, fact: Fact) -> None:
        relation = relation_of(fact)
        key = relation_key(fact)
        self.edits[fact.subject, key] = fact.target_new
        self.targets[fact.target_new, key] += 1
        self.relations.setdefault(fact.subject, []).append(key)
        if relation and relation.symmetric:
            # The new partner's value changes with the subject's, and so does the former one's.
            for person in (fact.target_new, fact.ground_truth):
                if person and person != ERASED:
                    self.touched[person, key] = None

    def changes(self, subject: str, relation: str) -> bool:
        """Whether the batch changes this value, or leaves open what it is now."""
        return (subject, relation) in self.edits or (subject, relation) in self.touched

    def names_touched(self, text: str, relation: str) -> bool:
        """Whether a text names somebody whose symmetric relation the batch changes."""
        people = [s for s, r in (*self.edits, *self.touched) if r == relation]
        return any(matches(text, person) for person in people)


def relation_key(fact: Fact) -> str:
    """The relation's id, or for one the lexicon does not know the prompt without its subject."""
    relation = relation_of(fact)
    return relation.id if relation else fact.prompt.replace(fact.subject, "{subject}")
