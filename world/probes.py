"""The probes of one edit: what must follow from it, and what must stay as it was.

Every question is in a wording of its split's own (`wordings.yaml`) or in the relation's own, never
in one that training edits may use; answers come from `View`. What any edit of the same benchmark
changes, directly or by a marriage, is never asked about as unchanged. Reads and writes no file.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

from prompts.relations import lexicon
from ske.types import ERASED
from world.population import COMPANY_RELATIONS, PERSON_RELATIONS, World
from world.questions import View, compositions, exception_wording, inverse_wordings, wordings

Probe = dict[str, Any]
Groups = dict[str, list[Probe]]
MOST_SPECIFIC = 4
"""Relation_Specificity probes of one edit, at most."""


class Edit(NamedTuple):
    """One change of the world; `old` is None if the subject is new in it."""

    subject: str
    relation: str
    new: str
    old: str | None


class Prober:
    """Writes the probes of a benchmark's edits, knowing all of them."""

    def __init__(
        self,
        world: World,
        edits: Sequence[Edit],
        peers: Sequence[str],
        side: str,
        rng: random.Random,
    ) -> None:
        """`peers` are whom locality may ask about; `side` is whose wordings are used."""
        self.side = side
        self.world = world
        self.peers = peers
        self.rng = rng
        self._by_relation: dict[str, list[tuple[str, str]]] = {}
        self.changed = {(edit.subject, edit.relation) for edit in edits}
        self.changed |= {
            (person, edit.relation)
            for edit in edits
            if lexicon()[edit.relation].symmetric
            for person in self._involved(edit)
        }

    def _involved(self, edit: Edit) -> set[str]:
        """Whose marriages an edit changes: both old couples."""
        former = self.world.values.get(edit.new, {}).get(edit.relation)
        return {name for name in (edit.subject, edit.old, edit.new, former) if name}

    def stands(self, subject: str, relation: str) -> bool:
        """Whether no edit of the benchmark changes this fact or leaves it open."""
        return (subject, relation) not in self.changed

    # -- what must follow -------------------------------------------------------------------

    def rephrased(self, edit: Edit) -> list[str]:
        """The edit's question in other words."""
        return [w.replace("{subject}", edit.subject) for w in wordings(edit.relation, self.side)]

    def portability(self, edit: Edit) -> Groups:
        """Consequences by KnowEdit's categories; a category without probes is left out."""
        groups = {
            "Reasoning": self._reasoning(edit),
            "Subject_Aliasing": self._aliasing(edit),
            "Logical_Generalization": self._inverse(edit),
        }
        return {name: probes for name, probes in groups.items() if probes}

    def _reasoning(self, edit: Edit) -> list[Probe]:
        before = View(self.world)
        after = View(self.world, {(edit.subject, edit.relation): edit.new})
        probes = []
        for second, options in compositions(edit.relation, self.side).items():
            answer = after.follow(edit.subject, (edit.relation, second))
            # An answer that was right before shows nothing; one that another edit of the
            # benchmark changes hangs on which edits are made together.
            same = answer == before.follow(edit.subject, (edit.relation, second))
            if answer is not None and not same and self.stands(edit.new, second):
                asked = [wording.replace("{subject}", edit.subject) for wording in options]
                probes += [self._probe(prompt, answer) for prompt in asked]
        return probes

    def _aliasing(self, edit: Edit) -> list[Probe]:
        alias = self.world.aliases.get(edit.subject)
        if alias is None:
            return []
        other = self.rng.choice(wordings(edit.relation, self.side))
        options = (lexicon()[edit.relation].prompt, other)
        return [self._probe(w.replace("{subject}", alias), edit.new) for w in options]

    def _inverse(self, edit: Edit) -> list[Probe]:
        if edit.new == ERASED:
            return []
        options = inverse_wordings(edit.relation, self.side)
        return [self._probe(w.replace("{object}", edit.new), edit.subject) for w in options]

    # -- what must stay ---------------------------------------------------------------------

    def locality(self, edit: Edit) -> Groups:
        """Unchanged facts around the edit, by category; an empty category is left out."""
        others = self._others(edit, 3)
        groups = {
            "Relation_Specificity": self._specific(edit),
            "Forgetfulness": self._forgetful(edit, others[-1]),
            "Neighborhood": [*self._near(edit, others[:2]), *self._own_fact(edit)],
        }
        return {name: probes for name, probes in groups.items() if probes}

    def _others(self, edit: Edit, count: int) -> list[str]:
        """Known subjects of the same kind with the same relation, namesakes first."""
        # An equal value could not show that the edit has spilled over.
        pool = [
            name
            for name, value in self._standing(edit.relation)
            if value != edit.new and name not in (edit.subject, edit.new)
        ]
        self.rng.shuffle(pool)
        surname = edit.subject.split()[-1]
        namesakes = [name for name in pool if name.split()[-1] == surname]
        rest = (name for name in pool if name not in namesakes)
        return [*namesakes, *islice(rest, count)][:count]

    def _standing(self, relation: str) -> list[tuple[str, str]]:
        """Whose value of a relation no edit changes, with that value."""
        if relation not in self._by_relation:
            known = ((name, self.world.values[name].get(relation)) for name in self.peers)
            self._by_relation[relation] = [
                (name, value)
                for name, value in known
                if value is not None and self.stands(name, relation)
            ]
        return self._by_relation[relation]

    def _specific(self, edit: Edit) -> list[Probe]:
        """Other facts of the subject; of a known namesake if the subject is new."""
        subject = edit.subject if edit.old is not None else self._others(edit, 1)[0]
        own = COMPANY_RELATIONS if subject in self.world.companies else PERSON_RELATIONS
        open_to = [relation for relation in own if self.stands(subject, relation)]
        chosen = self.rng.sample(open_to, min(MOST_SPECIFIC, len(open_to)))
        return [self._fact(subject, relation) for relation in chosen]

    def _near(self, edit: Edit, others: Sequence[str]) -> list[Probe]:
        own = lexicon()[edit.relation].prompt
        options = (own, self.rng.choice(wordings(edit.relation, self.side)))
        return [
            self._fact(name, edit.relation, wording)
            for name, wording in zip(others, options, strict=True)
        ]

    def _own_fact(self, edit: Edit) -> list[Probe]:
        """A fact of the new target itself; of the old one if the edit is an erasure."""
        value = edit.new if edit.new != ERASED else edit.old or ""
        known = self.world.values.get(value, {})
        open_to = [r for r in lexicon()[edit.relation].object if r in known]
        open_to = [r for r in open_to if self.stands(value, r)]
        return [self._fact(value, self.rng.choice(open_to))] if open_to else []

    def _forgetful(self, edit: Edit, other: str) -> list[Probe]:
        """Asks "..., which is not NEW, is" for what was true; of others if the subject is new."""
        if edit.new == ERASED:
            return []
        subject = edit.subject if edit.old is not None else other
        stem = lexicon()[edit.relation].ask(subject).removesuffix(" is")
        wording = exception_wording(self.side)
        prompt = wording.replace("{stem}", stem).replace("{value}", edit.new)
        return [self._probe(prompt, self.world.value(subject, edit.relation))]

    def _fact(self, subject: str, relation: str, wording: str | None = None) -> Probe:
        text = wording or lexicon()[relation].prompt
        return self._probe(text.replace("{subject}", subject), self.world.value(subject, relation))

    def _probe(self, prompt: str, answer: str) -> Probe:
        """A probe as KnowEdit writes it: one answer with its other names."""
        names = [answer, self.world.aliases.get(answer)]
        return {"prompt": prompt, "ground_truth": [[name for name in names if name]]}
