"""How much batched scoring saves: probes per second against one probe at a time, same scores.

Asks the embedded world's base model the probes of a data set under both protocols, once all in one
call (as many as stage `ask` puts at once) and once some of them each alone, in pairs of runs whose
order changes; prints the probes per second of both and the median and range of the pairs' ratios.
Exits with 1 if any score differs or the median is below what must be held. A minute on one core.
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

PAIRS, PROBES, ALONE, MOST_TOKENS = 3, 256, 48, 24
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
        found = {}
        for alone in (True, False) if number % 2 else (False, True):
            found[alone] = timed(lm, asked[:ALONE], 1) if alone else timed(lm, asked, len(asked))
        batched, single = found[False], found[True]
        if wrong := differing(asked[:ALONE], single.answers, batched.answers[:ALONE]):
            console.print(f"{wrong} scores differ between batched and single probes")
            return 1
        speeds.append((len(asked) / batched.seconds, ALONE / single.seconds))
        ratios.append(speeds[-1][0] / speeds[-1][1])
    middle = statistics.median(ratios)
    fast, slow = (statistics.median(column) for column in zip(*speeds, strict=True))
    console.print(
        f"Both protocols, same scores of {ALONE} probes: {fast:.0f} probes/s, {len(asked)} in one "
        f"call, {slow:.1f} one at a time; ratio {middle:.1f} (median of {PAIRS} pairs, "
        f"{min(ratios):.1f} to {max(ratios):.1f}); must be at least {MUST:.0f}"
    )
    return int(middle < MUST)


if __name__ == "__main__":
    sys.exit(main())
