"""The project's results: grids of runs, joined over seeds, as tables in `docs/results.md`, figures
beside it and what says most of them in `README.md`.

Every part is a grid file of `configs/results/`; its runs are `ske run`s with folders of their own
under `runs/results`, so that whatever was stopped goes on, on one machine or (`ske grid`) on many.

    python -m bench.results                     # make results: everything, then the document
    python -m bench.results --only main --seeds 0 1
    python -m bench.results --tables            # only the documents, from what there is
    python -m bench.results --short             # four methods, three seeds, on the terminal
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bench import ablations, headline, larger, pictures
from bench.document import filled, standing
from bench.outcome import CHANGE, LOCALITY, Must, section
from bench.setting import machine
from pipeline.grid import Cell, cells
from pipeline.stage import read_manifest
from ske.io import write_text

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs" / "results.md"
FIGURES = ROOT / "docs" / "figures"
README = ROOT / "README.md"
SECOND, LARGER = Path("worlds") / "second", Path("worlds") / "larger"
SECOND_SEED = 2

AT_64 = (
    Must("edit_success", least=99.5),
    Must("paraphrase", least=99.5),
    *(Must("locality", name, least=99) for name in LOCALITY),
    Must("portability_share", least=98),
    Must("portability_share", "Beyond", least=70),
    Must(CHANGE, least=-1, most=1, above=-2),
    Must("self_refutation", most=5),
    Must("edit_success_by_belief", "strength_4", least=95),
)
"""What SKE is asked for at 64 edits in one batch."""
MAIN, STARTED = "main", "started"
OVERVIEW, COSTS = "overview", "costs"
"""README's tables of SKE alone on all parts, and of what an edit of the main ones takes."""
AGAINST = f"{STARTED}/against {MAIN}"
"""Where the started student is compared with SKE as it is, over the same edits."""
COMPARED = ("ablations", "teaching")
"""The parts that are one table, of differences from their first group."""
PARTS: dict[str, tuple[Must, ...]] = {
    MAIN: AT_64,
    STARTED: AT_64,
    "tasks": (Must("edit_success", least=95), Must("locality", least=98)),
    "sizes": (),
    "thousand": (
        Must("edit_success", least=97),
        Must("locality", least=95),
        Must("portability_share", least=80),
    ),
    "sequential": (Must("retained", least=95), Must("locality", least=95)),
    **dict.fromkeys(COMPARED, ()),
    "second-world": AT_64,
}
"""Grid file -> goals."""
SHORT = "short"
"""A grid file that is for the terminal alone."""
BY_SIZE = {
    "256-edits": (
        Must("edit_success", least=99),
        Must("locality", least=98),
        Must("portability_share", least=90),
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Make what is missing, then the document."""
    options = argparse.ArgumentParser(
        "python -m bench.results",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    options.add_argument("--seeds", nargs="+", type=int, help="only these")
    options.add_argument("--tables", action="store_true", help="run nothing")
    options.add_argument("--short", action="store_true", help="a quarter of an hour, no document")
    chosen = options.parse_args(arguments)
    if chosen.short:
        _make(SHORT, chosen.seeds)
        for name, folders in _done(SHORT)[0].items():
            print(section(name, folders, len(_cells(SHORT)), AT_64))
        return
    for part in [] if chosen.tables else chosen.only:
        _make(part, chosen.seeds)
    _fill(DOCS, {place: text for part in chosen.only for place, text in sections(part).items()})
    _fill(README, front(chosen.only, README.read_text(encoding="utf-8")))
    pictures.draw(_groups(PARTS), chosen.only, FIGURES)


def front(parts: Sequence[str], text: str) -> dict[str, str]:
    """README's places -> its tables, of what has been run here of some parts.

    Args:
        parts: Which may change.
        text: README as it is: what was run elsewhere stays.
    """
    tables = {OVERVIEW: headline.overview(_groups(parts), standing(text, OVERVIEW))}
    if MAIN in parts and (folders := _main()):
        tables |= {MAIN: headline.table(folders), COSTS: headline.costs(folders)}
    return tables


def _fill(document: Path, figures: Mapping[str, str]) -> None:
    """Write figures into their places."""
    text = document.read_text(encoding="utf-8")
    for place, told in figures.items():
        text = filled(text, told, place)
    write_text(document, text)


def _make(part: str, seeds: Sequence[int] | None) -> None:
    """The runs of a part, of these seeds or of all."""
    if part == "second-world":
        _ske("world", "build", "--seed", str(SECOND_SEED), "--out", str(SECOND))
    if part == "teaching":
        larger.grow(ROOT / "world", LARGER)
    for cell in _cells(part):
        if seeds is None or cell.run().config.edits.seed in seeds:
            _ske(*cell.command()[1:])


def sections(part: str) -> dict[str, str]:
    """Place in the document -> tables, of what has been run here; other places stay as they are."""
    done, planned = _done(part)
    if part in COMPARED:
        folders = [folder for group in done.values() for folder in group]
        return {part: _made(folders) + ablations.section(done, planned)} if folders else {}
    musts = PARTS[part]
    own = {
        f"{part}/{name}": _made(folders) + section(name, folders, planned, BY_SIZE.get(name, musts))
        for name, folders in done.items()
        if folders
    }
    if part == STARTED and own and (whole := _main()):
        groups = {"as it is": whole, **done}
        own[AGAINST] = ablations.section(groups, planned)
    return own


def places() -> list[str]:
    """Every place that the document must have."""
    own = [f"{part}/{name}" for part in PARTS if part not in COMPARED for name in _done(part)[0]]
    return [*own, *COMPARED, AGAINST]


def _groups(parts: Iterable[str]) -> dict[str, list[Path]]:
    """Part/group -> its finished runs."""
    return {f"{part}/{name}": each for part in parts for name, each in _done(part)[0].items()}


def _main() -> list[Path]:
    """The main table's finished runs."""
    return [folder for folders in _done(MAIN)[0].values() for folder in folders]


def _made(folders: Sequence[Path]) -> str:
    """Which code asked the models of some runs, and where."""
    commits = sorted({read_manifest(folder, "ask").get("git") or "?" for folder in folders})
    return f"Runs of commit {', '.join(commits)}; {machine()}.\n\n"


def _done(part: str) -> tuple[dict[str, list[Path]], int]:
    """The finished runs of a part by the name of their group, and how many each should have."""
    groups: dict[str, list[Path]] = {}
    for cell in _cells(part):
        groups.setdefault(cell.folder.parent.parent.name, []).append(cell.folder)
    planned = max(map(len, groups.values()))
    done = {
        name: [folder for folder in folders if (folder / "results.csv").exists()]
        for name, folders in groups.items()
    }
    return done, planned


def _cells(part: str) -> list[Cell]:
    return cells(ROOT / "configs" / "results" / f"{part}.yaml")


def _ske(*arguments: str) -> None:
    """A command of its own: a run that fails stops everything, and says why itself."""
    command = [str(Path(sys.executable).with_name("ske")), *arguments]
    if code := subprocess.run(command, check=False).returncode:
        sys.exit(code)


if __name__ == "__main__":
    main()
