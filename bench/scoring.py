"""How much batched scoring saves: probes per second against one probe at a time, same scores.

Asks the embedded world's base model the probes of a data set under both protocols, once all in one
call and once each alone, in pairs of runs whose order changes; prints the probes per second of
both and the median and range of the pairs' ratios. Exits with 1 if any score differs or the median
is below what must be held.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from eval.ask import Answer, Item, answer, items, rows
from eval.score import PROTOCOLS, per_case
from pipeline.facts import load_cases
from ske.backends.local import load
from ske.config import DataConfig, EditsConfig, ModelConfig
from ske.lm import LM

PAIRS, PROBES, MOST_TOKENS = 5, 256, 24
MUST = 10.0
"""Probes per second, as a multiple of one probe at a time."""


class Timed(NamedTuple):
    """The answers, and how long they took."""

    answers: list[Answer]
    seconds: float


def probes(count: int) -> list[Item]:
    """Probes of all kinds, drawn from the embedded world's counterfactual benchmark."""
    with tempfile.TemporaryDirectory() as folder:
        cases = load_cases(DataConfig(), "world", EditsConfig(), Path(folder)).cases
    every = items(cases)
    return random.Random(0).sample(every, min(count, len(every)))


def timed(lm: LM, asked: Sequence[Item], at_once: int) -> Timed:
    """Ask all items, so many in a call."""
    numbered = list(enumerate(asked))
    start = time.perf_counter()
    said: list[Answer] = []
    for first in range(0, len(numbered), at_once):
        said += answer(lm, numbered[first : first + at_once], PROTOCOLS, MOST_TOKENS)
    return Timed(said, time.perf_counter() - start)


def differing(asked: Sequence[Item], one: Sequence[Answer], other: Sequence[Answer]) -> int:
    """How many cases score differently, by metric, category and protocol."""
    scores = [
        per_case(rows("base", "world", 0, PROTOCOLS, asked, said, one)) for said in (one, other)
    ]
    return sum(scores[0][key] != scores[1].get(key) for key in scores[0])


def main() -> int:
    """Measure, print, and say whether it is fast enough."""
    console, asked, lm = Console(), probes(PROBES), load(ModelConfig())
    timed(lm, asked[:8], 8)  # to warm up
    ratios, speeds = [], []
    for number in range(PAIRS):
        sizes = (len(asked), 1) if number % 2 else (1, len(asked))
        found = {size: timed(lm, asked, size) for size in sizes}
        batched, single = found[len(asked)], found[1]
        if wrong := differing(asked, single.answers, batched.answers):
            console.print(f"{wrong} scores differ between batched and single probes")
            return 1
        ratios.append(single.seconds / batched.seconds)
        speeds.append((len(asked) / batched.seconds, len(asked) / single.seconds))
    middle = statistics.median(ratios)
    fast, slow = (statistics.median(column) for column in zip(*speeds, strict=True))
    console.print(
        f"{len(asked)} probes, both protocols, same scores: {fast:.0f} probes/s in one call, "
        f"{slow:.0f} one at a time; ratio {middle:.1f} (median of {PAIRS} pairs, "
        f"{min(ratios):.1f} to {max(ratios):.1f}); must be at least {MUST:.0f}"
    )
    return int(middle < MUST)


if __name__ == "__main__":
    sys.exit(main())
