"""Stage `score`: saved rows -> `results.csv` and `comparisons.csv`, without a model.

`leakage.csv` counts what every method used that is near to a probe; a sequential run also has
`retention.csv` and `decay.csv`.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from eval.retention import (
    DECAY_COLUMNS,
    RETENTION_COLUMNS,
    RetentionRow,
    decay,
    matrix,
    scored,
)
from eval.score import ALL, Row, matches
from eval.stats import bootstrap_seeds
from eval.tables import COMPARISON_COLUMNS, RESULT_COLUMNS, comparisons, results, shown, write_csv
from pipeline.leaks import LEAKAGE_COLUMNS, leak_rows
from pipeline.places import reference_of, run_leaks
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
    _score_retention(run, folder)
    _score_leakage(run, folder, rows[0].dataset if rows else "")


def _score_retention(run: Run, folder: Path) -> None:
    """`retention.csv` and `decay.csv` of a sequential run; another run has none."""
    tables = {"retention.csv": (RETENTION_COLUMNS, matrix), "decay.csv": (DECAY_COLUMNS, decay)}
    path = run.stage("ask") / "retention.jsonl"
    values = scored(RetentionRow(**row) for row in read_rows(path)) if path.exists() else None
    for name, (columns, table) in tables.items():
        if values is None:
            for place in (folder, run.folder):
                (place / name).unlink(missing_ok=True)
        else:
            write_csv(folder / name, columns, table(values))
            shutil.copyfile(folder / name, run.folder / name)


def _score_leakage(run: Run, folder: Path, dataset: str) -> None:
    """`leakage.csv`: what every method used that is near to a probe."""
    write_csv(
        folder / "leakage.csv", LEAKAGE_COLUMNS, leak_rows(run_leaks(run), dataset, run.config.seed)
    )
    shutil.copyfile(folder / "leakage.csv", run.folder / "leakage.csv")


def capability(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Result rows of the unrelated skills: percent right, by skill and over all questions.

    A block per seed, and one `all` over the seeds of a method that has several; every seed is
    asked the same questions in the same order, so a question is a case.
    """
    right: dict[tuple[str, str], dict[tuple[str, int], dict[int, float]]] = {}
    for row in rows:
        own = right.setdefault((row["method"], row["dataset"]), {})
        asked = own.setdefault((row["skill"], row["seed"]), {})
        asked[len(asked)] = 100.0 * matches(row["text"], row["answer"], row["prompt"])
    table = []
    for (method, dataset), own in right.items():
        seeds = sorted({seed for _, seed in own})
        for block in [*seeds, *([ALL] if len(seeds) > 1 else [])]:
            for category in [ALL, *dict.fromkeys(skill for skill, _ in own)]:
                values = {
                    ((skill, number), seed): value
                    for (skill, seed), asked in own.items()
                    if category in (ALL, skill) and block in (ALL, seed)
                    for number, value in asked.items()
                }
                if values:
                    told = {"dataset": dataset, "protocol": "generate", "metric": "capability"}
                    told |= {"method": method, "category": category, "seed": block}
                    table.append(told | shown(bootstrap_seeds(values)))
    return table
