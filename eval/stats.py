"""Intervals and paired tests over cases and seeds. Reads numbers, writes nothing.

The unit is the case, not the probe: probes of one case fall together, so resampling them singly
would make intervals too narrow. Seeds are a level above cases (`eval.levels`): where there are
several, they are resampled too. Values are percentages.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from eval import levels
from eval.levels import Bounds, Floats, Resampling
from eval.pairs import mcnemar, sign_flip
from eval.score import mean

PERCENT = (0.0, 100.0)

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
    test: str
    """What gave p: `mcnemar`, `sign-flip` or `two-level`."""


def bootstrap_mean(
    values: Sequence[float],
    n_resamples: int = 2000,
    seed: int = 0,
    level: float = 95,
    bounds: Bounds | None = PERCENT,
) -> Interval:
    """The mean over cases with a bootstrap interval, of one seed.

    A weighted bootstrap with half a case at each bound, see `eval.levels`; without bounds,
    stretched to Student's t instead.

    If all values are equal the interval is Clopper-Pearson's: with n equal cases, at most a share
    q = 1 - (alpha / 2) ** (1 / n) of all cases differs, and at worst those lie on the bounds.
    For n of n right this is exactly the binomial interval, and a single case, whatever its value,
    gets nearly the whole range. Without bounds nothing can be said then: (v, v), and `n` is 1.

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
    cases = {(number, 0): value for number, value in enumerate(values)}
    return bootstrap_seeds(cases, n_resamples, seed, level, bounds)


def bootstrap_seeds(
    values: BySeed[CaseT],
    n_resamples: int = 2000,
    seed: int = 0,
    level: float = 95,
    bounds: Bounds | None = PERCENT,
) -> Interval:
    """The mean over cases of their means over seeds, with a bootstrap interval over both levels.

    It says what other cases and other seeds would give. With one seed it is `bootstrap_mean`.
    Below five seeds expect little of it: two or three say hardly anything about all seeds.

    Raises:
        ValueError: As `bootstrap_mean`.
    """
    _check_options(n_resamples, level)
    _check_values(values.values(), bounds)
    how = Resampling(n_resamples, seed, level)
    low, high = _interval(_cells(values), how, bounds)
    cases = by_case(values)
    return Interval(mean(list(cases.values())), low, high, len(cases))


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
    bounds: Bounds | None = PERCENT,
) -> Difference:
    """The mean of a - b over the (case, seed) pairs that both have.

    The interval is that of `bootstrap_seeds`, of differences. p comes from one of three tests:

    - one seed, every value 0 or 100: McNemar's, exact;
    - one seed, graded values (several probes a case): sign flips of the cases' differences, exact
      up to 12 that are not 0, else of `n_permutations` seeded flips;
    - several seeds: the larger of the two-level t test and the sign flips of the cases' means over
      seeds, so that neither few seeds nor few cases can make a difference look certain.

    Not corrected: see `holm`. Swapping a and b mirrors the interval and keeps p.

    `bounds` is what a value can be at least and at most; None if it has no bounds.

    Raises:
        ValueError: If a and b have no case in common, or a value is out of bounds.
    """
    common = [key for key in a if key in b]
    if not common:
        raise ValueError(f"no (case, seed) in common: {list(a)[:3]!r} ... and {list(b)[:3]!r} ...")
    _check_options(min(n_resamples, n_permutations), level)
    for side in (a, b):
        _check_values([side[key] for key in common], bounds)
    differences = {key: a[key] - b[key] for key in common}
    cells = _cells(differences)
    cases = by_case(differences)
    reach = max(abs(difference) for difference in cases.values())
    width = bounds[1] - bounds[0] if bounds else None
    reachable = (-width, width) if width is not None else None
    low, high = _interval(cells, Resampling(n_resamples, seed, level), reachable, reach)
    binary = bounds == PERCENT and all(side[key] in PERCENT for key in common for side in (a, b))
    p, test = _tested(cells, binary, n_permutations, seed)
    return Difference(mean(list(cases.values())), low, high, p, len(cases), test)


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


def _tested(cells: Floats, binary: bool, n_permutations: int, seed: int) -> tuple[float, str]:
    n_cases, n_seeds = cells.shape
    if binary and n_seeds == 1:
        ups, downs = np.count_nonzero(cells > 0), np.count_nonzero(cells < 0)
        return mcnemar(int(ups), int(downs)), "mcnemar"
    cases = np.nanmean(levels.canonical(cells), axis=1)
    flipped = sign_flip(cases, n_permutations, seed)
    if n_seeds == 1:
        return flipped, "sign-flip"
    return max(flipped, levels.two_level_p(cells) if n_cases > 1 else 1.0), "two-level"


def _cells(values: BySeed[CaseT]) -> Floats:
    """[cases, seeds], seeds ascending, NaN where a case has no value."""
    rows = {case: i for i, case in enumerate(dict.fromkeys(case for case, _ in values))}
    columns = {seed: i for i, seed in enumerate(sorted({seed for _, seed in values}))}
    cells = np.full((len(rows), len(columns)), np.nan)
    for (case, seed), value in values.items():
        cells[rows[case], columns[seed]] = value
    return cells


def _check_values(values: Iterable[float], bounds: Bounds | None) -> None:
    low, high = bounds or (-math.inf, math.inf)
    count = 0
    for count, value in enumerate(values, 1):  # noqa: B007  (counted below)
        # Rounding of a mean may overshoot its bound by an ulp.
        if not math.isfinite(value) or not low - 1e-9 <= value <= high + 1e-9:
            raise ValueError(f"a value must be finite and from {low} to {high}, got {value!r}")
    if count == 0:
        raise ValueError("no values: an interval needs at least one case")


def _check_options(n_resamples: int, level: float) -> None:
    if n_resamples < 1:
        raise ValueError(f"resamples and permutations must be at least 1, got {n_resamples!r}")
    if not 0 < level < 100:
        raise ValueError(f"level is a percentage between 0 and 100, got {level!r}")


def _interval(
    cells: Floats, how: Resampling, bounds: Bounds | None, reach: float | None = None
) -> tuple[float, float]:
    n_cases = len(cells)
    spread = n_cases > 1 and np.nanmax(cells) > np.nanmin(cells)
    if spread:
        return levels.interval(cells, how, bounds, reach)
    # A single case may have another value under each seed; of equal ones no mean is rounded.
    value = float(np.nanmean(cells)) if n_cases == 1 else float(cells[~np.isnan(cells)][0])
    if bounds is None:
        return value, value
    share = 1 - how.tail ** (1 / n_cases)
    return value - share * (value - bounds[0]), value + share * (bounds[1] - value)
