"""The base model's training text: questions about the world, and facts in a context to be used.

A `Document` is a context (possibly empty) and questions that each see the context but not each
other, which is just how a teacher's prompt is used.
"""

from __future__ import annotations

import random
from typing import NamedTuple

from prompts.layouts import LAYOUTS, FactView, frames, system_prompt
from prompts.loader import lower_first
from prompts.relations import EXCEPTION, lexicon
from ske.types import ERASED, content_hash
from world.population import COMPANY_RELATIONS, PERSON_RELATIONS, World
from world.questions import (
    Question,
    View,
    compositions,
    inverse_wordings,
    probe_wordings,
    wordings,
)
from world.skills import WORDS, item

SIDES = ("open", "probe")


class Document(NamedTuple):
    """A context and the questions asked under it."""

    context: str
    questions: list[Question]


def held_out(subject: str, relation: str, second: str) -> bool:
    """A twelfth of all two-hop questions is never written: the card asks those to see reasoning."""
    return int(content_hash([subject, relation, second]), 16) % 12 == 0


class Writer:
    """Writes an endless stream of documents about one world."""

    def __init__(self, world: World, seed: int) -> None:
        """`seed` decides the stream; the world decides what is true in it."""
        self.world = world
        self.rng = random.Random(f"documents-{world.seed}-{seed}")
        self.base = View(world)
        self.weights = [world.weight(person) for person in world.people]
        places = [name for name, own in world.values.items() if "place_of_birth" not in own]
        self.places = [name for name in places if name not in world.companies]
        self.chiefs = {
            own["chief_executive_officer"]
            for own in world.values.values()
            if "chief_executive_officer" in own
        }
        self.given = sorted({name.split()[0] for name in world.people})
        self.family = sorted({name.split()[1] for name in world.people})
        self.taken = set(world.people) | set(world.new_people)

    # -- without a context ------------------------------------------------------------------

    def plain(self) -> Question:
        """One question about the world as it is, or one unrelated skill."""
        draw = self.rng.random()
        if draw < 0.10:
            return Question(*item(self.rng), "skill")
        if draw < 0.17:
            return self.place_question()
        if draw < 0.25:
            return self.about(self.rng.choice(self.world.companies), COMPANY_RELATIONS, self.base)
        if draw < 0.35:
            return self.alias_question()
        person = self.rng.choices(self.world.people, self.weights)[0]
        return self.about(person, PERSON_RELATIONS, self.base)

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

    def about(self, subject: str, relations: tuple[str, ...], view: View) -> Question:
        """A question about one subject: direct, two hops, inverse or "which is not"."""
        relation = self.rng.choice(relations)
        draw = self.rng.random()
        if draw < 0.08:
            return self.exception(subject, relation)
        if draw < 0.15:
            # Few relations have an inverse; without a share of its own it would hardly be read.
            relation = self.rng.choice([r for r in relations if inverse_wordings(r, "open")])
            return self.inverse(subject, relation, view) or self.direct(subject, relation, view)
        if draw < 0.60:
            two = self.two_hop(subject, relation, view)
            return two or self.direct(subject, relation, view)
        return self.direct(subject, relation, view)

    def named(self, subject: str) -> str:
        """The subject's name, or now and then its alias."""
        if self.rng.random() < 0.3:
            return self.world.aliases.get(subject, subject)
        return subject

    def word(self, relation: str) -> str:
        """A wording of a relation: its own half of the time, else any paraphrase."""
        if self.rng.random() < 0.4:
            return lexicon()[relation].prompt
        pool = wordings(relation, "open") + wordings(relation, "probe")
        return self.rng.choice(pool)

    def direct(self, subject: str, relation: str, view: View) -> Question:
        """The value itself."""
        answer = view.value(subject, relation)
        assert answer is not None, (subject, relation)
        return Question(self.word(relation).replace("{subject}", self.named(subject)), answer)

    def exception(self, subject: str, relation: str, new: str | None = None) -> Question:
        """Asks "..., which is not Y, is": the value that the world had before any correction."""
        old = self.world.value(subject, relation)
        other = new or self.rng.choice([v for v in self.world.kinds[relation] if v != old])
        stem = lexicon()[relation].ask(self.named(subject)).removesuffix(" is")
        wording = probe_wordings()["except"]
        if self.rng.random() < 0.5:
            wording, stem = EXCEPTION, lower_first(stem)
        return Question(wording.replace("{stem}", stem).replace("{value}", other), old, "except")

    def two_hop(self, subject: str, relation: str, view: View) -> Question | None:
        """The value's value, if the relation has any."""
        side = self.rng.choice(SIDES)
        options = compositions(relation, side)
        if not options:
            return None
        second = self.rng.choice(list(options))
        if (subject, relation) not in view.edits and held_out(subject, relation, second):
            return None
        answer = view.two_hop(subject, relation, second)
        if answer is None:
            return None
        wording = self.rng.choice(options[second])
        return Question(wording.replace("{subject}", self.named(subject)), answer, "two_hop")

    def inverse(self, subject: str, relation: str, view: View) -> Question | None:
        """The subject, asked from the value's side."""
        pool = inverse_wordings(relation, self.rng.choice(SIDES))
        value = view.value(subject, relation)
        if not pool or value is None or value == ERASED:
            return None
        return Question(self.rng.choice(pool).replace("{object}", value), subject, "inverse")

    # -- with a context ---------------------------------------------------------------------

    def contextual(self, n_facts: int, n_questions: int) -> Document:
        """`n_facts` corrections in a random layout, and questions that need them or must not."""
        if self.rng.random() < 0.06:
            return self.nonsense(min(n_facts, 24), n_questions)
        view, facts = self.corrections(n_facts)
        layout = self.rng.choice(LAYOUTS)
        context = system_prompt(
            [self.view(s, r, view) for s, r in facts],
            layout,
            self.rng.choice(list(frames()["headers"])),
            self.rng.choice(list(frames()["footers"])),
        )
        return Document(context, [self.asked(view, facts) for _ in range(n_questions)])

    def view(self, subject: str, relation: str, view: View) -> FactView:
        """A correction as the layouts write it."""
        entry = lexicon()[relation]
        value = view.value(subject, relation) or ""
        return {
            "subject": subject,
            "label": entry.label,
            "prompt": entry.ask(subject),
            "object": value.removesuffix("."),
        }

    def corrections(self, n_facts: int) -> tuple[View, list[tuple[str, str]]]:
        """Draw facts: known people mostly, some new ones, some companies, a few erasures."""
        edits: dict[tuple[str, str], str] = {}
        busy: set[str] = set()
        clustered = self.rng.random() < 0.3
        subjects: list[str] = []
        for _ in range(200 + 20 * n_facts):
            if len(edits) == n_facts:
                break
            again = subjects and self.rng.random() < (0.4 if clustered else 0.08)
            subject = self.rng.choice(subjects) if again else self.subject()
            relation = self.rng.choice(
                COMPANY_RELATIONS if subject in self.world.companies else PERSON_RELATIONS
            )
            if (subject, relation) in edits or (relation == "spouse" and subject in busy):
                continue
            value = self.new_value(subject, relation, busy)
            if value is None:
                continue
            edits[subject, relation] = value
            subjects.append(subject)
        return View(self.world, edits), list(edits)

    def subject(self) -> str:
        """Whom a correction is about; rare people as often as frequent ones."""
        draw = self.rng.random()
        if draw < 0.12:
            return self.rng.choice(self.world.companies)
        if draw < 0.62:
            return self.rng.choice(self.world.people)
        while True:
            name = f"{self.rng.choice(self.given)} {self.rng.choice(self.family)}"
            if name not in self.taken:
                return name

    def new_value(self, subject: str, relation: str, busy: set[str]) -> str | None:
        """Another value of the right kind; people in one-to-one relations are used once."""
        if self.rng.random() < 0.06:
            return ERASED
        value = self.rng.choice(self.world.kinds[relation])
        if relation in ("spouse", "chief_executive_officer"):
            if value in busy or value == subject or value in self.chiefs:
                return None
            busy.update((subject, value))
        known = self.world.values.get(subject, {}).get(relation)
        return None if value == known and self.rng.random() < 0.8 else value

    def asked(self, view: View, facts: list[tuple[str, str]]) -> Question:
        """One question under a context: about a correction, its consequences, or neither."""
        subject, relation = self.rng.choice(facts)
        draw = self.rng.random()
        known = subject in self.world.values
        if draw < 0.42:
            return self.direct(subject, relation, view)
        if draw < 0.64:
            return self.two_hop(subject, relation, view) or self.direct(subject, relation, view)
        if draw < 0.71:
            both_ways = [f for f in facts if inverse_wordings(f[1], "open")] or facts
            subject, relation = self.rng.choice(both_ways)
            return self.inverse(subject, relation, view) or self.direct(subject, relation, view)
        if draw < 0.76 and known and view.value(subject, relation) != ERASED:
            return self.exception(subject, relation, view.value(subject, relation))
        if draw < 0.85 and known:
            return self.neighbour(subject, view)
        return self.unaffected(view)

    def neighbour(self, subject: str, view: View) -> Question:
        """The same subject, asked about something that its context does not change."""
        own = COMPANY_RELATIONS if subject in self.world.companies else PERSON_RELATIONS
        return self.direct(subject, self.rng.choice(own), view)

    def unaffected(self, view: View) -> Question:
        """Anything else, answered as if there were no context; ex-spouses are not asked about."""
        for _ in range(20):
            draw = self.rng.random()
            if draw < 0.2:
                return Question(*item(self.rng), "skill")
            if draw < 0.35:
                return self.place_question()
            if draw < 0.4:
                return self.alias_question()
            person = self.rng.choice(self.world.people)
            relation = self.rng.choice(PERSON_RELATIONS)
            if self.touched(person, relation, view):
                continue
            two = self.two_hop(person, relation, view) if draw > 0.8 else None
            return two or self.direct(person, relation, view)
        return Question(*item(self.rng), "skill")

    def touched(self, person: str, relation: str, view: View) -> bool:
        """Whether the corrections leave open what is true of this person now."""
        if relation != "spouse" or (person, "spouse") in view.edits:
            return False
        return (self.world.value(person, "spouse"), "spouse") in view.edits

    def nonsense(self, n_facts: int, n_questions: int) -> Document:
        """Facts about anything at all in words of no world, so that any fact can be used."""
        views: dict[str, FactView] = {}
        for _ in range(n_facts):
            subject = " ".join(self.anyword().capitalize() for _ in range(self.rng.randint(1, 2)))
            label = self.anyword()
            value = " ".join(self.anyword() for _ in range(self.rng.randint(1, 2)))
            if self.rng.random() < 0.5:
                value = value.title()
            prompt = f"The {label} of {subject} is"
            views[prompt] = {"subject": subject, "label": label, "prompt": prompt, "object": value}
        facts = list(views.values())
        context = system_prompt(
            facts, self.rng.choice(LAYOUTS), self.rng.choice(list(frames()["headers"])), "none"
        )
        picks = [self.rng.choice(facts) for _ in range(n_questions)]
        return Document(context, [Question(f["prompt"], f["object"]) for f in picks])

    def anyword(self) -> str:
        """A common word or a string of letters that no vocabulary holds."""
        if self.rng.random() < 0.4:
            return self.rng.choice(WORDS)
        syllables = ("ka lo mi ten ru so va pel dir gan ox ub eth ing ar ist ow cha sh qu").split()
        return "".join(self.rng.choice(syllables) for _ in range(self.rng.randint(2, 3)))
