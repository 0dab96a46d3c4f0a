"""How time and memory of every method grow with the number of facts.

k of c * n^k, fitted from 64 facts on: with fewer, what a method does once for all facts hides what
it does for each. Steps are few and the model tiny, so that thousands of facts take seconds; what
would grow faster than the facts (a system of facts x facts, a search over pairs) still does.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from bench.facts import facts_of
from bench.memory import held, megabytes
from bench.row import Row
from bench.shapes import random_model
from bench.student import lessons_of
from bench.timing import exponent, timed
from methods.base import Workshop
from methods.table import METHODS as TABLE
from methods.table import build
from ske.backends.local import LocalLM

SIZES, FIRST = (1, 4, 16, 64, 256, 1024, 4096), 64
MOST = 1.05
ONCE = {"epochs": 1, "batch_size": 32}
FULL = {"max_prompt_tokens": 256}
"""Prompts that 64 facts fill already: with more room a fact's own prompt grows until it is full."""
VALUES = {"steps": 2, "templates": (), "moment_texts": 64, "moment_tokens": 32}
METHODS: dict[str, dict[str, Any]] = {
    "prompt_packed": {},
    "retrieval": {},
    "lora": ONCE,
    "adalora": ONCE,
    "ft_l": ONCE,
    "ft_m": ONCE,
    "locft": ONCE,
    "mixsd": {**ONCE, **FULL, "tries": 1, "max_new_tokens": 2},
    "sdft": {**ONCE, **FULL, "max_new_tokens": 2},
    "svf": {**ONCE, "check_every": 10**6},
    "rome": VALUES,
    "r_rome": VALUES,
    "memit": VALUES,
    "alphaedit": {**VALUES, "free_share": 0.5},
    "ske": ONCE,
}
"""Name -> options that make it short. PROMPT and IKE put all facts before every question, so they
cannot be linear; MEND's own training does not depend on the facts."""
ALIKE = ("ft_m", "locft", "r_rome")
"""They run the code of FT-L and ROME; only the long form measures them, too."""
LONGEST = 25.0
"""Seconds that one edit may take, judged by the size before; without end in the long form."""


def measure(long: bool) -> list[Row]:
    """Two rows a method."""
    lm = random_model("tiny")
    names = [name for name in METHODS if long or name not in ALIKE]
    longest = math.inf if long else LONGEST
    return [row for name in names for row in _rows(lm, name, longest)]


def _rows(lm: LocalLM, name: str, longest: float) -> Iterator[Row]:
    edit(lm, name, FIRST)  # to warm up
    seconds: list[float] = []
    for n in SIZES:
        if n > 4 * FIRST and seconds[-1] * n / SIZES[len(seconds) - 1] > longest:
            break
        seconds.append(timed(lambda n=n: edit(lm, name, n))[1])
    sizes = SIZES[: len(seconds)]
    # Counting bytes takes longer than the work itself: the largest of three sizes is left out.
    counted = sizes[:-1] if sizes[-1] > 4 * FIRST else sizes
    peaks = [held(lambda n=n: edit(lm, name, n), lm.device).peak for n in counted]
    yield _row(f"{name}: time", sizes, seconds, [f"{s:.2f} s" for s in seconds])
    yield _row(f"{name}: memory", counted, peaks, [megabytes(p) for p in peaks])


def _row(what: str, sizes: Sequence[int], values: Sequence[float], shown: Sequence[str]) -> Row:
    large = [(n, max(v, 1e-9)) for n, v in zip(sizes, values, strict=True) if n >= FIRST]
    found = exponent(*zip(*large, strict=True))
    told = f"{shown[-1]} for {sizes[-1]} facts"
    start = sizes.index(FIRST)
    before = f"{shown[start]} for {FIRST} facts"
    return Row(f"growth, {what}", told, before, [found], at_most=MOST)


def edit(lm: LocalLM, name: str, n: int) -> None:
    """Make an edit of `n` facts with little effort for each."""
    lessons = (lambda: lessons_of(lm, n)) if TABLE[name].taught else None
    torch.manual_seed(0)
    with contextlib.redirect_stdout(io.StringIO()):
        build(name, METHODS[name], Workshop(lessons=lessons)).edit(lm, facts_of(n))
