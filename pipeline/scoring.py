"""Stage `score`: saved rows -> `results.csv` and `comparisons.csv`, without a model.

Beside them, in the stage's folder alone, `shares.csv`: portability in percent of a ceiling's.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from eval.capability import values
from eval.ratios import share_rows
from eval.score import per_case
from eval.tables import COMPARISON_COLUMNS, RESULT_COLUMNS, comparisons, results, write_csv
from pipeline.checking import asked
from pipeline.places import reference_of
from pipeline.run import Run

SHARES = "shares.csv"


def run(run: Run, folder: Path) -> None:
    """Score, and put both tables into the run folder as well."""
    rows, capability = asked(run)
    beside = values(capability)
    table = results(rows, beside=beside)
    against = comparisons(rows, reference_of(run.config), beside)
    write_csv(folder / SHARES, RESULT_COLUMNS, share_rows(per_case(rows)))
    write_csv(folder / "results.csv", RESULT_COLUMNS, table)
    write_csv(folder / "comparisons.csv", COMPARISON_COLUMNS, against)
    for name in ("results.csv", "comparisons.csv"):
        shutil.copyfile(folder / name, run.folder / name)
