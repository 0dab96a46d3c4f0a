"""Tests of paired differences at the level of cases. Reads numbers, writes nothing."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr

_EXACT_UP_TO = 12
_BLOCK = 2_000_000  # numbers drawn at once


def mcnemar(only_a: int, only_b: int) -> float:
    """The exact two-sided McNemar test (McNemar 1947, with binomial tails).

    Args:
        only_a: Cases that only a has right.
        only_b: Cases that only b has right.

    Raises:
        ValueError: If a number is negative.
    """
    if min(only_a, only_b) < 0:
        raise ValueError(f"numbers of cases cannot be negative, got {only_a!r} and {only_b!r}")
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


def sign_flip(sample: NDArray[np.float64], n_permutations: int, seed: int) -> float:
    """The two-sided p of the sign-flip permutation test on the mean of differences [cases].

    Exact up to 12 differences that are not 0 (a 0 has no sign to flip), else
    (count + 1) / (N + 1) of N seeded flips.
    """
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
