"""The tables people read, from saved rows: `results.csv`, `comparisons.csv` and Markdown.

Every number can be rebuilt without a model. Values are percentages, differences are percentage
points, but for the metrics of `further.LEAST`. Writes only where `write_csv` is told to.
"""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eval.fluency import ENTROPY, FLUENCY
from eval.further import FURTHER, LEAST, further
from eval.judge import JUDGED
from eval.levels import Bounds
from eval.score import ALL, BASE, METRICS, PROTOCOLS, CaseKey, ErrorKey, Row, per_case
from eval.sentiment import DRAWDOWN, SENTIMENT
from eval.stats import PERCENT, Interval, bootstrap_seeds, holm, paired

RESULT_COLUMNS = (
    "method",
    "dataset",
    "protocol",
    "metric",
    "category",
    "n",
    "mean",
    "ci_low",
    "ci_high",
    "seed",
)
COMPARISON_COLUMNS = (
    "method_a",
    "method_b",
    "metric",
    "protocol",
    "n",
    "diff",
    "ci_low",
    "ci_high",
    "p",
    "p_holm",
    "test",
)
HEADLINE = (*METRICS, SENTIMENT, "capability", FLUENCY)
"""What the Markdown table shows, in this order: percentages that speak for themselves."""
_BESIDE = (*JUDGED, *FURTHER, DRAWDOWN, "perplexity", ENTROPY)
_METRIC_ORDER = (*HEADLINE, *_BESIDE)
COMPARED = (*HEADLINE, *JUDGED, DRAWDOWN, "perplexity", ENTROPY, *FURTHER[:-1])
"""What methods are compared on; edits by strength of belief have no category of their own."""

TableRow = dict[str, Any]


class _Group(NamedTuple):
    seed: int | str
    dataset: str
    method: str
    protocol: str
    metric: str
    category: str


class Written(NamedTuple):
    """What becomes of result rows on disk."""

    percent: list[TableRow]
    """`results.csv`: values from 0 to 100."""
    graded: list[TableRow]
    """`graded.csv`: nats, perplexities and entropies, which nothing bounds above."""


def written(table: Sequence[TableRow]) -> Written:
    """Rows apart by unit, so that `results.csv` holds percentages alone."""
    return Written(
        [row for row in table if row["metric"] not in LEAST],
        [row for row in table if row["metric"] in LEAST],
    )


def results(
    rows: Iterable[Row],
    extra: Iterable[TableRow] = (),
    beside: Mapping[CaseKey, float] | None = None,
) -> list[TableRow]:
    """The rows of `results.csv`, in percent (see the module), rounded to 4 decimals.

    One block per seed (ascending), then a block `all` over the seeds of each method that has
    several, with seeds as a level above cases. `n` counts the cases that have a value.
    A group whose every row is an error is kept, with n 0 and empty numbers.

    Args:
        rows: The saved rows.
        extra: Rows of other metrics in the same columns, appended as given.
        beside: Values of what is no probe of a case (`eval.capability`).

    Raises:
        ValueError: If a probe occurs twice, or an extra row has other columns.
    """
    rows = list(rows)
    values = _values(rows, beside)
    groups = _grouped(rows, values)
    names = dict.fromkeys([*(row.method for row in rows), *(key.method for key in values)])
    order = {name: i for i, name in enumerate(names)}
    table = [
        _result(group, groups[group]) for group in sorted(groups, key=lambda g: _place(g, order))
    ]
    return table + [_checked_extra(row) for row in extra]


def _values(rows: Sequence[Row], beside: Mapping[CaseKey, float] | None) -> dict[CaseKey, float]:
    return per_case(rows) | further(rows) | dict(beside or {})


def _bounds(metric: str) -> Bounds | None:
    return None if metric in LEAST else PERCENT


def _grouped(
    rows: Sequence[Row], cases: Mapping[CaseKey, float]
) -> dict[_Group, dict[tuple[str, int], float]]:
    """Values by (case, seed) for each line of the table; empty where all rows were errors."""
    seeds: dict[tuple[str, str], set[int]] = {}
    for row in (*rows, *cases):
        seeds.setdefault((row.method, row.dataset), set()).add(row.seed)

    def blocks(method: str, dataset: str, seed: int) -> list[int | str]:
        return [seed, ALL] if len(seeds[method, dataset]) > 1 else [seed]

    groups: dict[_Group, dict[tuple[str, int], float]] = {}
    for row in rows:
        for block in blocks(row.method, row.dataset, row.seed):
            for category in (ALL, row.category):
                group = _Group(block, row.dataset, row.method, row.protocol, row.metric, category)
                groups.setdefault(group, {})
    for key, value in cases.items():
        for block in blocks(key.method, key.dataset, key.seed):
            group = _Group(block, key.dataset, key.method, key.protocol, key.metric, key.category)
            groups.setdefault(group, {})[key.case, key.seed] = value
    return groups


def _place(group: _Group, methods: Mapping[str, int]) -> tuple[Any, ...]:
    return (
        (1, 0) if isinstance(group.seed, str) else (0, group.seed),
        group.dataset,
        methods[group.method],
        PROTOCOLS.index(group.protocol),
        _METRIC_ORDER.index(group.metric),
        (group.category != ALL, group.category),
    )


def _result(group: _Group, values: Mapping[tuple[str, int], float]) -> TableRow:
    row: TableRow = dict.fromkeys(RESULT_COLUMNS)
    row.update(group._asdict())
    row["n"] = 0
    if values:
        found = bootstrap_seeds(values, bounds=_bounds(group.metric))
        # Student's t knows no bound; a value below it cannot be.
        least = LEAST.get(group.metric, found.low)
        row.update(shown(found._replace(low=max(found.low, least))))
    return row


def shown(interval: Interval) -> TableRow:
    """The columns n, mean, ci_low and ci_high of an interval, rounded to 4 decimals."""
    mean, low, high = (round(value, 4) for value in interval[:3])
    return {"n": interval.n, "mean": mean, "ci_low": low, "ci_high": high}


def _checked_extra(row: TableRow) -> TableRow:
    if set(row) != set(RESULT_COLUMNS):
        raise ValueError(f"an extra row needs the columns {RESULT_COLUMNS!r}, got {list(row)!r}")
    rounded = {key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()}
    return {column: rounded[column] for column in RESULT_COLUMNS}


def comparisons(
    rows: Iterable[Row],
    reference: str = "ske",
    beside: Mapping[CaseKey, float] | None = None,
) -> list[TableRow]:
    """The rows of `comparisons.csv`: a - b in percentage points, over the cases both have.

    Category `all`; seeds as a level above cases, cases of several data sets side by side. By
    protocol and metric, first every pair with the reference as `method_a`, then the others in
    order of first appearance. Pairs without a common case are absent.

    `test` names what gave p (see `stats.paired`). p_holm is Holm's correction over methods, within
    one metric and protocol: the pairs with the reference are one family, what the table is made to
    answer; all other pairs are the other family.

    Raises:
        ValueError: If a probe occurs twice.
    """
    rows = list(rows)
    found = _values(rows, beside)
    methods = list(dict.fromkeys(one.method for one in (*rows, *found)))
    methods.sort(key=lambda name: name != reference)
    values: dict[tuple[str, str, str], dict[tuple[tuple[str, str], int], float]] = {}
    for key, value in found.items():
        if key.category == ALL:
            of_method = values.setdefault((key.protocol, key.metric, key.method), {})
            of_method[_cluster(key)] = value
    table: list[TableRow] = []
    for protocol, metric in itertools.product(PROTOCOLS, COMPARED):
        own: list[TableRow] = []
        for a, b in itertools.combinations(methods, 2):
            of_a = values.get((protocol, metric, a), {})
            of_b = values.get((protocol, metric, b), {})
            if of_a.keys() & of_b.keys():
                own.append(_comparison((a, b, metric, protocol), of_a, of_b))
        table += _corrected(own, reference)
    return table


def _corrected(table: Sequence[TableRow], reference: str) -> list[TableRow]:
    """The lines of one metric and protocol, with p_holm; they come family by family."""
    told = [row for row in table if row["method_a"] == reference]
    families = (told, table[len(told) :])  # the reference's pairs come first
    return [
        row | {"p": significant(row["p"]), "p_holm": significant(p)}
        for family in families
        for row, p in zip(family, holm([row["p"] for row in family]), strict=True)
    ]


def significant(p: float) -> float:
    """Four digits that count: an exact p of 1e-20 is not 0, and 1 / 10,001 is not 1e-4."""
    return float(f"{p:.4g}")


def _cluster(key: CaseKey) -> tuple[tuple[str, str], int]:
    return (key.dataset, key.case), key.seed


def _comparison(
    names: tuple[str, str, str, str],
    of_a: Mapping[tuple[tuple[str, str], int], float],
    of_b: Mapping[tuple[tuple[str, str], int], float],
) -> TableRow:
    found = paired(of_a, of_b, bounds=_bounds(names[2]))
    numbers = (found.n, *(round(x, 4) for x in (found.diff, found.low, found.high)))
    # p_holm is filled in once the whole family is known.
    return dict(zip(COMPARISON_COLUMNS, (*names, *numbers, found.p, None, found.test), strict=True))


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV file whole or not at all (temporary file beside it, then rename).

    Raises:
        ValueError: If a row has other keys than the columns; the file is then as it was.
        OSError: If the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            for row in rows:
                if missing := set(columns) - set(row):
                    raise ValueError(f"row {dict(row)!r} lacks {sorted(missing)!r}")
                writer.writerow(row)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105  (the atomic one, by name)
    finally:
        temporary.unlink(missing_ok=True)


def markdown(table: Sequence[TableRow], errors: Mapping[ErrorKey, int] | None = None) -> str:
    """Rows of `results` as Markdown: one table per data set and protocol, method by metric.

    Cells are "mean [low, high]" in percent; the best value of a column apart from the base's is
    bold (ties too, as printed). Category `all`; pooled seeds where there are several. Metrics of
    other units and finer grain are in `results` alone.

    Args:
        table: What `results` gave.
        errors: What `score.count_errors` gave; named under the table.
    """
    chosen: dict[tuple[str, str], list[TableRow]] = {}
    whose = ("method", "dataset", "protocol", "metric")
    pooled = {tuple(row[key] for key in whose) for row in table if row["seed"] == ALL}
    for row in table:
        one_seed = row["seed"] != ALL and tuple(row[key] for key in whose) in pooled
        if row["category"] == ALL and not one_seed and row["metric"] not in _BESIDE:
            chosen.setdefault((row["dataset"], row["protocol"]), []).append(row)
    methods = list(dict.fromkeys(row["method"] for row in table))
    parts = [
        _markdown_one(dataset, protocol, rows, methods, errors or {})
        for (dataset, protocol), rows in chosen.items()
    ]
    return "\n\n".join(parts)


def _markdown_one(
    dataset: str,
    protocol: str,
    rows: Sequence[TableRow],
    methods: Sequence[str],
    errors: Mapping[ErrorKey, int],
) -> str:
    cells = {(row["method"], row["metric"]): row for row in rows}
    present = {row["metric"] for row in rows}
    metrics = [name for name in HEADLINE if name in present]
    metrics += sorted(present - set(metrics))
    best = {metric: _best(rows, metric) for metric in metrics}
    lines = ["| method | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 1) + "|"]
    for method in methods:
        found = [cells.get((method, metric)) for metric in metrics]
        if any(found):
            shown = [_cell(row, best) for row in found]
            lines.append("| " + " | ".join([method.replace("|", "\\|"), *shown]) + " |")
    counts = ", ".join(f"{metric} {_spread(rows, metric)}" for metric in metrics)
    caption = f"{dataset}, {protocol}: percent with 95 % intervals; cases (n): {counts}."
    failed = [
        f"{key.method} {key.metric} {count}"
        for key, count in errors.items()
        if (key.dataset, key.protocol) == (dataset, protocol)
    ]
    if failed:
        caption += f" Error rows, in no mean: {', '.join(failed)}."
    return "\n".join([caption, "", *lines])


def _best(rows: Sequence[TableRow], metric: str) -> str | None:
    means = [
        row["mean"]
        for row in rows
        if row["metric"] == metric != FLUENCY and row["method"] != BASE and row["mean"] is not None
    ]
    return f"{max(means):.1f}" if means else None


def _cell(row: TableRow | None, best: Mapping[str, str | None]) -> str:
    if row is None or row["mean"] is None:
        return "-"
    shown = f"{row['mean']:.1f}"
    wins = shown == best[row["metric"]] and row["method"] != BASE
    shown = f"**{shown}**" if wins else shown
    if row["ci_low"] is None or row["ci_high"] is None:
        return shown
    return f"{shown} [{row['ci_low']:.1f}, {row['ci_high']:.1f}]"


def _spread(rows: Sequence[TableRow], metric: str) -> str:
    counts = sorted({row["n"] for row in rows if row["metric"] == metric})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"
