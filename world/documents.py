"""The base model's training text: questions about the world, and facts in a context to be used.

A `Document` is a context (possibly empty) and questions that each see the context but not each
other, which is just how a teacher's prompt is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from prompts.layouts import LAYOUTS, FactView, frames, system_prompt
from prompts.loader import render
from prompts.relations import lexicon
from ske.types import ERASED
from world.nonsense import Nonsense
from world.plain import Asker
from world.population import PERSON_RELATIONS, World
from world.questions import Question, View, inverse_wordings
from world.skills import item

SMALL = 8
"""Contexts of so many facts are asked inverse questions more often: there it is learned."""
NONSENSE_SHARE, DEMONSTRATION_SHARE = 0.12, 0.04
MOST_NONSENSE = 24
"""Facts of no world in one context, at most."""


class Document(NamedTuple):
    """A context and the questions asked under it."""

    context: str
    questions: list[Question]


class Writer(Asker):
    """Writes an endless stream of documents about one world."""

    def __init__(self, world: World, seed: int, pieces: Sequence[str] = ()) -> None:
        """`pieces`, the tokenizer's parts of words, are what facts of no world are made of."""
        super().__init__(world, seed)
        self.chiefs = {
            own["chief_executive_officer"]
            for own in world.values.values()
            if "chief_executive_officer" in own
        }
        self.given = sorted({name.split()[0] for name in world.people})
        self.family = sorted({name.split()[1] for name in world.people})
        self.taken = set(world.people) | set(world.new_people)
        self.anything = Nonsense(self.rng, pieces)

    # -- contexts -----------------------------------------------------------------------------

    def contextual(self, n_facts: int, n_questions: int) -> Document:
        """`n_facts` corrections in a random layout, and questions that need them or must not."""
        draw = self.rng.random()
        if draw < NONSENSE_SHARE:
            return self.nonsense(min(n_facts, MOST_NONSENSE), n_questions)
        if draw < NONSENSE_SHARE + DEMONSTRATION_SHARE and n_facts > 2:
            return self.demonstrations(n_facts // 3, n_questions)
        view, facts = self.corrections(n_facts)
        context = self.prompt([self.view(s, r, view) for s, r in facts])
        return Document(context, [self.asked(view, facts) for _ in range(n_questions)])

    def prompt(self, facts: Sequence[FactView], footers: Sequence[str] | None = None) -> str:
        """Facts in any layout, under any header, above any footer."""
        return system_prompt(
            facts,
            self.rng.choice(LAYOUTS),
            self.rng.choice(list(frames()["headers"])),
            self.rng.choice(footers or list(frames()["footers"])),
        )

    def nonsense(self, n_facts: int, n_questions: int) -> Document:
        """Facts about anything at all: nothing else can be asked under them."""
        facts = self.anything.facts(n_facts)
        picks = [self.rng.choice(facts) for _ in range(n_questions)]
        return Document(
            self.prompt(facts, ["none"]),
            [Question(fact["prompt"], fact["object"], "nonsense") for fact in picks],
        )

    def demonstrations(self, count: int, n_questions: int) -> Document:
        """Solved examples of how a new fact is used, then questions with new facts of their own."""
        shown = [self.demonstration() for _ in range(count)]
        context = render("methods/ike/published/system", demonstrations=shown).text
        return Document(context, [self.with_facts() for _ in range(n_questions)])

    def demonstration(self) -> dict[str, str]:
        """One new fact, and a question that it answers or leaves alone."""
        view, facts = self.corrections(1)
        asked = self.asked(view, facts)
        fact = self.statement(*facts[0], view)
        return {"fact": fact, "prompt": asked.prompt, "answer": asked.answer}

    def with_facts(self) -> Question:
        """A question behind its own new facts."""
        view, facts = self.corrections(self.rng.randint(1, 4))
        asked = self.asked(view, facts)
        stated = [self.statement(subject, relation, view) for subject, relation in facts]
        text = render("methods/ike/published/question", facts=stated, question=asked.prompt).text
        return Question(text, asked.answer, "shown")

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

    def statement(self, subject: str, relation: str, view: View) -> str:
        """A correction as one sentence without its period."""
        own = self.view(subject, relation, view)
        return f"{own['prompt']} {own['object']}"

    # -- corrections --------------------------------------------------------------------------

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
            relation = self.rng.choice(self.relations(subject))
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

    # -- questions under a context ------------------------------------------------------------

    def asked(self, view: View, facts: list[tuple[str, str]]) -> Question:
        """One question under a context: about a correction, its consequences, or neither."""
        subject, relation = self.rng.choice(facts)
        known = subject in self.world.values
        inverse = 0.12 if len(facts) <= SMALL else 0.07
        draw = self.rng.random()
        if draw < 0.38:
            return self.direct(subject, relation, view)
        if draw < 0.62:
            return self.composed(subject, view, relation)
        if draw < 0.62 + inverse:
            both_ways = [f for f in facts if inverse_wordings(f[1], "open")] or facts
            subject, relation = self.rng.choice(both_ways)
            return self.inverse(subject, relation, view) or self.direct(subject, relation, view)
        if draw < 0.79 and known and view.value(subject, relation) != ERASED:
            return self.exception(subject, relation, view.value(subject, relation))
        if draw < 0.82:
            return self.claim(subject, relation, view)
        if draw < 0.83 and known and (found := self.life(subject, view)):
            return found
        if draw < 0.90 and known:
            return self.direct(subject, self.rng.choice(self.relations(subject)), view)
        return self.unaffected(view)

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
            if draw > 0.8:
                return self.composed(person, view, relation)
            return self.direct(person, relation, view)
        return Question(*item(self.rng), "skill")

    def touched(self, person: str, relation: str, view: View) -> bool:
        """Whether the corrections leave open what is true of this person now."""
        if relation != "spouse" or (person, "spouse") in view.edits:
            return False
        return (self.world.value(person, "spouse"), "spouse") in view.edits
