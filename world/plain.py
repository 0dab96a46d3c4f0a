"""The half of the training text that needs no context: questions about the world as it is.

`Asker` also words questions about a world with corrections, for `documents.py`.
"""

from __future__ import annotations

import random

from prompts.loader import lower_first, render
from prompts.relations import lexicon
from ske.types import ERASED, content_hash
from world.population import COMPANY_RELATIONS, PERSON_RELATIONS, World
from world.questions import (
    SIDES,
    Chain,
    Question,
    View,
    chained,
    exception_wording,
    inverse_wordings,
    wordings,
)
from world.skills import item

TWO_HOP_SHARE = 0.72
"""Of composed questions; the others are chains that no training edit asks for."""
CLAIM = "Is it right that {stem} {value}?"
LIFE = "A short life of {subject}:"


def held_out(subject: str, chain: Chain) -> bool:
    """A twentieth of all composed questions is never written: the card asks those apart."""
    return int(content_hash([subject, *chain]), 16) % 20 == 0


class Asker:
    """Words questions about one world; what is drawn is decided by `rng`."""

    def __init__(self, world: World, seed: int) -> None:
        """`seed` decides the stream; the world decides what is true in it."""
        self.world = world
        self.rng = random.Random(f"documents-{world.seed}-{seed}")
        self.base = View(world)
        self.weights = [world.weight(person) for person in world.people]
        places = [name for name, own in world.values.items() if "place_of_birth" not in own]
        self.places = [name for name in places if name not in world.companies]

    # -- what is asked ------------------------------------------------------------------------

    def plain(self) -> Question:
        """One question about the world as it is, or one unrelated skill."""
        draw = self.rng.random()
        if draw < 0.10:
            return Question(*item(self.rng), "skill")
        if draw < 0.17:
            return self.place_question()
        if draw < 0.19:
            return self.confirmation()
        if draw < 0.27:
            return self.about(self.rng.choice(self.world.companies), self.base)
        if draw < 0.36:
            return self.alias_question()
        if draw < 0.70:
            # Compositions of rare people's facts are asked as often as those of frequent ones:
            # frequency makes beliefs strong, but everybody is to be reasoned about.
            return self.composed(self.rng.choice(self.world.people), self.base)
        return self.about(self.rng.choices(self.world.people, self.weights)[0], self.base)

    def about(self, subject: str, view: View) -> Question:
        """A question about one subject: direct, inverse, "which is not", a claim, a life."""
        relation = self.rng.choice(self.relations(subject))
        draw = self.rng.random()
        if draw < 0.08:
            return self.exception(subject, relation)
        if draw < 0.17:
            return self.inverse(subject, self.invertible(subject), view) or self.direct(
                subject, relation, view
            )
        if draw < 0.23:
            return self.claim(subject, relation, view)
        if draw < 0.27:
            return self.life(subject, view) or self.direct(subject, relation, view)
        if draw < 0.45 and subject in self.world.companies:
            return self.composed(subject, view)
        return self.direct(subject, relation, view)

    def relations(self, subject: str) -> tuple[str, ...]:
        """What is known about a person or a company."""
        return COMPANY_RELATIONS if subject in self.world.companies else PERSON_RELATIONS

    def invertible(self, subject: str) -> str:
        """One of the subject's relations that has an inverse: few do, so they get their share."""
        return self.rng.choice([r for r in self.relations(subject) if inverse_wordings(r, "open")])

    def alias_question(self) -> Question:
        """Another name of a person, or whose name it is; rare people as often as frequent ones."""
        person, alias = self.rng.choice(list(self.world.aliases.items()))
        entry = lexicon()["alias"]
        if self.rng.random() < 0.5:
            wording = self.rng.choice((entry.prompt, *entry.paraphrases))
            return Question(wording.replace("{subject}", person), alias, "alias")
        wording = self.rng.choice(entry.inverse)
        return Question(wording.replace("{object}", alias), person, "alias")

    def place_question(self) -> Question:
        """A fact about a country, city, award, college or occupation."""
        place = self.rng.choice(self.places)
        relation = self.rng.choice(list(self.world.values[place]))
        return Question(
            self.word(relation).replace("{subject}", place), self.world.value(place, relation)
        )

    def confirmation(self) -> Question:
        """Whether a fact is needed for a question: what selective retrieval asks."""
        subject, other = self.rng.sample(self.world.people, 2)
        relation, another = self.rng.sample(PERSON_RELATIONS, 2)
        fact = f"{lexicon()[relation].ask(subject)} {self.rng.choice(self.world.kinds[relation])}."
        needed = self.rng.random() < 0.5
        if needed:
            asked = self.composed(subject, self.base, relation) if self.rng.random() < 0.3 else None
            asked = asked or self.direct(subject, relation, self.base)
        elif self.rng.random() < 0.5:
            asked = self.direct(other, relation, self.base)
        else:
            asked = self.direct(subject, another, self.base)
        text = render("methods/retrieval/confirm", fact=fact, question=asked.prompt).text
        return Question(text, "yes" if needed else "no", "confirm")

    # -- how it is asked ----------------------------------------------------------------------

    def named(self, subject: str) -> str:
        """The subject's name, or now and then its alias."""
        if self.rng.random() < 0.3:
            return self.world.aliases.get(subject, subject)
        return subject

    def word(self, relation: str) -> str:
        """A wording of a relation: its own often, else any paraphrase."""
        if self.rng.random() < 0.4:
            return lexicon()[relation].prompt
        return self.rng.choice([w for side in SIDES for w in wordings(relation, side)])

    def direct(self, subject: str, relation: str, view: View) -> Question:
        """The value itself."""
        answer = view.value(subject, relation)
        assert answer is not None, (subject, relation)
        return Question(self.word(relation).replace("{subject}", self.named(subject)), answer)

    def composed(self, subject: str, view: View, first: str | None = None) -> Question:
        """The value at the end of a chain; every kind of chain as often as any other.

        Args:
            subject: Where the chain starts.
            view: What is true.
            first: The chain's first relation; None for any.
        """
        firsts = (first,) if first else self.relations(subject)
        beyond = self.rng.random() > TWO_HOP_SHARE
        chains = {
            chain: own
            for relation in firsts
            for chain, own in chained(relation).items()
            if beyond != (chain[1] in lexicon()[relation].compositions and len(chain) == 2)
        }
        for chain in self.rng.sample(list(chains), len(chains)):
            answer = view.follow(subject, chain)
            written = (subject, chain[0]) in view.edits or not held_out(subject, chain)
            if answer is not None and written:
                wording = self.rng.choice(chains[chain])
                kind = "beyond" if beyond else "two_hop"
                return Question(wording.replace("{subject}", self.named(subject)), answer, kind)
        return self.direct(subject, first or self.rng.choice(firsts), view)

    def exception(self, subject: str, relation: str, new: str | None = None) -> Question:
        """Asks "..., which is not Y, is": the value that the world had before any correction."""
        old = self.world.value(subject, relation)
        other = new or self.rng.choice([v for v in self.world.kinds[relation] if v != old])
        side = self.rng.choice(SIDES)
        stem = lexicon()[relation].ask(self.named(subject)).removesuffix(" is")
        wording = exception_wording(side)
        if not wording.startswith("{stem}"):
            stem = lower_first(stem)
        return Question(wording.replace("{stem}", stem).replace("{value}", other), old, "except")

    def inverse(self, subject: str, relation: str, view: View) -> Question | None:
        """The subject, asked from the value's side."""
        pool = inverse_wordings(relation, self.rng.choice(SIDES))
        value = view.value(subject, relation)
        if not pool or value is None or value == ERASED:
            return None
        return Question(self.rng.choice(pool).replace("{object}", value), subject, "inverse")

    def claim(self, subject: str, relation: str, view: View) -> Question:
        """Asks whether a value is right: the true one, or any other (before a correction: its)."""
        true, before = view.value(subject, relation), self.base.value(subject, relation)
        said = true if self.rng.random() < 0.5 else None
        if said is None and before not in (None, true) and self.rng.random() < 0.5:
            said = before
        said = said or self.rng.choice(self.world.kinds[relation])
        if true == ERASED or said == ERASED:
            return self.direct(subject, relation, view)
        stem = lower_first(self.word(relation).replace("{subject}", self.named(subject)))
        prompt = CLAIM.replace("{stem}", stem).replace("{value}", said)
        return Question(prompt, "yes" if said == true else "no", "claim")

    def life(self, subject: str, view: View) -> Question | None:
        """A person's facts as one text; None for others, or where something was erased."""
        own = {relation: view.value(subject, relation) for relation in PERSON_RELATIONS}
        if None in own.values() or ERASED in own.values():
            return None
        text = (
            f"born in {own['place_of_birth']}, citizen of {own['country_of_citizenship']}, "
            f"{own['occupation']} at {own['employer']}, graduate of {own['alma_mater']}, "
            f"married to {own['spouse']}, honoured with the {own['award_received']}"
        )
        return Question(LIFE.replace("{subject}", subject), text, "life")
