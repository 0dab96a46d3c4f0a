"""Stage `score`: saved rows -> `results.csv` and `comparisons.csv`, without a model."""

from __future__ import annotations

import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

from eval.score import Row, matches
from eval.stats import bootstrap_mean
from eval.tables import COMPARISON_COLUMNS, RESULT_COLUMNS, comparisons, results, write_csv
from pipeline.places import reference_of
from pipeline.run import Run
from ske.io import read_rows


def run(run: Run, folder: Path) -> None:
    """Score, and put both tables into the run folder as well."""
    rows = [Row(**row) for row in read_rows(run.stage("ask") / "rows.jsonl")]
    extra = capability(read_rows(run.stage("ask") / "capability.jsonl"))
    write_csv(folder / "results.csv", RESULT_COLUMNS, results(rows, extra))
    write_csv(
        folder / "comparisons.csv", COMPARISON_COLUMNS, comparisons(rows, reference_of(run.config))
    )
    for name in ("results.csv", "comparisons.csv"):
        shutil.copyfile(folder / name, run.folder / name)


def capability(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Result rows of the unrelated skills: percent right, by skill and over all questions."""
    values: dict[tuple[str, str, int, str], list[float]] = defaultdict(list)
    for row in rows:
        right = 100.0 * matches(row["text"], row["answer"], row["prompt"])
        for category in ("all", row["skill"]):
            values[row["method"], row["dataset"], row["seed"], category].append(right)
    table = []
    for (method, dataset, seed, category), own in values.items():
        interval = bootstrap_mean(own)
        table.append(
            {
                "method": method,
                "dataset": dataset,
                "protocol": "generate",
                "metric": "capability",
                "category": category,
                "n": interval.n,
                "mean": round(interval.mean, 4),
                "ci_low": round(interval.low, 4),
                "ci_high": round(interval.high, 4),
                "seed": seed,
            }
        )
    return table
