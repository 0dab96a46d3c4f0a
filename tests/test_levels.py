"""Seeds above cases: variances by hand, against the analysis of variance and brute force; laws."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binomtest, norm, t

from eval.levels import components, two_level_p
from eval.stats import bootstrap_mean, bootstrap_seeds, paired

GAP = np.nan
GRADES = st.sampled_from([0.0, 25.0, 50.0, 75.0, 100.0])


def by_seed(cells) -> dict[tuple[int, int], float]:
    return {
        (case, seed): float(value)
        for case, row in enumerate(cells)
        for seed, value in enumerate(row)
        if not math.isnan(value)
    }


# --- one seed: near the ends ------------------------------------------------------------------


@pytest.mark.parametrize(("right", "n"), [(32, 64), (60, 64), (63, 64), (1, 64), (255, 256)])
def test_one_answer_a_case_gives_jeffreys_interval(right: int, n: int) -> None:
    found = bootstrap_mean([100.0] * right + [0.0] * (n - right), n_resamples=20_000)
    low, high = 100 * beta.ppf([0.025, 0.975], right + 0.5, n - right + 0.5)
    assert (found.low, found.high) == (pytest.approx(low, abs=0.4), pytest.approx(high, abs=0.4))


def test_a_rare_failure_leaves_room_for_more_of_them() -> None:
    # Resampling 63 right and one half right never gives less than about 97.
    found = bootstrap_mean([100.0] * 63 + [50.0])
    assert found.low < 96
    assert found.mean <= found.high <= 100


def test_without_bounds_the_interval_is_students() -> None:
    # Mean 610, standard deviation 10, n = 5: 610 +- 2.776 * 10 / sqrt(5) = 12.4 for an even shape.
    found = bootstrap_mean([597.35, 610.0, 610.0, 610.0, 622.65], bounds=None, n_resamples=20_000)
    deviation = math.sqrt(2 * 12.65**2 / 4)
    assert found.high - found.low == pytest.approx(
        2 * t.ppf(0.975, 4) * deviation / math.sqrt(5), rel=0.05
    )


# --- several seeds ----------------------------------------------------------------------------


def test_variance_by_hand() -> None:
    # Means of seeds 20 and 40, of cases 15 and 45, of all 30; every residual is +-5.
    # Mean squares: seeds 2 * 200 = 400, cases 2 * 450 = 900, rest 4 * 25 = 100.
    spread = components(np.array([[10.0, 20.0], [30.0, 60.0]]))
    assert spread.variance == pytest.approx((400 + 900 - 100) / 4)
    # Parts of it: 400 / 4 with one degree of freedom, (900 - 100) / 4 with one.
    assert spread.degrees == pytest.approx(300**2 / (100**2 + 200**2))
    assert spread.least == pytest.approx(100 / 4 + 200)


def test_cases_of_their_own_for_every_seed() -> None:
    # Seeds' means 10, 20, 30: variance 100 with two degrees of freedom, whatever lies inside.
    cells = np.full((6, 3), GAP)
    for seed, inside in enumerate([(0.0, 20.0), (10.0, 30.0), (30.0, 30.0)]):
        cells[2 * seed : 2 * seed + 2, seed] = inside
    spread = components(cells)
    assert spread.variance == pytest.approx(100 / 3)
    assert spread.degrees == pytest.approx(2)
    # Inside: variances 200, 200 and 0, so 400 / 3 on average, of 6 values.
    assert spread.least == pytest.approx(400 / 3 / 6)


def test_seeds_that_change_nothing_count_once() -> None:
    column = np.array([0.0, 30.0, 60.0, 100.0])
    spread = components(np.stack([column] * 5, axis=1))
    assert spread.variance == pytest.approx(column.var(ddof=1) / 4)
    assert spread.degrees == pytest.approx(3)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(2, 5), st.integers(0, 10**6))
def test_full_tables_give_the_analysis_of_variance(n: int, seeds: int, number: int) -> None:
    cells = np.random.default_rng(number).uniform(0, 100, (n, seeds))
    mean, of_seed, of_case = cells.mean(), cells.mean(axis=0), cells.mean(axis=1)
    ms_seed = n * np.sum((of_seed - mean) ** 2) / (seeds - 1)
    ms_case = seeds * np.sum((of_case - mean) ** 2) / (n - 1)
    rest = cells - of_seed - of_case[:, None] + mean
    ms_rest = np.sum(rest**2) / ((n - 1) * (seeds - 1))
    spread = components(cells)
    expected = (ms_seed + max(ms_case - ms_rest, 0)) / (n * seeds)
    if ms_case >= ms_rest:
        assert spread.variance == pytest.approx(expected)
    else:
        assert 0 <= spread.variance <= expected + ms_seed / (n * seeds)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_missing_cells_against_all_pairs(number: int) -> None:
    rng = np.random.default_rng(number)
    cells = rng.uniform(0, 100, (5, 3)) + 200 * rng.uniform(0, 1, (5, 1))
    cells[rng.random((5, 3)) < 0.25] = GAP
    cells[0], cells[1, :2] = [10.0, 20.0, 60.0], [90.0, 110.0]
    cells = cells[~np.isnan(cells).all(axis=1)]
    there = [tuple(place) for place in np.argwhere(~np.isnan(cells))]
    halves: dict[str, list[float]] = {"seed": [], "case": [], "apart": []}
    for (i, s), (j, u) in itertools.combinations(there, 2):
        kind = "seed" if s == u else "case" if i == j else "apart"
        halves[kind].append((cells[i, s] - cells[j, u]) ** 2 / 2)
    seed, case, apart = (float(np.mean(halves[kind])) for kind in ("seed", "case", "apart"))
    of_case = max(apart - case, 0.0)
    of_seed, rest = apart - seed, max(seed - of_case, 0.0)
    weight = {}
    for i, s in there:
        weight[i, s] = 1 / len(cells) / sum(1 for j, _ in there if j == i)
    cases = of_case * sum(sum(w for (i, _), w in weight.items() if i == j) ** 2 for j in range(5))
    noise = rest * sum(w**2 for w in weight.values())
    seeds = of_seed * sum(sum(w for (_, s), w in weight.items() if s == u) ** 2 for u in range(3))
    found = components(cells)
    assert found.variance == pytest.approx(max(seeds + noise, 0.0) + cases)
    assert found.least == pytest.approx(noise + cases)


def test_p_over_both_levels_by_hand() -> None:
    # The table above: mean 30, variance 300, 1.8 degrees of freedom; the floor is half of 15.
    p = two_level_p(np.array([[10.0, 20.0], [30.0, 60.0]]))
    assert p == pytest.approx(2 * t.sf(30 / math.sqrt(300), 1.8))
    assert p > 2 * norm.sf(30 / 7.5)


def test_seeds_that_disagree_are_no_certainty() -> None:
    # All 64 cases gain 10 under two seeds, lose 8 under a third: cases alone would be sure.
    gains = [[10.0, 10.0, -8.0]] * 32 + [[12.0, 12.0, -6.0]] * 32
    a = by_seed([[50 + x for x in row] for row in gains])
    found = paired(a, dict.fromkeys(a, 50.0))
    assert (found.n, found.test) == (64, "two-level")
    assert found.diff == pytest.approx(5)
    assert found.low < 0 < found.high
    assert found.p > 0.3


def test_seeds_of_equal_means_do_not_collapse_the_interval() -> None:
    # 7 of 8 right under both seeds, each with cases of its own.
    cells = np.full((16, 2), GAP)
    cells[:8, 0] = cells[8:, 1] = [100.0] * 7 + [0.0]
    found = bootstrap_seeds(by_seed(cells))
    assert (found.mean, found.n) == (87.5, 16)
    assert found.low < 80
    assert found.high > 92


def test_five_seeds_that_differ_get_students_width() -> None:
    # Every case as its seed: the mean of 5 numbers, standard deviation 15.81, t = 2.776.
    cells = [[60.0, 40.0, 50.0, 70.0, 30.0]] * 100
    found = bootstrap_seeds(by_seed(cells), n_resamples=20_000)
    half = t.ppf(0.975, 4) * math.sqrt(250 / 5)
    assert found.low == pytest.approx(50 - half, rel=0.06)
    assert found.high == pytest.approx(50 + half, rel=0.06)


def test_all_right_under_every_seed_is_judged_by_cases() -> None:
    found = bootstrap_seeds(by_seed([[100.0] * 5] * 20))
    assert (found.mean, found.high, found.n) == (100, 100, 20)
    assert found.low == pytest.approx(100 * binomtest(20, 20).proportion_ci().low)


def test_a_seed_more_is_no_narrower_if_it_says_the_same() -> None:
    column = [100.0, 0.0, 60.0, 20.0, 90.0, 100.0, 80.0, 100.0]
    one = bootstrap_seeds(by_seed([[value] for value in column]))
    three = bootstrap_seeds(by_seed([[value] * 3 for value in column]))
    assert three.mean == one.mean
    assert three.high - three.low >= one.high - one.low


def test_a_single_case_says_nothing() -> None:
    found = bootstrap_seeds({("x", 0): 100.0, ("x", 1): 50.0})
    assert found == pytest.approx((75, 75 - 0.975 * 75, 75 + 0.975 * 25, 1))


def test_one_seed_is_the_same_as_values() -> None:
    values = [0.0, 30.0, 60.0, 100.0, 25.0, 80.0]
    assert bootstrap_seeds({(f"c{i}", 7): v for i, v in enumerate(values)}) == bootstrap_mean(
        values
    )


tables = st.integers(1, 3).flatmap(
    lambda seeds: st.lists(
        st.lists(st.tuples(GRADES, GRADES), min_size=seeds, max_size=seeds),
        min_size=1,
        max_size=16,
    )
)


@settings(max_examples=60, deadline=None)
@given(tables, st.randoms(use_true_random=False))
def test_the_order_of_cases_does_not_show(table: list[list[tuple]], random: Any) -> None:
    a, b = ({k: v[side] for k, v in _tuples(table).items()} for side in (0, 1))
    keys = list(a)
    random.shuffle(keys)
    again = [{key: side[key] for key in keys} for side in (a, b)]
    assert _close(paired(a, b, 100, 100), paired(*again, 100, 100))
    assert _close(bootstrap_seeds(a, 100), bootstrap_seeds(again[0], 100))


@settings(max_examples=60, deadline=None)
@given(tables)
def test_swapping_methods_mirrors_everything(table: list[list[tuple]]) -> None:
    a, b = ({k: v[side] for k, v in _tuples(table).items()} for side in (0, 1))
    there, back = paired(a, b, 100, 100), paired(b, a, 100, 100)
    assert there.diff == pytest.approx(-back.diff, abs=1e-9)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-9)
    assert (there.p, there.n, there.test) == (pytest.approx(back.p), back.n, back.test)
    assert there.low - 1e-9 <= there.diff <= there.high + 1e-9


def _tuples(table) -> dict[tuple[int, int], tuple[float, float]]:
    return {(case, seed): both for case, row in enumerate(table) for seed, both in enumerate(row)}


def _close(a: Any, b: Any) -> bool:
    return all(
        x == y if isinstance(x, str) else x == pytest.approx(y) for x, y in zip(a, b, strict=True)
    )
