"""Bootstrap intervals over two levels: seeds, and cases below them. Reads numbers, writes nothing.

Cells are an array [cases, seeds], NaN where a case has no value under a seed. Two shapes matter,
and both need no switch: the same cases under every seed (training seeds), and other cases under
every seed (seeds that draw the edits).

Two things are done about what a plain percentile bootstrap gets wrong on such scores
(bench/coverage.py measures both):

- Near 0 and 100 % it never sees the failures that the sample happens to lack. So resamples are
  weighted (the Bayesian bootstrap of Rubin 1981) and hold half a case at each bound. For one
  right or wrong answer a case this is Jeffreys' interval, one of those that Brown, Cai and
  DasGupta (2001) recommend near the ends; for graded values it is its counterpart. Differences
  lie far from their bounds, so their half cases lie at the largest difference of a case, both ways.
- With five seeds it is too narrow ("narrowness bias" and normal tails, Hesterberg 2015). So the
  resampled interval is stretched about the mean to the width that the variance components of
  seeds, cases and their interaction call for, with Student's t on Satterthwaite's degrees.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtr, stdtrit

Floats = NDArray[np.float64]
Bounds = tuple[float, float]

_BLOCK = 2_000_000  # numbers drawn at once: keeps 10,000 cases below 50 MB
_FLOOR = 0.5
"""Least width with several seeds, as a share of what cases alone would give. Without a floor the
interval collapses whenever the seeds' means agree by chance; a whole one covers 98-99 %."""


class Spread(NamedTuple):
    """The variance of a mean, in squared units of the values."""

    variance: float
    """With seeds and cases both drawn at random."""
    degrees: float
    """Satterthwaite's degrees of freedom of `variance`."""
    least: float
    """What it would be if seeds made no difference."""


def weights(cells: Floats) -> Floats:
    """The weight of each cell in the mean [cases, seeds]: equal cases, equal seeds in a case."""
    present = ~np.isnan(cells)
    return present / present.sum(axis=1, keepdims=True) / len(cells)


class Resampling(NamedTuple):
    """How resamples are drawn, and what is read off them."""

    resamples: int = 2000
    seed: int = 0
    level: float = 95
    """Confidence in percent."""

    @property
    def tail(self) -> float:
        """The share beyond either end."""
        return (1 - self.level / 100) / 2


def interval(
    cells: Floats, how: Resampling, bounds: Bounds | None, reach: float | None = None
) -> tuple[float, float]:
    """The interval of the mean over the cells [cases, seeds], which are not all equal.

    Depends neither on the order of the cases nor on random state outside; mirroring the cells at
    the middle of the bounds mirrors it exactly.

    Args:
        cells: Two cases at least.
        how: The resampling.
        bounds: What a value can be at least and at most; None if it has no bounds.
        reach: How far from the middle of the bounds the two half cases lie; None: on the bounds.
    """
    middle = sum(bounds) / 2 if bounds else 0.0
    limit = (bounds[1] - bounds[0]) / 2 if bounds else None
    reach = limit if reach is None else reach
    ordered, mirrored = _sorted(cells - middle), _sorted(middle - cells)
    order = _compare(ordered, mirrored)
    low, high = _oriented(mirrored if order < 0 else ordered, how, reach)
    if order == 0:
        low, high = (low - high) / 2, (high - low) / 2
    elif order < 0:
        low, high = -high, -low
    if limit is not None:  # stretching may pass the bounds
        low, high = max(low, -limit), min(high, limit)
    return low + middle, high + middle


def canonical(cells: Floats) -> Floats:
    """The cells or their negatives, whichever sorts first, cases sorted: what tests start from."""
    ordered, mirrored = _sorted(cells), _sorted(-cells)
    return mirrored if _compare(ordered, mirrored) < 0 else ordered


def two_level_p(cells: Floats) -> float:
    """The two-sided p that the mean of the cells [cases, seeds] is 0, seeds and cases random.

    The same variance, degrees and floor as in `interval`. Needs two cases and two seeds.
    """
    spread = components(cells)
    mean = abs(float(np.nansum(weights(cells) * cells)))
    if mean == 0:
        return 1.0
    if spread.variance == 0:
        return 0.0
    by_seed = 2 * stdtr(spread.degrees, -mean / math.sqrt(spread.variance))
    floor = 2 * ndtr(-mean / (_FLOOR * math.sqrt(spread.least))) if spread.least else 0.0
    return float(max(by_seed, floor))


def components(cells: Floats) -> Spread:
    """The variance of the mean over cells [cases, seeds], of two cases at least.

    Value = mean + seed + case + rest. Half the mean squared difference of two cells estimates the
    sum of those variances that the two do not share, so pairs in one seed, in one case and in
    neither give all three without bias, whatever cells are missing. On full tables these are the
    estimates of the analysis of variance (tested).
    """
    n_cases, n_seeds = cells.shape
    centred, share = cells - np.nanmean(cells), weights(cells)
    same_seed, same_case, apart = _half_squares(centred)
    if n_seeds == 1:
        variance = same_seed / n_cases
        return Spread(variance, n_cases - 1, variance)
    inside = apart if np.isnan(same_seed) else same_seed
    of_seed = apart - inside
    of_case = 0.0 if np.isnan(same_case) else max(apart - same_case, 0.0)
    rest = max(inside - of_case, 0.0)
    cases = of_case * float(np.sum(share.sum(axis=1) ** 2))
    noise = rest * float(np.sum(share**2))
    # Not cut off at `noise`: an estimate of the seeds' variance below 0 is what makes this fair.
    seeds = max(of_seed * float(np.sum(share.sum(axis=0) ** 2)) + noise, 0.0)
    total = seeds + cases
    parts = seeds**2 / (n_seeds - 1) + cases**2 / (n_cases - 1)
    degrees = total**2 / parts if parts else n_seeds - 1
    return Spread(total, max(degrees, 1.0), noise + cases)


def _half_squares(cells: Floats) -> tuple[float, float, float]:
    """Half the mean squared difference of two cells: same seed, same case, neither; NaN if none."""
    present = ~np.isnan(cells)
    values = np.where(present, cells, 0.0)

    def pairs(axis: int | None) -> tuple[float, float]:
        count, total = present.sum(axis=axis), values.sum(axis=axis)
        squares = count * (values**2).sum(axis=axis) - total**2
        return float(np.sum(squares)) / 2, float(np.sum(count * (count - 1) / 2))

    every, seed, case = pairs(None), pairs(0), pairs(1)
    apart = (every[0] - seed[0] - case[0], every[1] - seed[1] - case[1])
    one, two, three = (s / n if n else np.nan for s, n in (seed, case, apart))
    return one, two, three


def _sorted(cells: Floats) -> Floats:
    """Cases in the order of their values, missing ones last, so that their order never shows."""
    filled = np.where(np.isnan(cells), np.inf, cells) + 0.0  # no -0.0
    return (cells + 0.0)[np.lexsort(filled.T[::-1])]


def _compare(a: Floats, b: Floats) -> int:
    """1, 0 or -1, as a comes after, with or before b, cell by cell."""
    differing = (np.nan_to_num(a) - np.nan_to_num(b)).ravel()
    differing = differing[differing != 0]
    return int(np.sign(differing[0])) if len(differing) else 0


def _oriented(cells: Floats, how: Resampling, reach: float | None) -> tuple[float, float]:
    """The interval with half cases at -reach and reach; without them if `reach` is None."""
    mean = float(np.nansum(weights(cells) * cells))
    plain, padded = _resampled(cells, how, reach)
    low, high = np.quantile(padded, [how.tail, 1 - how.tail])
    if cells.shape[1] > 1 or reach is None:
        needed = _half_width(components(cells), how.tail)
        stretch = needed / (-float(ndtri(how.tail)) * float(plain.std()))
        low, high = mean - stretch * (mean - low), mean + stretch * (high - mean)
    return min(float(low), mean), max(float(high), mean)


def _half_width(spread: Spread, tail: float) -> float:
    """What an interval needs on either side."""
    by_seed = -float(stdtrit(spread.degrees, tail)) * math.sqrt(spread.variance)
    return max(by_seed, -_FLOOR * float(ndtri(tail)) * math.sqrt(spread.least))


def _resampled(cells: Floats, how: Resampling, reach: float | None) -> tuple[Floats, Floats]:
    """Resampled means [resamples]: plain, and with half a case at -reach and half at reach."""
    n_cases, n_seeds = cells.shape
    share = weights(cells) * n_cases
    stacked = np.hstack([np.where(np.isnan(cells), 0.0, cells * share), share])
    plain, padded = [], []
    size = max(1, min(how.resamples, _BLOCK // n_cases))
    for number, start in enumerate(range(0, how.resamples, size)):
        drawn = _draw(n_cases, n_seeds, min(size, how.resamples - start), how.seed, number)
        both = (drawn.cases @ stacked).reshape(-1, 2, n_seeds)
        total, count = (both * drawn.seeds[:, None]).sum(axis=2).T
        low, high = drawn.halves.T
        plain.append(total / count)
        if reach is not None:
            total, count = total + reach * (high - low), count + low + high
        padded.append(total / count)
    return np.concatenate(plain), np.concatenate(padded)


class _Drawn(NamedTuple):
    """The weights of one block of resamples."""

    cases: Floats
    """[resamples, cases], mean 1."""
    seeds: Floats
    """[resamples, seeds], mean 1, of one seed always 1."""
    halves: Floats
    """[resamples, 2], mean 1/2: the two half cases."""


@lru_cache(maxsize=2)  # a table asks for the same numbers of cases again and again
def _draw(n_cases: int, n_seeds: int, size: int, seed: int, number: int) -> _Drawn:
    rng = np.random.default_rng([seed, number])
    cases = rng.standard_exponential((size, n_cases))
    seeds = rng.standard_exponential((size, n_seeds))
    seeds *= n_seeds / seeds.sum(axis=1, keepdims=True)
    drawn = _Drawn(cases, seeds, rng.gamma(0.5, size=(size, 2)))
    for array in drawn:
        array.setflags(write=False)
    return drawn
