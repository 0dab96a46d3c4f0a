"""Intervals and paired tests over cases. Reads numbers, writes nothing.

The unit is the case, not the probe and not the seed: probes of one case fall together, so
resampling them singly would make intervals too narrow. Values are percentages.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from eval.score import mean

PERCENT = (0.0, 100.0)
_EXACT_UP_TO = 12
_BLOCK = 2_000_000  # numbers drawn at once: keeps 10,000 cases below 50 MB

Floats = NDArray[np.float64]
CaseT = TypeVar("CaseT", bound=Hashable)
BySeed = Mapping[tuple[CaseT, int], float]
"""Percentages by (case, seed)."""


class Interval(NamedTuple):
    """A mean with its interval, in the unit of the values; `n` is the number of cases."""

    mean: float
    low: float
    high: float
    n: int


class Difference(NamedTuple):
    """The mean of a - b in percentage points, its interval, a two-sided p; `n` counts cases."""

    diff: float
    low: float
    high: float
    p: float
    n: int


def bootstrap_mean(
    values: Sequence[float],
    n_resamples: int = 2000,
    seed: int = 0,
    level: float = 95,
    bounds: tuple[float, float] | None = PERCENT,
) -> Interval:
    """The mean over cases with a percentile bootstrap interval.

    If all values are equal the bootstrap would give a point, as if 100 of 100 were certainty.
    Then the interval is Clopper-Pearson's: with n equal cases, at most a share
    q = 1 - (alpha / 2) ** (1 / n) of all cases differs, and at worst those lie on the bounds.
    For n of n right this is exactly the binomial interval. A single case gives (v, v): one
    number says nothing about spread, and its `n` shows that.

    Args:
        values: One value per case, in percent.
        n_resamples: How many resamples.
        seed: Of the resampling; the same seed gives the same interval.
        level: Confidence in percent.
        bounds: What a value can be at least and at most; None if it has no bounds.

    Raises:
        ValueError: If there are no values, or one is not finite or out of bounds, or an option
            is out of range.
    """
    sample = _checked(values, bounds)
    _check_options(n_resamples, level)
    low, high = _interval(sample, n_resamples, seed, level, bounds)
    return Interval(mean(sample.tolist()), low, high, len(sample))


def by_case(values: BySeed[CaseT]) -> dict[CaseT, float]:
    """One value per case: its mean over seeds. A case is one cluster, however often repeated."""
    seeds: dict[CaseT, list[float]] = {}
    for (case, _), value in values.items():
        seeds.setdefault(case, []).append(value)
    return {case: mean(values) for case, values in seeds.items()}


def paired(
    a: BySeed[CaseT],
    b: BySeed[CaseT],
    n_resamples: int = 2000,
    n_permutations: int = 10_000,
    seed: int = 0,
    level: float = 95,
) -> Difference:
    """The mean of a - b over the (case, seed) pairs that both have, seeds of a case together.

    The interval is a bootstrap over cases (see `bootstrap_mean` for equal differences); p is a
    sign-flip permutation test, exact up to 12 differences that are not 0 (a 0 has no sign to
    flip), else (count + 1) / (N + 1) of N seeded flips. Not corrected: see `holm`.

    Raises:
        ValueError: If a and b have no case in common, or a value is not a percentage.
    """
    common = [key for key in a if key in b]
    if not common:
        raise ValueError(f"no (case, seed) in common: {list(a)[:3]!r} ... and {list(b)[:3]!r} ...")
    _check_options(min(n_resamples, n_permutations), level)
    of_a = _checked([a[key] for key in common], PERCENT)
    of_b = _checked([b[key] for key in common], PERCENT)
    differences = by_case(dict(zip(common, (of_a - of_b).tolist(), strict=True)))
    sample = np.array(list(differences.values()), dtype=np.float64)
    low, high = _interval(sample, n_resamples, seed, level, (-100.0, 100.0))
    p = _sign_flip(sample, n_permutations, seed)
    return Difference(mean(sample.tolist()), low, high, p, len(sample))


def holm(pvalues: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given.

    Raises:
        ValueError: If a p-value is not between 0 and 1.
    """
    for p in pvalues:
        if not 0 <= p <= 1:
            raise ValueError(f"a p-value lies between 0 and 1, got {p!r}")
    adjusted = [0.0] * len(pvalues)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(pvalues)), key=lambda i: pvalues[i])):
        largest = max(largest, min(1.0, (len(pvalues) - rank) * pvalues[index]))
        adjusted[index] = largest
    return adjusted


def _checked(values: Sequence[float], bounds: tuple[float, float] | None) -> Floats:
    if len(values) == 0:
        raise ValueError("no values: an interval needs at least one case")
    low, high = bounds or (-math.inf, math.inf)
    for value in values:
        # Rounding of a mean may overshoot its bound by an ulp.
        if not math.isfinite(value) or not low - 1e-9 <= value <= high + 1e-9:
            raise ValueError(f"a value must be finite and from {low} to {high}, got {value!r}")
    return np.asarray(values, dtype=np.float64)


def _check_options(n_resamples: int, level: float) -> None:
    if n_resamples < 1:
        raise ValueError(f"resamples and permutations must be at least 1, got {n_resamples!r}")
    if not 0 < level < 100:
        raise ValueError(f"level is a percentage between 0 and 100, got {level!r}")


def _interval(
    sample: Floats, n_resamples: int, seed: int, level: float, bounds: tuple[float, float] | None
) -> tuple[float, float]:
    tail = (1 - level / 100) / 2
    if np.ptp(sample) == 0:
        value = float(sample[0])
        if len(sample) == 1 or bounds is None:
            return value, value
        share = 1 - tail ** (1 / len(sample))
        return value - share * (value - bounds[0]), value + share * (bounds[1] - value)
    means = _resampled_means(sample, n_resamples, np.random.default_rng(seed))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _resampled_means(sample: Floats, n_resamples: int, rng: np.random.Generator) -> Floats:
    n = len(sample)
    block = max(1, _BLOCK // n)
    parts = [
        sample[rng.integers(0, n, size=(min(block, n_resamples - start), n))].mean(axis=1)
        for start in range(0, n_resamples, block)
    ]
    return np.concatenate(parts)


def _sign_flip(sample: Floats, n_permutations: int, seed: int) -> float:
    moved = sample[sample != 0]
    n = len(moved)
    if n == 0:
        return 1.0
    total = moved.sum()
    # Flips that give the same sum in another order must count as ties.
    reached = abs(total) - 1e-9 * np.abs(moved).sum()
    if n <= _EXACT_UP_TO:
        signs = np.array(list(itertools.product((1.0, -1.0), repeat=n)))
        return float(np.mean(np.abs(signs @ moved) >= reached))
    rng = np.random.default_rng(seed)
    block, count = max(1, _BLOCK // n), 0
    for start in range(0, n_permutations, block):
        size = (min(block, n_permutations - start), n)
        flipped = rng.integers(0, 2, size=size, dtype=np.int8)
        count += int(np.count_nonzero(np.abs(total - 2 * (flipped @ moved)) >= reached))
    return (count + 1) / (n_permutations + 1)
