"""The world's benchmarks in KnowEdit's format: which facts are edited, and to what.

People and companies belong to `val` or to `test` for good; a seed draws the relations, the new
targets and the order. All edits of one benchmark can be made together: none contradicts another,
and no expected answer depends on which of them are made. `write` makes six .json files; the large
benchmark is drawn when it is wanted.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from prompts.relations import lexicon
from ske.io import write_json
from ske.types import ERASED, UserError, content_hash
from world.hard import HardProber
from world.population import COMPANY_RELATIONS, PERSON_RELATIONS, World
from world.probes import Edit, Prober
from world.questions import PROBE_SIDES

SPLITS = PROBE_SIDES
VAL_SHARE = 3
"""One in so many people and companies belongs to `val`."""
RELATIONS_EACH = 2
"""Different relations of each known person that `world_counterfact` edits."""
MANY_EACH, MANY_OF_COMPANIES = 4, 2
"""Different relations of each person and company that `world_many` edits."""
ERASED_SHARE = 0.28
"""Share of the known people and companies that lose a fact in `world_sanitation`."""
ONE_TO_ONE = ("spouse", "chief_executive_officer")


class Members(NamedTuple):
    """Who belongs to a split."""

    people: tuple[str, ...]
    new_people: tuple[str, ...]
    companies: tuple[str, ...]


def members(world: World, split: str) -> Members:
    """The people and companies of a split, in the world's order; no seed changes them.

    Raises:
        UserError: there is no such split.
    """
    if split not in SPLITS:
        raise UserError(f"no split {split!r} in the embedded world; there are: {', '.join(SPLITS)}")

    def share(names: tuple[str, ...]) -> tuple[str, ...]:
        ranked = sorted(names, key=lambda name: content_hash([world.seed, "split", name]))
        val = set(ranked[: len(names) // VAL_SHARE])
        return tuple(name for name in names if (name in val) == (split == "val"))

    return Members(share(world.people), share(world.new_people), share(world.companies))


class Drawer:
    """Collects edits that do not contradict each other."""

    def __init__(self, world: World, group: Members, rng: random.Random) -> None:
        """`group` is whom the edits may be about."""
        self.world = world
        self.group = group
        self.rng = rng
        self.edits: list[Edit] = []
        self._chiefs = {world.value(c, "chief_executive_officer") for c in world.companies}
        self._taken: set[str] = set()
        """People whom an edit marries or makes a chief: once is enough."""

    def change(self, subject: str, count: int = 1) -> None:
        """Give `count` relations of a subject a new value."""
        found = 0
        for relation in self._relations(subject):
            new = self._target(subject, relation) if found < count else None
            if new is not None:
                self._add(subject, relation, new)
                found += 1

    def erase(self, subject: str) -> None:
        """Let one fact be forgotten."""
        self._add(subject, self._relations(subject)[0], ERASED)

    def _relations(self, subject: str) -> list[str]:
        own = COMPANY_RELATIONS if subject in self.world.companies else PERSON_RELATIONS
        return self.rng.sample(own, len(own))

    def _add(self, subject: str, relation: str, new: str) -> None:
        old = self.world.values.get(subject, {}).get(relation)
        self.edits.append(Edit(subject, relation, new, old))

    def _target(self, subject: str, relation: str) -> str | None:
        """Another value of the right kind, or None if there is none left."""
        old = self.world.values.get(subject, {}).get(relation)
        if relation not in ONE_TO_ONE:
            return self.rng.choice([v for v in self.world.kinds[relation] if v != old])
        married = lexicon()[relation].symmetric
        free = [
            person
            for person in self.group.people
            if person not in self._taken | self._chiefs | {subject, old}
        ]
        if not free or (married and subject in self._taken):
            return None
        new = self.rng.choice(free)
        self._taken |= {new, subject} if married else {new}
        return new


def _counterfact(draw: Drawer) -> None:
    for company in draw.group.companies:
        draw.change(company)
    for person in draw.rng.sample(draw.group.people, len(draw.group.people)):
        draw.change(person, RELATIONS_EACH)


def _many(draw: Drawer) -> None:
    for company in draw.group.companies:
        draw.change(company, MANY_OF_COMPANIES)
    for person in draw.rng.sample(draw.group.people, len(draw.group.people)):
        draw.change(person, MANY_EACH)


def _recent(draw: Drawer) -> None:
    for person in draw.group.new_people:
        draw.change(person)


def _sanitation(draw: Drawer) -> None:
    everybody = (*draw.group.people, *draw.group.companies)
    for subject in draw.rng.sample(everybody, round(ERASED_SHARE * len(everybody))):
        draw.erase(subject)


class Benchmark(NamedTuple):
    """One benchmark: how its ids begin, what it is, and how its edits are drawn."""

    prefix: str
    description: str
    draw: Callable[[Drawer], None]
    filed: bool = True
    """Whether its files lie in the world's folder."""


BENCHMARKS = {
    "world_counterfact": Benchmark(
        "world",
        "Embedded world, modification: known people and companies get other values",
        _counterfact,
    ),
    "world_many": Benchmark(
        "world-many",
        "Embedded world, modification: more than a thousand, several of each person and company",
        _many,
        filed=False,
    ),
    "world_recent": Benchmark(
        "world-recent", "Embedded world, insertion: facts of people nobody has heard of", _recent
    ),
    "world_sanitation": Benchmark(
        "world-sanitation",
        f"Embedded world, erasure: known facts to be answered with {ERASED!r}",
        _sanitation,
    ),
}


def benchmarks() -> list[tuple[str, str]]:
    """Name and description of each benchmark."""
    return [(name, benchmark.description) for name, benchmark in BENCHMARKS.items()]


def records(world: World, name: str, split: str, seed: int = 0) -> list[dict[str, Any]]:
    """A benchmark's records in KnowEdit's shape, in an order drawn by `seed`.

    Raises:
        UserError: there is no such benchmark or split.
    """
    if name not in BENCHMARKS:
        raise UserError(f"no benchmark {name!r} in the embedded world; there are: {_names()}")
    group = members(world, split)
    rng = random.Random(f"bench-{name}-{split}-{world.seed}-{seed}")
    draw = Drawer(world, group, rng)
    BENCHMARKS[name].draw(draw)
    rng.shuffle(draw.edits)
    peers = (*group.people, *group.companies)
    prober = Prober(world, draw.edits, peers, split, rng)
    apart = random.Random(f"bench-hard-{name}-{split}-{world.seed}-{seed}")
    hard = HardProber(world, draw.edits, peers, split, apart)
    middle = "-val" if split == "val" else ""
    return [
        {"id": f"{BENCHMARKS[name].prefix}{middle}-{number:04d}", **_record(prober, hard, edit)}
        for number, edit in enumerate(draw.edits)
    ]


def _record(prober: Prober, hard: HardProber, edit: Edit) -> dict[str, Any]:
    old = {"ground_truth": edit.old} if edit.old is not None else {}
    return {
        "subject": edit.subject,
        "prompt": lexicon()[edit.relation].ask(edit.subject),
        "target_new": edit.new,
        **old,
        "relation": edit.relation,
        "rephrase_prompts": prober.rephrased(edit),
        "portability": prober.portability(edit),
        "locality": prober.locality(edit),
        "hard": hard.hard(edit),
    }


def _names() -> str:
    return ", ".join(BENCHMARKS)


def write(world: World, folder: Path, seed: int = 0) -> list[Path]:
    """Write the filed benchmarks as `<name>-<split>.json`; the same bytes for the same seed."""
    paths = []
    for name in (name for name, benchmark in BENCHMARKS.items() if benchmark.filed):
        for split in SPLITS:
            paths.append(folder / f"{name}-{split}.json")
            write_json(paths[-1], records(world, name, split, seed))
    return paths


__all__ = [
    "BENCHMARKS",
    "SPLITS",
    "Members",
    "benchmarks",
    "members",
    "records",
    "write",
]
