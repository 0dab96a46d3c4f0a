"""`ske combine`: several runs that differ only in their seeds become one pair of tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eval.retention import DECAY_COLUMNS, RETENTION_COLUMNS, decay, matrix, scored
from eval.seeds import gather
from eval.tables import (
    COMPARISON_COLUMNS,
    RESULT_COLUMNS,
    comparisons,
    markdown,
    results,
    write_csv,
    written,
)
from pipeline.places import reference_of
from ske.io import made_folder, write_text
from ske.types import UserError

FEW = 5
"""With fewer seeds, the intervals say little about all seeds."""


def combine(folders: Sequence[Path], out: Path) -> str:
    """Write `results.csv`, `comparisons.csv` and `results.md` into `out`; returns the last.

    Sequential runs have their `retention.csv` and `decay.csv` joined, too.

    Raises:
        UserError: If the runs cannot be combined, see `eval.seeds.gather`, or `out` is no place for
            their tables; nothing is written then.
    """
    if (out / "stages").is_dir() or (out / "config.yaml").exists():
        raise UserError(
            f"--out {str(out)!r} is a run's own folder, whose results would be lost; give another"
        )
    runs = gather(folders)
    found = runs.answers
    beside = found.beside.values
    table = results(found.rows, beside=beside)
    against = comparisons(found.rows, reference_of(runs.config), beside)
    text = markdown(table, found.errors)
    told = "\n".join(f"- {seed}: {folder}" for seed, folder in sorted(runs.seeds.items()))
    text = f"{len(runs.seeds)} seeds, as a level above cases:\n\n{told}\n\n{text}\n"
    if len(runs.seeds) < FEW:
        text += f"\nFewer than {FEW} seeds: what another seed would give is hardly known.\n"
    made_folder(out)
    percent, graded = written(table)
    write_csv(out / "results.csv", RESULT_COLUMNS, percent)
    write_csv(out / "graded.csv", RESULT_COLUMNS, graded)
    write_csv(out / "comparisons.csv", COMPARISON_COLUMNS, against)
    if found.retention:
        kept = scored(found.retention)
        write_csv(out / "retention.csv", RETENTION_COLUMNS, matrix(kept))
        write_csv(out / "decay.csv", DECAY_COLUMNS, decay(kept))
    write_text(out / "results.md", text)
    return text
