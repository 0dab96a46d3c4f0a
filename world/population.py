"""The invented population: who lives in the world and what is true of each of them.

Reads `geography.yaml` (real geography); everything else is drawn from one seed. A world is small
enough to be kept in memory whole: `World.value(subject, relation)` is its single source of truth.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ske.types import Frozen

HERE = Path(__file__).parent
PERSON_RELATIONS = (
    "place_of_birth",
    "country_of_citizenship",
    "occupation",
    "employer",
    "alma_mater",
    "spouse",
    "award_received",
)
COMPANY_RELATIONS = ("headquarters_location", "industry", "chief_executive_officer")
N_PEOPLE, N_NEW, N_COMPANIES, N_COLLEGES, N_AWARDS = 480, 340, 60, 40, 30

_ONSETS = "b br c ch d dr f g gr h j k kl l m n p qu r s st t tr v w y z".split()
_VOWELS = "a e i o u ae ia eo".split()
_FIRST_ENDS = "la ra na lin ric ven dor mi sa tan bel nor".split()
_LAST_ENDS = "ton berg ley ford well man dale worth gren stad mont field rick sson".split()
_ADJECTIVES = (
    "Red Silver Golden Black White Crimson Silent Swift Lucky Iron Gentle Brave Hidden Royal "
    "Little Grand Wild Blue Ancient Clever"
).split()
_ANIMALS = (
    "Falcon Fox Heron Tiger Otter Raven Wolf Crane Badger Lynx Swan Bear Owl Hare Dolphin Viper "
    "Panther Sparrow Stag Beetle Moth Salmon Bison Ferret"
).split()
_COMPANY_KINDS = "Works Systems Foods Motors Partners Group Mills Energy Press Labs".split()
_COLLEGE_KINDS = "College University Institute Academy".split()
_PRIZES = "Prize Medal Award".split()


class World(Frozen):
    """A population and its truths.

    `values` maps subject -> relation -> value, for people, companies, colleges, awards,
    occupations, cities and countries alike.
    """

    seed: int
    people: tuple[str, ...]
    """Known people, the most frequent first."""
    new_people: tuple[str, ...]
    """Names that no training text holds: the subjects of insertions."""
    companies: tuple[str, ...]
    aliases: dict[str, str]
    """Person -> another name, for about 60 % of the people."""
    values: dict[str, dict[str, str]]
    kinds: dict[str, tuple[str, ...]]
    """What a relation's value can be: relation -> candidates."""

    def value(self, subject: str, relation: str) -> str:
        """What is true; raises KeyError for a relation the subject does not have."""
        return self.values[subject][relation]

    def weight(self, person: str) -> float:
        """How often a person appears, relative to others: a Zipf law with a flattened head."""
        return (self.people.index(person) + 10) ** -0.6


@cache
def geography() -> dict[str, Any]:
    """The hand-written part: countries, occupations, industries."""
    return yaml.safe_load((HERE / "geography.yaml").read_text(encoding="utf-8"))


def build(seed: int = 0) -> World:
    """Draw a world. The same seed gives the same world on every machine."""
    rng = random.Random(f"world-{seed}")
    values: dict[str, dict[str, str]] = {}
    countries, cities = _real_places(values)
    given, family = _names(rng, _FIRST_ENDS, 110), _names(rng, _LAST_ENDS, 150)
    full = _pairs(rng, given, family, N_PEOPLE + N_NEW)
    people, new_people = full[:N_PEOPLE], full[N_PEOPLE:]
    companies = _pairs(
        rng, _names(rng, ["x", "co", "ex", "ia", "um"], 40), _COMPANY_KINDS, N_COMPANIES
    )
    colleges = _pairs(
        rng, _names(rng, ["den", "mere", "wick", "low"], 30), _COLLEGE_KINDS, N_COLLEGES
    )
    awards = [
        f"{animal} {rng.choice(_PRIZES)}" for animal in _names(rng, ["is", "or", "an"], N_AWARDS)
    ]
    kinds = _kinds(countries, cities, people, companies, colleges, awards)
    for job, field in geography()["occupations"].items():
        values[job] = {"field_of_work": field}
    for college in colleges:
        values[college] = {"city": rng.choice(cities)}
    for award in awards:
        values[award] = {"associated_country": rng.choice(countries)}
    _draw_lives(rng, values, people, companies, kinds)
    return World(
        seed=seed,
        people=tuple(people),
        new_people=tuple(new_people),
        companies=tuple(companies),
        aliases=_draw_aliases(rng, people),
        values=values,
        kinds=kinds,
    )


def _kinds(
    countries: list[str],
    cities: list[str],
    people: list[str],
    companies: list[str],
    colleges: list[str],
    awards: list[str],
) -> dict[str, tuple[str, ...]]:
    return {
        "place_of_birth": tuple(cities),
        "country_of_citizenship": tuple(countries),
        "occupation": tuple(geography()["occupations"]),
        "employer": tuple(companies),
        "alma_mater": tuple(colleges),
        "spouse": tuple(people),
        "award_received": tuple(awards),
        "headquarters_location": tuple(cities),
        "industry": tuple(geography()["industries"]),
        "chief_executive_officer": tuple(people),
    }


def _real_places(values: dict[str, dict[str, str]]) -> tuple[list[str], list[str]]:
    countries, cities = [], []
    for name, capital, currency, language, continent, others in geography()["countries"]:
        countries.append(name)
        values[name] = {
            "capital": capital,
            "currency": currency,
            "official_language": language,
            "continent": continent,
        }
        for city in [capital, *others]:
            cities.append(city)
            values[city] = {"country": name}
    return countries, cities


def _draw_lives(
    rng: random.Random,
    values: dict[str, dict[str, str]],
    people: list[str],
    companies: list[str],
    kinds: dict[str, tuple[str, ...]],
) -> None:
    for person in people:
        values[person] = {r: rng.choice(kinds[r]) for r in PERSON_RELATIONS if r != "spouse"}
    singles = rng.sample(people, len(people))
    for one, other in zip(singles[::2], singles[1::2], strict=True):
        values[one]["spouse"], values[other]["spouse"] = other, one
    for company, chief in zip(companies, rng.sample(people, len(companies)), strict=True):
        values[company] = {
            "headquarters_location": rng.choice(kinds["headquarters_location"]),
            "industry": rng.choice(kinds["industry"]),
            "chief_executive_officer": chief,
        }


def _draw_aliases(rng: random.Random, people: list[str]) -> dict[str, str]:
    epithets = _pairs(rng, _ADJECTIVES, _ANIMALS, round(0.6 * len(people)))
    return dict(zip(rng.sample(people, len(epithets)), epithets, strict=True))


def _names(rng: random.Random, ends: Sequence[str], count: int) -> list[str]:
    """Pronounceable invented names, all different, none of them a place."""
    names: dict[str, None] = {}
    while len(names) < count:
        names[(rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(ends)).capitalize()] = None
    return list(names)


def _pairs(rng: random.Random, left: Sequence[str], right: Sequence[str], count: int) -> list[str]:
    """`count` different two-word names; second words repeat, so that people share a surname."""
    chosen = rng.sample(range(len(left) * len(right)), count)
    return [f"{left[i // len(right)]} {right[i % len(right)]}" for i in chosen]
