"""Stage `score`: saved rows -> `results.csv` and `comparisons.csv`, without a model.

`graded.csv` has what is no percentage (nats, perplexities, bits), in the columns of `results.csv`.
`leakage.csv` counts what every method used that is near to a probe; a sequential run also has
`retention.csv` and `decay.csv`. In the stage's folder alone: `shares.csv`, portability in percent
of a ceiling's, and `changes.csv`, skills and tasks before and after each edit.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from eval.capability import CHANGE_COLUMNS, changes
from eval.ratios import share_rows
from eval.retention import DECAY_COLUMNS, RETENTION_COLUMNS, RetentionRow, decay, matrix, scored
from eval.score import per_case
from eval.tables import COMPARISON_COLUMNS, RESULT_COLUMNS, comparisons, results, write_csv, written
from pipeline.checking import asked
from pipeline.leaks import LEAKAGE_COLUMNS, leak_rows
from pipeline.places import reference_of, run_leaks
from pipeline.run import Run

SHARES = "shares.csv"
CHANGES = "changes.csv"
TABLES = (
    "results.csv",
    "graded.csv",
    "comparisons.csv",
    "leakage.csv",
    "retention.csv",
    "decay.csv",
)
"""What lies in the run folder as well; the last two of a sequential run alone."""


def run(run: Run, folder: Path) -> list[Path]:
    """Score, and put the tables into the run folder as well; gives back those that lie there."""
    found = asked(run)
    rows, beside = found.rows, found.beside.values
    table = results(rows, beside=beside)
    against = comparisons(rows, reference_of(run.config), beside)
    write_csv(folder / SHARES, RESULT_COLUMNS, share_rows(per_case(rows)))
    write_csv(folder / CHANGES, CHANGE_COLUMNS, changes(beside))
    percent, graded = written(table)
    write_csv(folder / "results.csv", RESULT_COLUMNS, percent)
    write_csv(folder / "graded.csv", RESULT_COLUMNS, graded)
    write_csv(folder / "comparisons.csv", COMPARISON_COLUMNS, against)
    for name in TABLES[:3]:
        shutil.copyfile(folder / name, run.folder / name)
    _score_retention(run, folder, found.retention)
    _score_leakage(run, folder, rows[0].dataset)
    return [run.folder / name for name in TABLES if (run.folder / name).exists()]


def _score_retention(run: Run, folder: Path, rows: Sequence[RetentionRow]) -> None:
    """`retention.csv` and `decay.csv` of a sequential run; another run has none."""
    tables = {"retention.csv": (RETENTION_COLUMNS, matrix), "decay.csv": (DECAY_COLUMNS, decay)}
    kept = scored(rows)
    for name, (columns, table) in tables.items():
        if kept:
            write_csv(folder / name, columns, table(kept))
            shutil.copyfile(folder / name, run.folder / name)
        else:
            for place in (folder, run.folder):
                (place / name).unlink(missing_ok=True)


def _score_leakage(run: Run, folder: Path, dataset: str) -> None:
    """`leakage.csv`: what every method used that is near to a probe."""
    write_csv(
        folder / "leakage.csv", LEAKAGE_COLUMNS, leak_rows(run_leaks(run), dataset, run.config.seed)
    )
    shutil.copyfile(folder / "leakage.csv", run.folder / "leakage.csv")
