"""One method's mean as a share of another's: how much of what a ceiling allows is reached.

A ratio of means, not a mean of ratios: a case of which the ceiling has nothing would make the
latter infinite. Reads numbers, writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from eval.levels import Floats
from eval.score import ALL, CaseKey, mean
from eval.stats import BySeed, Interval, bootstrap_seeds, by_case
from eval.tables import RESULT_COLUMNS, TableRow, shown

CEILINGS = ("prompt", "retrieval")
"""Whose portability others are measured against: what the same facts give in a prompt, all at
once, or those looked up for each question."""
METRIC, SHARE = "portability", "portability_share"


def share(
    own: Mapping[str, float],
    ceiling: Mapping[str, float],
    n_resamples: int = 2000,
    seed: int = 0,
    level: float = 95,
) -> Interval | None:
    """The mean of `own` in percent of the mean of `ceiling`, over the cases that both have.

    The interval is the Bayesian bootstrap's (Rubin 1981): each resample weighs the cases by
    exponential draws, the same weights above and below the line, and is a ratio itself. As in
    `eval.levels` it holds two half cases besides, one that only `own` has right and one that only
    `ceiling` has right, so that 0 of 10, or 10 of 10 beside a ceiling's 10 of 10, is no certainty.
    It may pass 100: nothing keeps a method below its ceiling.

    Returns:
        None if there is no common case or the ceiling has nothing at all; `n` counts cases.
    """
    common = sorted(own.keys() & ceiling.keys())
    below = mean([ceiling[case] for case in common]) if common else 0.0
    if below == 0:
        return None
    value = 100 * mean([own[case] for case in common]) / below
    pairs = np.array([(own[case], ceiling[case]) for case in common])
    tail = (1 - level / 100) / 2
    low, high = np.quantile(_resampled(pairs, n_resamples, seed), [tail, 1 - tail])
    return Interval(value, min(float(low), value), max(float(high), value), len(common))


def share_over_seeds(own: BySeed[str], ceiling: BySeed[str]) -> Interval | None:
    """`share` of means over cases of means over seeds; the interval is over cases and seeds.

    With R the share, the mean of own - R ceiling is 0; its interval over both levels
    (`eval.stats.bootstrap_seeds`), divided by the ceiling's mean, is R's, to first order. It is no
    narrower than that of `share` on the cases' means over seeds, which knows what few cases hide.
    """
    common = own.keys() & ceiling.keys()
    mine, there = ({key: each[key] for key in sorted(common)} for each in (own, ceiling))
    found = share(by_case(mine), by_case(there))
    if found is None or len({seed for _, seed in common}) == 1:
        return found
    apart = {key: mine[key] - found.mean / 100 * there[key] for key in mine}
    moved = bootstrap_seeds(apart, bounds=None)
    scale = 100 / mean(list(by_case(there).values()))
    low, high = found.mean + scale * moved.low, found.mean + scale * moved.high
    return Interval(found.mean, max(0.0, min(found.low, low)), max(found.high, high), found.n)


def _resampled(pairs: Floats, n_resamples: int, seed: int) -> Floats:
    """Ratios in percent of the weighted sums of `pairs` [cases, 2], one a resample."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_exponential((n_resamples, len(pairs)))
    halves = 100 * rng.gamma(0.5, size=(n_resamples, 2))
    above, below = (weights @ pairs + halves).T
    return 100 * above / below


def shares(values: Mapping[CaseKey, float]) -> dict[tuple[str, str, str, str, int], Interval]:
    """(method, data set, protocol, ceiling, seed) -> portability in percent of the ceiling's."""
    groups: dict[tuple[str, str, int, str], dict[str, float]] = {}
    for key, value in values.items():
        if (key.metric, key.category) == (METRIC, ALL):
            place = (key.dataset, key.protocol, key.seed, key.method)
            groups.setdefault(place, {})[key.case] = value
    found: dict[tuple[str, str, str, str, int], Interval] = {}
    for (dataset, protocol, seed, method), own in groups.items():
        for ceiling in CEILINGS:
            there = groups.get((dataset, protocol, seed, ceiling))
            interval = share(own, there) if there and method != ceiling else None
            if interval is not None:
                found[method, dataset, protocol, ceiling, seed] = interval
    return found


def share_rows(values: Mapping[CaseKey, float]) -> list[TableRow]:
    """Rows in the columns of results: metric `portability_share`, the ceiling as the category."""
    rows = []
    for (method, dataset, protocol, ceiling, seed), interval in shares(values).items():
        named = (method, dataset, protocol, SHARE, ceiling)
        told = dict(zip(RESULT_COLUMNS, named, strict=False)) | {"seed": seed}
        rows.append(told | shown(interval))
    return rows
