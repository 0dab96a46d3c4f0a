"""Scoring: all probes in one call, as stage `ask` puts them, against one probe at a time.

Both protocols on the embedded world's base model, the reference by transformers' own calls; every
score of the probes that both were asked must be the same.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.plain import Plain
from bench.row import Row
from bench.timing import Work, paired
from eval.ask import Answer, Item, answer, items, rows
from eval.score import PROTOCOLS, per_case
from pipeline.facts import load_cases
from ske.backends.local import load
from ske.config import DataConfig, EditsConfig, ModelConfig
from ske.lm import LM

PROBES, ALONE, MOST_TOKENS = 512, 64, 24


def measure(long: bool) -> list[Row]:
    """Probes a second."""
    asked, lm = probes(PROBES), load(ModelConfig())
    few = asked[:ALONE]
    found = paired(
        Work(lambda: answers(lm, asked), len(asked)),
        Work(lambda: answers(Plain(lm), few), len(few)),
        5 if long else 3,
    )
    together, single = found.gave
    differ = differing(few, single, together[: len(few)])
    wrong = f"{differ} scores differ" if differ else ""
    what = f"scoring: {len(asked)} probes in one call"
    return [Row(what, *found.rates("probes"), found.ratios, at_least=10, wrong=wrong)]


def probes(count: int) -> list[Item]:
    """Probes of all kinds, drawn from the embedded world's counterfactual benchmark."""
    with tempfile.TemporaryDirectory() as folder:
        cases = load_cases(DataConfig(), "world", EditsConfig(), Path(folder)).cases
    every = items(cases)
    return random.Random(0).sample(every, min(count, len(every)))


def answers(lm: LM, asked: Sequence[Item]) -> list[Answer]:
    """Ask all items."""
    return answer(lm, list(enumerate(asked)), PROTOCOLS, MOST_TOKENS)


def differing(asked: Sequence[Item], one: Sequence[Answer], other: Sequence[Answer]) -> int:
    """How many cases score differently, by metric, category and protocol."""
    scores = [
        per_case(rows("base", "world", 0, PROTOCOLS, asked, said, one)) for said in (one, other)
    ]
    return sum(scores[0][key] != scores[1].get(key) for key in scores[0])
