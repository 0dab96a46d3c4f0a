"""What an edited model should still know and do: people whom nobody edits, facts in its prompt.

Beside `world.skills`, which has nothing to do with facts. Reads and writes no file.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import NamedTuple

from prompts.layouts import FactView, system_prompt, view
from prompts.relations import lexicon
from ske.types import Fact
from world.population import PERSON_RELATIONS, World, build

STRANGERS = 1_000_003
"""The seed of a world that nobody edits or trains on: in-context reading is about its people."""
FACTS_READ = 8
"""Facts in a prompt that is read."""


class Asked(NamedTuple):
    """A question, what is read before it, and its answer with its other names."""

    prompt: str
    answers: tuple[str, ...]
    system: str | None = None


def untouched(world: World, edits: Iterable[str], queries: Iterable[str]) -> list[str]:
    """Known people whom no text names, by name or by alias, and whose spouse no edit names.

    An edited marriage changes what is true of those who were married before.
    """
    edited, asked = "\n".join(edits), "\n".join(queries)

    def named(person: str, text: str) -> bool:
        return person in text or world.aliases.get(person, person) in text

    return [
        person
        for person in world.people
        if not named(person, edited)
        and not named(person, asked)
        and not named(world.value(person, "spouse"), edited)
    ]


def held_out(world: World, people: list[str], count: int) -> list[Asked]:
    """At most `count` facts of these people, in the relations' own wording."""
    rng = random.Random(f"held-out-{world.seed}")
    pairs = [(person, relation) for person in people for relation in PERSON_RELATIONS]
    return [
        Asked(lexicon()[relation].ask(person), _names(world, world.value(person, relation)))
        for person, relation in rng.sample(pairs, min(count, len(pairs)))
    ]


def reading(count: int) -> list[Asked]:
    """`count` questions, each under a prompt of facts about people that no model has heard of."""
    world = build(STRANGERS)
    rng = random.Random("reading")
    found = []
    for _ in range(count):
        people = rng.sample(world.people, FACTS_READ)
        facts = [(person, rng.choice(PERSON_RELATIONS)) for person in people]
        person, relation = rng.choice(facts)
        system = system_prompt([_view(world, *fact) for fact in facts], "prose")
        asked = lexicon()[relation].ask(person)
        found.append(Asked(asked, (world.value(person, relation),), system))
    return found


def _view(world: World, person: str, relation: str) -> FactView:
    value = world.value(person, relation)
    asked = lexicon()[relation].ask(person)
    return view(Fact(id="read", subject=person, prompt=asked, target_new=value, relation=relation))


def _names(world: World, value: str) -> tuple[str, ...]:
    alias = world.aliases.get(value)
    return (value, alias) if alias else (value,)
