"""Measures what a world's base model knows and can do, and writes its model card.

Asks an `LM` about the world, about counterfactual facts in its context, and about the unrelated
skills. `card` returns plain numbers, each with its n; `write` puts them into `card.json` and
`README.md`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prompts.relations import lexicon
from ske.io import write_json, write_text
from ske.lm import LM
from world import context_card, readme
from world.asking import Note, figure, right, silent
from world.context_card import KnownWriter
from world.plain import held_out
from world.population import COMPANY_RELATIONS, PERSON_RELATIONS, World
from world.questions import SIDES, Question, View, chained, inverse_wordings, wordings
from world.skills import SKILLS

GOALS = {
    "single facts: all people": 99.0,
    "two hops: all": 95.0,
    **{f"skill: {name}": 90.0 for name in SKILLS},
}


def card(
    world: World,
    lm: LM,
    folder: Path,
    n: int | None = None,
    sizes: Sequence[int] = context_card.SIZES,
    note: Note = silent,
) -> dict[str, Any]:
    """Measure everything.

    Args:
        world: Whose model it is.
        lm: The model.
        folder: The world's folder; `model/` in it is described.
        n: Most questions of a group; None asks every question about the world, and 400 of the
            groups that have no end.
        sizes: Facts per prompt.
        note: Hears what is being measured.
    """
    result: dict[str, Any] = {"seed": world.seed, "model": readme.describe_model(folder)}
    groups = {**knowledge(world), **skills(world.seed, n or 400)}
    groups = {name: _sample(name, group, n) for name, group in groups.items()}
    note(f"{sum(map(len, groups.values())):,} questions without a context")
    hits = right(lm, groups)
    result["plain"] = [figure(name, found, GOALS.get(name)) for name, found in hits.items()]
    result["context"] = context_card.measure(world, lm, n or 400, sizes, note)
    result["goals"] = [line for line in result["plain"] if line["goal"] is not None]
    result["goals"] += context_card.goals(result["context"])
    return result


def _sample(name: str, group: Sequence[Question], n: int | None) -> Sequence[Question]:
    """The whole group, or `n` of it that depend on nothing but its name."""
    return group if n is None or len(group) <= n else random.Random(name).sample(list(group), n)


def knowledge(world: World) -> dict[str, list[Question]]:
    """Everything that can be asked of the world as it is, by kind of question."""
    groups = {"single facts: all people": _facts(world, world.people, PERSON_RELATIONS)}
    quarter = len(world.people) // 4
    for i, label in enumerate(("most frequent", "second", "third", "rarest")):
        people = world.people[i * quarter : (i + 1) * quarter]
        groups[f"single facts: {label} quarter"] = _facts(world, people, PERSON_RELATIONS)
    for side in SIDES:
        groups[f"single facts: {side} paraphrases"] = [
            question
            for relation in PERSON_RELATIONS
            for wording in wordings(relation, side)
            for question in _facts(world, world.people, (relation,), wording)
        ]
    groups["single facts: companies"] = _facts(world, world.companies, COMPANY_RELATIONS)
    groups["single facts: places, awards, colleges, occupations"] = [
        Question(lexicon()[relation].ask(name), world.value(name, relation))
        for name in KnownWriter(world, 0).places
        for relation in world.values[name]
    ]
    groups["aliases"] = [
        Question(lexicon()[relation].ask(alias), world.value(person, relation))
        for person, alias in world.aliases.items()
        for relation in PERSON_RELATIONS
    ]
    return {**groups, **_chains(world), **_inverses(world), **_others(world)}


def _facts(
    world: World, subjects: Sequence[str], relations: Sequence[str], wording: str | None = None
) -> list[Question]:
    return [
        Question(
            (wording or lexicon()[relation].prompt).replace("{subject}", subject),
            world.value(subject, relation),
        )
        for subject in subjects
        for relation in relations
    ]


def _chains(world: World) -> dict[str, list[Question]]:
    """One wording of each composed question; "never written" ones are in no training text."""
    rng, view = random.Random("card two hops"), View(world)
    groups: dict[str, list[Question]] = {}
    for name in ("two hops", "beyond"):
        groups |= {f"{name}: all": [], f"{name}: never written": []}
    for relation in (*PERSON_RELATIONS, *COMPANY_RELATIONS):
        subjects = world.companies if relation in COMPANY_RELATIONS else world.people
        for chain, pool in chained(relation).items():
            open_to = len(chain) == 2 and chain[1] in lexicon()[relation].compositions
            name = "two hops" if open_to else "beyond"
            own = groups.setdefault(f"{name}: {' > '.join(chain)}", [])
            for subject in subjects:
                prompt = rng.choice(pool).replace("{subject}", subject)
                question = Question(prompt, view.follow(subject, chain) or "")
                own.append(question)
                if held_out(subject, chain):
                    groups[f"{name}: never written"].append(question)
            groups[f"{name}: all"] += own
    return groups


def _inverses(world: World) -> dict[str, list[Question]]:
    pairs = {"spouse": world.people, "chief_executive_officer": world.companies}
    return {
        f"inverse: {relation}, {side} wordings": [
            Question(wording.replace("{object}", world.value(subject, relation)), subject)
            for subject in subjects
            for wording in inverse_wordings(relation, side)
        ]
        for relation, subjects in pairs.items()
        for side in SIDES
    }


def _others(world: World) -> dict[str, list[Question]]:
    """Old values, claims to agree with or not, and whole lives."""
    writer = KnownWriter(world, seed=-1)
    known = [(person, relation) for person in world.people for relation in PERSON_RELATIONS]
    lives = [writer.life(person, writer.base) for person in world.people]
    return {
        'exceptions ("which is not")': [writer.exception(*pair) for pair in known],
        'claims ("is it right that")': [writer.claim(*pair, writer.base) for pair in known],
        "short lives, every word": [life for life in lives if life],
    }


def skills(seed: int, n: int) -> dict[str, list[Question]]:
    """Fresh items of each unrelated skill."""
    groups = {}
    for name, skill in SKILLS.items():
        rng = random.Random(f"card-{seed}-{name}")
        groups[f"skill: {name}"] = [Question(*skill(rng)) for _ in range(n)]
    return groups


def markdown(result: Mapping[str, Any]) -> str:
    """The model card as text."""
    return readme.markdown(result)


def write(result: Mapping[str, Any], folder: Path) -> None:
    """Write `card.json` and `README.md`."""
    write_json(folder / "card.json", dict(result))
    write_text(folder / "README.md", markdown(result))
