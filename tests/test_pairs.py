"""Tests of pairs against numbers worked out by hand and against scipy; Holm's laws."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from eval.pairs import mcnemar, sign_flip
from eval.stats import holm, paired


def percent(pattern: str, seed: int = 0) -> dict[tuple[int, int], float]:
    return {(case, seed): 100.0 * int(mark) for case, mark in enumerate(pattern)}


def test_mcnemar_by_hand() -> None:
    # 8 against 2 of 10: 2 * (1 + 10 + 45) / 1024.
    assert mcnemar(8, 2) == pytest.approx(2 * 56 / 1024)
    assert mcnemar(0, 0) == 1
    assert mcnemar(3, 3) == 1  # both tails together hold more than everything
    assert mcnemar(5, 0) == 2 / 32
    with pytest.raises(ValueError, match="-1"):
        mcnemar(-1, 2)


def test_mcnemar_is_the_binomial_test() -> None:
    for a, b in itertools.product(range(12), repeat=2):
        if a + b:
            assert mcnemar(a, b) == pytest.approx(binomtest(a, a + b).pvalue)
            assert mcnemar(a, b) == mcnemar(b, a)


def test_pairs_of_right_and_wrong_get_mcnemars_test() -> None:
    # Only a: cases 0-3; only b: case 4; the rest does not count.
    found = paired(percent("11110110"), percent("00001110"))
    assert (found.test, found.n, found.diff) == ("mcnemar", 8, 37.5)
    assert found.p == pytest.approx(mcnemar(4, 1)) == pytest.approx(2 * 6 / 32)


def test_graded_values_get_sign_flips_and_several_seeds_both_levels() -> None:
    a, b = percent("1111"), percent("0000")
    assert paired(a | {(0, 0): 50.0}, b).test == "sign-flip"
    found = paired(a | percent("1111", 1), b | percent("0000", 1))
    assert (found.test, found.p) == ("two-level", 2 / 16)  # no spread at all: the cases decide


def test_sign_flips_agree_with_mcnemar_on_equal_steps() -> None:
    differences = np.array([100.0] * 7 + [-100.0] * 2 + [0.0] * 30)
    assert sign_flip(differences, 10, seed=0) == pytest.approx(mcnemar(7, 2))


@given(st.lists(st.floats(0, 1), max_size=12), st.randoms(use_true_random=False))
def test_laws_of_holm(pvalues: list[float], random) -> None:
    adjusted = holm(pvalues)
    assert all(p <= q <= 1 for p, q in zip(pvalues, adjusted, strict=True))
    ranked = [q for _, q in sorted(zip(pvalues, adjusted, strict=True))]
    assert ranked == sorted(ranked)  # a smaller p is never adjusted to a larger one
    if pvalues:
        assert min(adjusted) == min(1.0, len(pvalues) * min(pvalues))
    order = list(range(len(pvalues)))
    random.shuffle(order)
    assert holm([pvalues[i] for i in order]) == [adjusted[i] for i in order]
