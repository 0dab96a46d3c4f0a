"""Tables against numbers worked out by hand."""

import csv
from pathlib import Path
from typing import Any

import pytest

from eval.score import Row, count_errors
from eval.tables import (
    COMPARISON_COLUMNS,
    RESULT_COLUMNS,
    comparisons,
    markdown,
    results,
    write_csv,
)


def row(method: str, case: str, right: bool, **changes) -> Row:
    fields = {
        "method": method,
        "dataset": "world",
        "case": case,
        "metric": "edit_success",
        "probe": 0,
        "prompt": "The mother of X is",
        "protocol": "generate",
        "seed": 0,
        "answers": (("Ada",),),
        "text": "Ada" if right else "Eve",
        "base_text": "Ada",
    }
    return Row(**(fields | changes))


def cases(method: str, pattern: str, **changes) -> list[Row]:
    return [row(method, f"c{i}", mark == "1", **changes) for i, mark in enumerate(pattern)]


def lines(table, *columns: str) -> list[tuple]:
    return [tuple(line[column] for column in columns) for line in table]


def test_results_by_hand() -> None:
    rows = [
        *cases("lora", "1101"),
        row("lora", "c0", True, metric="locality", category="Forgetfulness", answers=()),
        row("lora", "c0", False, metric="locality", category="Relation_Specificity", answers=()),
        row("lora", "c1", True, metric="locality", category="Forgetfulness", answers=()),
    ]
    table = results(rows)
    assert all(tuple(line) == RESULT_COLUMNS for line in table)
    assert lines(table, "method", "metric", "category", "n", "mean", "seed") == [
        ("lora", "edit_success", "all", 4, 75, 0),
        ("lora", "locality", "all", 2, 75, 0),  # (50 + 100) / 2
        ("lora", "locality", "Forgetfulness", 2, 100, 0),
        ("lora", "locality", "Relation_Specificity", 1, 0, 0),
    ]
    # Two of two right: Clopper-Pearson's lower bound is sqrt(0.025).
    assert (table[2]["ci_low"], table[2]["ci_high"]) == (15.8114, 100)
    assert table[0]["ci_low"] < 75 < table[0]["ci_high"]


def test_results_are_in_a_fixed_order_with_a_block_per_seed_and_one_for_all() -> None:
    rows = [
        *cases("ske", "11", seed=3),
        *cases("ske", "10", seed=1),
        *cases("base", "00", seed=1),
        *cases("ske", "11", seed=1, protocol="teacher_forced", hits=(1,)),
    ]
    found = lines(results(rows), "seed", "method", "protocol", "n", "mean")
    assert found == [
        (1, "ske", "teacher_forced", 2, 100),
        (1, "ske", "generate", 2, 50),
        (1, "base", "generate", 2, 0),
        (3, "ske", "generate", 2, 100),
        ("all", "ske", "teacher_forced", 2, 100),
        ("all", "ske", "generate", 2, 75),  # two cases, not four
    ]


def test_a_group_of_errors_only_is_kept_without_numbers() -> None:
    [line] = results([row("ske", "c0", True, error="timeout")])
    assert (line["n"], line["mean"], line["ci_low"], line["ci_high"]) == (0, None, None, None)


def test_extra_rows_are_appended_in_the_same_columns() -> None:
    values = ("ske", "world", "generate", "fluency", "all", 5, 612.345678, 600.0, 620.0, 0)
    extra: dict[str, Any] = dict(zip(RESULT_COLUMNS, values, strict=True))
    table = results(cases("ske", "1"), [extra])
    assert (table[-1]["metric"], table[-1]["mean"]) == ("fluency", 612.3457)
    with pytest.raises(ValueError, match="colour"):
        results([], [extra | {"colour": 1}])


def test_comparisons_by_hand() -> None:
    rows = [*cases("lora", "1000"), *cases("rome", "11000"), *cases("ske", "1111")]
    table = comparisons(rows)
    assert all(tuple(line) == COMPARISON_COLUMNS for line in table)
    assert lines(table, "method_a", "method_b", "n", "diff", "p") == [
        ("ske", "lora", 4, 75, 0.25),  # three differences of 100: 2 of 8 sign patterns
        ("ske", "rome", 4, 50, 0.5),
        ("lora", "rome", 4, -25, 1),
    ]
    assert comparisons(rows, reference="rome")[0]["method_a"] == "rome"


def test_holm_goes_over_the_methods_of_one_metric() -> None:
    rows = [*cases("lora", "100000"), *cases("rome", "111100"), *cases("ske", "111111")]
    rows += cases("rome", "000000", metric="paraphrase")
    rows += cases("ske", "111111", metric="paraphrase")
    found = lines(comparisons(rows), "metric", "method_a", "method_b", "p", "p_holm", "test")
    # ske alone above: 5 of 5 cases and 2 of 2, so p is 2 / 32 and 2 / 4; lora against rome is a
    # question of its own, and so is the other metric.
    assert found == [
        ("edit_success", "ske", "lora", 0.0625, 0.125, "mcnemar"),
        ("edit_success", "ske", "rome", 0.5, 0.5, "mcnemar"),
        ("edit_success", "lora", "rome", 0.25, 0.25, "mcnemar"),
        ("paraphrase", "ske", "rome", 0.03125, 0.03125, "mcnemar"),
    ]


def test_an_exact_p_is_never_rounded_to_nothing() -> None:
    [line] = comparisons([*cases("ske", "1" * 64), *cases("lora", "0" * 64)])
    assert line["p"] == pytest.approx(2 * 0.5**64, rel=1e-3)


def test_comparisons_keep_metrics_protocols_and_data_sets_apart() -> None:
    rows = [
        *cases("ske", "11"),
        *cases("ske", "1", dataset="other"),
        *cases("lora", "01"),
        *cases("lora", "1", dataset="other"),
        *cases("ske", "1", protocol="teacher_forced", hits=(1, 1)),
        *cases("lora", "1", protocol="teacher_forced", hits=(0, 1)),
        *cases("ske", "1", metric="locality", category="Forgetfulness"),
    ]
    found = lines(comparisons(rows), "protocol", "metric", "n", "diff")
    # "world" c0 and "other" c0 are two cases; locality has no pair.
    assert found == [
        ("teacher_forced", "edit_success", 1, 50),
        ("generate", "edit_success", 3, pytest.approx(33.3333)),
    ]


def test_nothing_gives_empty_tables() -> None:
    assert results([]) == []
    assert comparisons([]) == []
    assert markdown([]) == ""


def test_write_csv_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    table = results([*cases("ske", "10"), row("lora", "c0", True, error="x")])
    write_csv(path, RESULT_COLUMNS, table)
    text = path.read_text(encoding="utf-8")
    assert text.splitlines()[0] == (
        "method,dataset,protocol,metric,category,n,mean,ci_low,ci_high,seed"
    )
    read = list(csv.DictReader(text.splitlines()))
    assert [(line["mean"], line["seed"]) for line in read] == [("50.0", "0"), ("", "0")]
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.csv"]


@pytest.mark.parametrize("bad", [{"a": 1}, {"a": 1, "b": 2, "c": 3}])
def test_a_failed_write_leaves_the_old_file(tmp_path: Path, bad) -> None:
    path = tmp_path / "t.csv"
    path.write_text("old")
    with pytest.raises(ValueError, match=r"lacks \['b'\]|'c'"):
        write_csv(path, ("a", "b"), [{"a": 1, "b": 2}, bad])
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_markdown() -> None:
    rows = [
        *cases("base", "11", metric="locality", category="Forgetfulness"),
        *cases("lora", "0101"),
        *cases("lora", "10", metric="locality", category="Forgetfulness"),
        *cases("ske", "1111"),
        row("ske", "c4", True, error="timeout"),
    ]
    assert markdown(results(rows), count_errors(rows)) == (
        "world, generate: percent with 95 % intervals; cases (n): edit_success 4, locality 2. "
        "Error rows, in no mean: ske edit_success 1.\n"
        "\n"
        "| method | edit_success | locality |\n"
        "|---|---|---|\n"
        "| base | - | 100.0 [15.8, 100.0] |\n"
        # Jeffreys: [12.3, 87.7] of 2 of 4 and [6.1, 93.9] of 1 of 2, but for the resampling.
        "| lora | 50.0 [11.5, 88.5] | **50.0** [6.2, 93.8] |\n"
        "| ske | **100.0** [39.8, 100.0] | - |"
    )


def test_markdown_shows_pooled_seeds_and_a_table_per_protocol() -> None:
    rows = [
        *cases("ske", "11"),
        *cases("ske", "10", seed=1),
        *cases("lora", "11"),
        *cases("lora", "1", protocol="teacher_forced", hits=(0, 1)),
    ]
    text = markdown(results(rows))
    assert "| ske | 75.0 [0.0, 100.0] |" in text  # two seeds that differ say nearly nothing
    assert "| lora | **100.0** [15.8, 100.0] |" in text
    assert text.count("| method |") == 2
