"""Measures speed and memory as ratios on this machine; exits with 1 if one is not what it must be.

python -m bench                        # all, in one table
python -m bench --only teacher,svf
python -m bench --out runs/bench       # also writes bench.json and bench.md there
python -m bench --write                # also puts the table into docs/performance.md
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bench.document import filled
from bench.row import Row, markdown, table
from bench.setting import machine, quiet
from ske.io import write_json, write_text

MEASUREMENTS = (
    "teacher", "scoring", "values", "singles", "moments", "solves", "svf", "student", "design",
    "growth",
)  # fmt: skip
"""Modules of this package with `measure(long) -> list[Row]`."""

DOCS = Path(__file__).parent.parent / "docs" / "performance.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    options = argparse.ArgumentParser(
        "python -m bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    options.add_argument("--only", help=f"some of {', '.join(MEASUREMENTS)}, with commas between")
    options.add_argument("--long", action="store_true", help="more runs of more items")
    options.add_argument("--out", type=Path, help="a folder for bench.json and bench.md")
    options.add_argument("--write", action="store_true", help="fill in docs/performance.md")
    chosen = options.parse_args(arguments)
    names = chosen.only.split(",") if chosen.only else MEASUREMENTS
    if unknown := set(names) - set(MEASUREMENTS):
        options.error(f"--only {min(unknown)!r}: there are {', '.join(MEASUREMENTS)}")
    rows = run(names, chosen.long)
    title = f"{machine()}; ratios are medians of pairs of runs"
    Console(width=None if sys.stdout.isatty() else 200).print(table(rows, title))
    if chosen.out:
        record = {"machine": machine(), "rows": [row.record() for row in rows]}
        write_json(chosen.out / "bench.json", record)
        write_text(chosen.out / "bench.md", markdown(rows, title))
    if chosen.write:
        write_text(DOCS, filled(DOCS.read_text(encoding="utf-8"), markdown(rows, title)))
    return int(not all(row.ok for row in rows))


def run(names: Sequence[str], long: bool) -> list[Row]:
    """All rows of some measurements; says on stderr what is being measured."""
    quiet()
    told, rows = Console(stderr=True), list[Row]()
    for name in names:
        start = time.monotonic()
        rows += importlib.import_module(f"bench.{name}").measure(long)
        told.print(f"{name}: {time.monotonic() - start:.0f} s", style="dim", highlight=False)
    return rows


if __name__ == "__main__":
    sys.exit(main())
