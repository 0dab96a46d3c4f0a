"""Intervals and tests against numbers worked out by hand and against scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from eval.stats import bootstrap_mean, bootstrap_seeds, by_case, holm, paired

PERCENT = st.floats(0, 100)


def by_seed(values, seed: int = 0) -> dict[tuple[int, int], float]:
    return {(case, seed): value for case, value in enumerate(values)}


def test_bootstrap_of_a_half() -> None:
    # Means of 100 fair coins have a standard deviation of 5 points: 50 +- 1.96 * 5.
    found = bootstrap_mean([0.0, 100.0] * 50)
    assert (found.mean, found.n) == (50, 100)
    assert found.low == pytest.approx(40.2, abs=1.5)
    assert found.high == pytest.approx(59.8, abs=1.5)


def test_bootstrap_is_deterministic_and_the_seed_matters() -> None:
    values = [0.0, 30.0, 60.0, 100.0, 25.0, 80.0]
    assert bootstrap_mean(values) == bootstrap_mean(values)
    assert bootstrap_mean(values)[1:3] != bootstrap_mean(values, seed=1)[1:3]


def test_a_higher_level_is_wider() -> None:
    values = [0.0, 30.0, 60.0, 100.0, 25.0, 80.0]
    narrow, wide = bootstrap_mean(values, level=80), bootstrap_mean(values, level=99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_one_case_says_next_to_nothing() -> None:
    assert bootstrap_mean([40.0]) == pytest.approx((40, 40 - 0.975 * 40, 40 + 0.975 * 60, 1))
    seeds = bootstrap_seeds({("a", 0): 100.0, ("a", 1): 0.0})
    assert seeds == pytest.approx((50, 50 - 0.975 * 50, 50 + 0.975 * 50, 1))
    found = paired({("a", 0): 100.0}, {("a", 0): 0.0})
    assert (found.low, found.high) == pytest.approx((100 - 0.975 * 200, 100))
    assert bootstrap_mean([40.0], bounds=None) == (40, 40, 40, 1)


@pytest.mark.parametrize("n", [1, 2, 10, 100])
def test_all_right_and_all_wrong_get_the_binomial_interval(n: int) -> None:
    right, wrong = binomtest(n, n).proportion_ci(), binomtest(0, n).proportion_ci()
    found = bootstrap_mean([100.0] * n)
    assert (found.mean, found.high) == (100, 100)
    assert found.low == pytest.approx(100 * right.low)
    found = bootstrap_mean([0.0] * n)
    assert (found.mean, found.low) == (0, 0)
    assert found.high == pytest.approx(100 * wrong.high)


def test_equal_values_between_the_bounds_reach_to_both_sides() -> None:
    # n = 2: q = 1 - sqrt(0.025) = 0.84189; 40 - q * 40 and 40 + q * 60.
    found = bootstrap_mean([40.0, 40.0])
    assert found.low == pytest.approx(6.3246, abs=1e-3)
    assert found.high == pytest.approx(90.5132, abs=1e-3)


def test_values_without_bounds() -> None:
    assert bootstrap_mean([610.0, 610.0], bounds=None) == (610, 610, 610, 2)
    with pytest.raises(ValueError, match=r"610\.0"):
        bootstrap_mean([610.0, 610.0])


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([], {}, "at least one case"),
        ([float("nan")], {}, "nan"),
        ([-1.0], {}, r"-1\.0"),
        ([1.0], {"level": 0}, "level.*0"),
        ([1.0], {"n_resamples": 0}, "at least 1, got 0"),
    ],
)
def test_bad_input_is_quoted(values, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap_mean(values, **options)


@settings(max_examples=50, deadline=None)
@given(st.lists(PERCENT, min_size=1, max_size=20))
def test_an_interval_stays_in_bounds_and_holds_its_mean(values: list[float]) -> None:
    found = bootstrap_mean(values, n_resamples=200, level=99)
    assert -1e-6 <= found.low <= found.high <= 100 + 1e-6
    assert found.n == len(values)
    if np.ptp(values) == 0:
        assert found.low - 1e-6 <= found.mean <= found.high + 1e-6


def test_by_case_averages_seeds() -> None:
    assert by_case({("a", 0): 100.0, ("a", 1): 50.0, ("b", 0): 10.0}) == {"a": 75, "b": 10}


def test_paired_is_exact_for_few_cases() -> None:
    # Differences 10, 20, 30: of the 8 sign patterns only +++ and --- reach a sum of 60.
    found = paired(by_seed([60.0, 70.0, 80.0]), by_seed([50.0, 50.0, 50.0]))
    assert (found.diff, found.p, found.n) == (20, 0.25, 3)
    # Three cases say little: half a case more at -30 and one at 30 already reach below 0.
    assert -30 < found.low < 10 < 20 < found.high <= 30


def test_paired_two_sided_p_counts_ties() -> None:
    # 10, 10, -10: the sum 10 is reached by every one of the 8 patterns (sums +-10, +-30).
    found = paired(by_seed([60.0, 60.0, 40.0]), by_seed([50.0, 50.0, 50.0]))
    assert found.p == 1
    assert found.diff == pytest.approx(10 / 3)


def test_cases_without_a_difference_do_not_change_p() -> None:
    # 5 of 30 cases differ, all upwards: 2 of 32 patterns.
    a = by_seed([100.0] * 5 + [50.0] * 25)
    assert paired(a, by_seed([0.0] * 5 + [50.0] * 25)).p == 2 / 32


def test_paired_samples_flips_for_many_cases() -> None:
    # 20 equal differences: only 2 of 2**20 patterns reach the sum, so no sampled flip does.
    found = paired(by_seed([90.0] * 20), by_seed([0.0] * 20))
    assert (found.p, found.test) == (1 / 10_001, "sign-flip")
    # q = 1 - 0.025 ** (1 / 20) of the cases may differ, at worst by 190 points less or 10 more.
    share = 1 - 0.025**0.05
    assert (found.low, found.high) == pytest.approx((90 - 190 * share, 90 + 10 * share))


def test_paired_agrees_with_the_binomial_on_signs() -> None:
    # 15 up and 5 down by the same amount: the sign test's p is 0.0414.
    found = paired(by_seed([60.0] * 15 + [40.0] * 5), by_seed([50.0] * 20))
    assert found.p == pytest.approx(binomtest(15, 20).pvalue, abs=0.008)
    assert found == paired(by_seed([60.0] * 15 + [40.0] * 5), by_seed([50.0] * 20))


def test_no_difference_is_no_certainty() -> None:
    found = paired(by_seed([50.0] * 10), by_seed([50.0] * 10))
    assert (found.diff, found.p) == (0, 1)
    assert found.low == pytest.approx(-found.high)
    assert found.high == pytest.approx(100 * (1 - 0.025**0.1))


def test_paired_keeps_the_seeds_of_a_case_together() -> None:
    a = {("x", 0): 100.0, ("x", 1): 80.0, ("y", 0): 50.0, ("only a", 0): 0.0}
    b = {("x", 0): 50.0, ("x", 1): 50.0, ("y", 0): 50.0, ("y", 1): 0.0}
    found = paired(a, b)
    # x: (50 + 30) / 2 = 40; y: 0, only seed 0 is common.
    assert (found.diff, found.n) == (20, 2)
    assert found.p == 1  # one difference, two patterns, both reach it


def test_repeating_a_case_under_more_seeds_does_not_narrow_the_interval() -> None:
    once = by_seed([100.0, 0.0, 60.0, 20.0, 90.0])
    often = once | by_seed(once.values(), 1) | by_seed(once.values(), 2)
    zero = dict.fromkeys(often, 0.0)
    alone, repeated = paired(once, zero), paired(often, zero)
    assert repeated.diff == alone.diff
    assert repeated.low <= alone.low
    assert repeated.high >= alone.high
    assert repeated.p >= alone.p


def test_paired_needs_something_in_common() -> None:
    with pytest.raises(ValueError, match=r"no \(case, seed\) in common.*'x'"):
        paired({("x", 0): 1.0}, {("x", 1): 1.0})
    with pytest.raises(ValueError, match=r"101\.0"):
        paired({("x", 0): 101.0}, {("x", 0): 1.0})


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(PERCENT, PERCENT), min_size=1, max_size=15))
def test_swapping_sides_flips_the_sign_and_keeps_p(pairs) -> None:
    a, b = by_seed([x for x, _ in pairs]), by_seed([y for _, y in pairs])
    there, back = paired(a, b, 100, 200), paired(b, a, 100, 200)
    assert there.diff == -back.diff
    assert there.p == back.p
    assert 0 < there.p <= 1


def test_holm_by_hand() -> None:
    # Sorted .01 .02 .03 .04: times 4, 3, 2, 1 gives .04 .06 .06 .04, made monotone.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([]) == []
    with pytest.raises(ValueError, match=r"1\.5"):
        holm([0.5, 1.5])
