"""A method's portability as a share of a ceiling's, against numbers worked out by hand."""

import pytest

from eval.ratios import share, share_over_seeds, shares
from eval.score import CaseKey


def by_case(*values: float) -> dict[str, float]:
    return {f"c{number}": value for number, value in enumerate(values)}


def test_a_share_is_a_ratio_of_means_over_common_cases() -> None:
    found = share(by_case(100, 50, 0, 50), by_case(100, 100, 50))
    assert found is not None
    assert (found.mean, found.n) == (60, 3)  # 150 of 250
    assert found.low < 60 < found.high


def test_cases_without_a_ceiling_are_no_division_by_nothing() -> None:
    found = share(by_case(50, 50), by_case(0, 100))
    assert found is not None and found.mean == 100
    assert share(by_case(50, 50), by_case(0, 0)) is None
    assert share(by_case(50), {"other": 100}) is None


def test_a_method_may_pass_its_ceiling() -> None:
    found = share(by_case(*[100] * 20), by_case(*[50] * 20))
    assert found is not None and found.mean == 200 and found.low > 150


def test_agreement_of_few_cases_is_no_certainty_and_of_many_nearly() -> None:
    few, many = (share(by_case(*[100] * n), by_case(*[100] * n)) for n in (4, 400))
    assert few is not None and many is not None
    assert few.mean == many.mean == 100
    assert few.low < 90 and few.high > 110
    assert 98 < many.low < 100 < many.high < 102
    nothing = share(by_case(*[0] * 10), by_case(*[100] * 10))
    assert nothing is not None and (nothing.mean, nothing.low >= 0) == (0, True)
    assert 5 < nothing.high < 30  # of 0 of 10 Jeffreys' interval says 22 at most


def test_pairing_narrows_what_differs_between_cases() -> None:
    ceiling = by_case(*[100, 20] * 30)
    half = share(by_case(*[50, 10] * 30), ceiling)
    turned = share(by_case(*[10, 50] * 30), ceiling)
    assert half is not None and turned is not None
    assert half.mean == turned.mean == 50
    assert half.high - half.low < 0.3 * (turned.high - turned.low)


def test_one_case_says_little_and_the_interval_repeats() -> None:
    one = share(by_case(50), by_case(100))
    assert one is not None and (one.mean, one.n) == (50, 1)
    assert one.low < 15 and one.high > 90
    a, b = by_case(100, 0, 50), by_case(100, 100, 50)
    assert share(a, b) == share(dict(reversed(a.items())), b)


def key(method: str, case: str, **changes: object) -> CaseKey:
    found = CaseKey(method, "world", "generate", "portability", "all", case, 0)
    return found._replace(**changes)


def test_shares_are_of_the_ceilings_that_a_run_has() -> None:
    values = {
        key("ske", "c0"): 80.0,
        key("ske", "c1"): 40.0,
        key("prompt", "c0"): 100.0,
        key("prompt", "c1"): 50.0,
        key("ske", "c0", category="Reasoning"): 0.0,
        key("ske", "c0", metric="locality"): 0.0,
        key("ske", "c0", protocol="teacher_forced"): 10.0,
    }
    found = shares(values)
    assert {(k[0], k[2], k[3]): v.mean for k, v in found.items()} == {
        ("ske", "generate", "prompt"): pytest.approx(80)
    }
    values[key("retrieval", "c0")] = 40.0
    found = {(k[0], k[3]): v.mean for k, v in shares(values).items()}
    assert found["ske", "retrieval"] == 200 and found["retrieval", "prompt"] == 40


def test_other_seeds_are_another_reason_for_doubt() -> None:
    """The same cases again and again make nothing surer; seeds that differ make it less sure."""
    right = [100.0, 0.0] * 20
    ceiling = {(f"c{i}", s): 100.0 for i in range(40) for s in range(5)}
    again = {(f"c{i}", s): right[i] for i in range(40) for s in range(5)}
    one = share(by_case(*right), by_case(*[100.0] * 40))
    same = share_over_seeds(again, ceiling)
    apart = share_over_seeds({(c, s): 100.0 * (s % 2) for c, s in again}, ceiling)
    assert one and same and apart
    assert same.mean == one.mean == 50 and same.n == 40
    assert same.low <= one.low and same.high >= one.high
    assert apart.mean == 40 and apart.high - apart.low > 1.5 * (one.high - one.low)
    alone = {key: value for key, value in again.items() if key[1] == 0}
    assert share_over_seeds(alone, ceiling) == one
    assert share_over_seeds(again, {}) is None
