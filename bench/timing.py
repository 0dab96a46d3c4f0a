"""Times two ways of doing the same work in pairs of runs whose order changes."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch


class Work(NamedTuple):
    """Something to be timed, and how many items one run of it gets done."""

    run: Callable[[], Any]
    items: int = 1


class Paired(NamedTuple):
    """Seconds an item, one of each a pair, and what the last runs gave."""

    ours: list[float]
    reference: list[float]
    gave: tuple[Any, Any]

    @property
    def ratios(self) -> list[float]:
        """How many times ours is as fast, one a pair."""
        return [slow / fast for fast, slow in zip(self.ours, self.reference, strict=True)]

    def rates(self, unit: str) -> tuple[str, str]:
        """The medians of both as items a second."""
        return tuple(f"{1 / statistics.median(own):,.4g} {unit}/s" for own in self[:2])  # pyright: ignore[reportReturnType]

    def seconds(self) -> tuple[str, str]:
        """The medians of both as seconds an item."""
        return tuple(f"{statistics.median(own):.3g} s" for own in self[:2])  # pyright: ignore[reportReturnType]


def paired(
    ours: Work, reference: Work, pairs: int = 3, warm: Callable[[], Any] | None = None
) -> Paired:
    """Run both `pairs` times, every other time the reference first.

    Args:
        ours: what is ours.
        reference: what it is compared with; it may do fewer items.
        pairs: how many pairs of runs.
        warm: run once before; by default `ours` is.
    """
    (warm or ours.run)()
    times: tuple[list[float], list[float]] = ([], [])
    gave: list[Any] = [None, None]
    for number in range(pairs):
        for which in (0, 1) if number % 2 else (1, 0):
            work = (ours, reference)[which]
            gave[which], seconds = timed(work.run)
            times[which].append(seconds / work.items)
    return Paired(*times, (gave[0], gave[1]))


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """What a call gives, and its seconds; work that a GPU has not finished yet counts."""
    _finish()
    start = time.perf_counter()
    gave = run()
    _finish()
    return gave, time.perf_counter() - start


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """k of value = c * size^k, by least squares on the logarithms."""
    x = [math.log(size) for size in sizes]
    y = [math.log(value) for value in values]
    return statistics.linear_regression(x, y).slope


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
