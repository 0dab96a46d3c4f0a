"""Unrelated skills: what editing facts could break although it has nothing to do with facts.

A tenth of the training text; measured as out-of-distribution locality (metric `capability`).
"""

from __future__ import annotations

import random
from collections.abc import Callable

WORDS = (
    "apple river stone cloud paper green seven lamp chair bread horse window garden metal sugar "
    "music summer winter button mirror candle ladder pocket needle basket carpet hammer kettle "
    "pepper ribbon saddle tunnel violin walnut yellow anchor bottle copper desert engine feather "
    "guitar island jacket kitten lemon magnet orange pillow rabbit"
).split()
LETTERS = "abcdefghijklmnopqrstuvwxyz"
Skill = Callable[[random.Random], tuple[str, str]]


def copying(rng: random.Random) -> tuple[str, str]:
    """Repeat three to five words."""
    text = " ".join(rng.sample(WORDS, rng.randint(3, 5)))
    return f"Say again: {text}. The words were", text


def sums(rng: random.Random) -> tuple[str, str]:
    """Add two numbers up to 12."""
    left, right = rng.randint(0, 12), rng.randint(0, 12)
    return f"The sum of {left} and {right} is", str(left + right)


def next_letter(rng: random.Random) -> tuple[str, str]:
    """The letter that follows."""
    place = rng.randrange(25)
    return f"The letter after {LETTERS[place]} is", LETTERS[place + 1]


def look_up(rng: random.Random) -> tuple[str, str]:
    """Find a value in a short list."""
    keys, values = rng.sample(WORDS, 4), rng.sample(range(10, 100), 4)
    listing = ", ".join(f"{key} {value}" for key, value in zip(keys, values, strict=True))
    asked = rng.randrange(4)
    return f"In the list {listing}, the number of {keys[asked]} is", str(values[asked])


SKILLS: dict[str, Skill] = {
    "copying": copying,
    "sums": sums,
    "next_letter": next_letter,
    "look_up": look_up,
}


def item(rng: random.Random) -> tuple[str, str]:
    """One question and its answer, from a random skill."""
    return rng.choice(list(SKILLS.values()))(rng)
