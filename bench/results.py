"""The project's results: grids of runs, joined over seeds, as tables in `docs/results.md`.

Every part is a grid file of `configs/results/`; its runs are `ske run`s with folders of their own
under `runs/results`, so that whatever was stopped goes on, on one machine or (`ske grid`) on many.

    python -m bench.results                     # make results: everything, then the document
    python -m bench.results --only main --seeds 0 1
    python -m bench.results --tables            # only the document, from what there is
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from bench.document import filled
from bench.outcome import LOCALITY, Must, section
from bench.setting import machine
from pipeline.grid import Cell, cells
from ske.io import write_text

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs" / "results.md"
SECOND = Path("worlds") / "second"
SECOND_SEED = 2

AT_64 = (
    Must("edit_success", least=99.5),
    Must("paraphrase", least=99.5),
    *(Must("locality", name, least=99) for name in LOCALITY),
    Must("portability_share", least=98),
    Must("portability_share", "Beyond", least=70),
    Must("self_refutation", most=5),
    Must("edit_success_by_belief", "strength_4", least=95),
)
"""What SKE is asked for at 64 edits in one batch."""
PARTS: dict[str, tuple[str, tuple[Must, ...]]] = {
    "main": ("64 edits in one batch", AT_64),
    "tasks": (
        "Insertion and erasure",
        (Must("edit_success", least=95), Must("locality", least=98)),
    ),
    "sizes": ("From one edit to all", ()),
    "sequential": (
        "Sixteen rounds of sixteen edits",
        (Must("retained", least=95), Must("locality", least=95)),
    ),
    "second-world": ("A second world, nothing tuned on it", AT_64),
}
"""Grid file -> title and goals."""
BY_SIZE = {
    "256-edits": (
        Must("edit_success", least=99),
        Must("locality", least=98),
        Must("portability_share", least=90),
    ),
    "680-edits": (
        Must("edit_success", least=97),
        Must("locality", least=95),
        Must("portability_share", least=80),
    ),
}


def main() -> None:
    """Make what is missing, then the document."""
    options = argparse.ArgumentParser(
        "python -m bench.results",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    options.add_argument("--seeds", nargs="+", type=int, help="only these")
    options.add_argument("--tables", action="store_true", help="run nothing")
    chosen = options.parse_args()
    if not chosen.tables:
        for part in chosen.only:
            if part == "second-world":
                _ske("world", "build", "--seed", str(SECOND_SEED), "--out", str(SECOND))
            for cell in _cells(part):
                if chosen.seeds is None or cell.run().config.edits.seed in chosen.seeds:
                    _ske(*cell.command()[1:])
    write_text(DOCS, filled(DOCS.read_text(encoding="utf-8"), figures()))


def figures() -> str:
    """All sections, from the runs that are finished."""
    parts = [f"Made at commit {_commit()} on {machine()}."]
    for part, (title, musts) in PARTS.items():
        parts.append(f"## {title}")
        groups: dict[Path, list[Path]] = {}
        for cell in _cells(part):
            groups.setdefault(cell.folder.parent, []).append(cell.folder)
        for group, folders in groups.items():
            done = [folder for folder in folders if (folder / "results.csv").exists()]
            name = group.parent.name
            parts.append(section(name, done, len(folders), BY_SIZE.get(name, musts)))
    return "\n\n".join(parts) + "\n"


def _cells(part: str) -> list[Cell]:
    return cells(ROOT / "configs" / "results" / f"{part}.yaml")


def _ske(*arguments: str) -> None:
    """A command of its own: a run that fails stops everything, and says why itself."""
    command = [str(Path(sys.executable).with_name("ske")), *arguments]
    if code := subprocess.run(command, check=False).returncode:
        sys.exit(code)


def _commit() -> str:
    asked = ("git", "rev-parse", "--short", "HEAD")
    return subprocess.run(asked, capture_output=True, text=True, cwd=ROOT).stdout.strip() or "?"


if __name__ == "__main__":
    main()
