"""Stage `score`: saved rows -> `results.csv` and `comparisons.csv`, without a model."""

from __future__ import annotations

import shutil
from pathlib import Path

from eval.capability import SkillRow, values
from eval.score import Row
from eval.tables import COMPARISON_COLUMNS, RESULT_COLUMNS, comparisons, results, write_csv
from pipeline.places import reference_of
from pipeline.run import Run
from ske.io import read_rows


def run(run: Run, folder: Path) -> None:
    """Score, and put both tables into the run folder as well."""
    rows = [Row(**row) for row in read_rows(run.stage("ask") / "rows.jsonl")]
    beside = values(SkillRow(**row) for row in read_rows(run.stage("ask") / "capability.jsonl"))
    table = results(rows, beside=beside)
    against = comparisons(rows, reference_of(run.config), beside)
    write_csv(folder / "results.csv", RESULT_COLUMNS, table)
    write_csv(folder / "comparisons.csv", COMPARISON_COLUMNS, against)
    for name in ("results.csv", "comparisons.csv"):
        shutil.copyfile(folder / name, run.folder / name)
