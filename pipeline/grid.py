"""`ske grid`: methods x data sets x seeds as runs of their own, for whatever starts commands.

Every run has its own folder and resumes there, so that Ray, Slurm, `make -j` or a loop can place
them in any order and start them again after a failure. Nothing here waits, places or counts jobs.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import NamedTuple

import yaml
from pydantic import Field, ValidationError
from rich.table import Table
from rich.text import Text

from pipeline.adopting import runs_in
from pipeline.run import Run
from ske.config import found, load
from ske.types import Frozen, UserError


class Grid(Frozen):
    """A grid file."""

    config: str
    """The configuration that all runs start from."""
    out: str = "runs/grid"
    """Runs lie in OUT/DATASET/METHODS/seed-N."""
    methods: tuple[str, ...] = Field(min_length=1)
    """One run each; "prompt,ske" is one run of both, which compares them case by case."""
    datasets: dict[str, tuple[str, ...]] = Field(min_length=1)
    """A name for the folder -> the overrides that choose the data set, e.g. [data.name=...]."""
    seeds: tuple[int, ...] = (0,)
    """Of training and sampling (`seed`) and of the facts that are drawn (`edits.seed`)."""
    overrides: tuple[str, ...] = ()
    """Further `key.path=value` for all runs."""


class Cell(NamedTuple):
    """One run of a grid."""

    config: Path
    overrides: tuple[str, ...]
    folder: Path
    out: Path
    """Where the grid's runs lie; what they have in common is made once."""

    def command(self) -> list[str]:
        """What makes this run, or goes on with it."""
        sets = [part for override in self.overrides for part in ("--set", override)]
        shared = ["--from", str(self.out)] if runs_in(self.out) else []
        return ["ske", "run", str(self.config), *sets, *shared, "--out", str(self.folder)]

    def run(self) -> Run:
        """The run; of files, its configuration alone is read."""
        run = Run(load(self.config, list(self.overrides)), self.folder)
        run.others = tuple(runs_in(self.out))
        return run


def cells(path: Path) -> list[Cell]:
    """The runs of a grid file, numbered from 0 by their place.

    Raises:
        UserError: the file cannot be read, or names keys that there are not.
    """
    grid = _read(path)
    found_cells: list[Cell] = []
    out = Path(grid.out)
    for (name, chosen), methods, seed in itertools.product(
        grid.datasets.items(), grid.methods, grid.seeds
    ):
        names = [method.strip() for method in methods.split(",")]
        own = (f"methods=[{', '.join(names)}]", f"seed={seed}", f"edits.seed={seed}")
        folder = out / name / "+".join(names) / f"seed-{seed}"
        found_cells.append(Cell(found(grid.config), (*grid.overrides, *chosen, *own), folder, out))
    return found_cells


def _read(path: Path) -> Grid:
    try:
        return Grid.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); give a grid, e.g. configs/grids/world.yaml"
        ) from error
    except ValidationError as error:
        lines = [
            f"{path}: {'.'.join(map(str, e['loc']))} = {e['input']!r}: {e['msg']}; "
            f"a grid has: {', '.join(Grid.model_fields)}"
            for e in error.errors()
        ]
        raise UserError("\n".join(lines)) from error


def cell(path: Path, number: int) -> Cell:
    """One run of a grid file.

    Raises:
        UserError: as `cells`, or there is no run of that number.
    """
    all_cells = cells(path)
    if not 0 <= number < len(all_cells):
        raise UserError(
            f"--number {number}: {path} has {len(all_cells)} runs, from 0 to {len(all_cells) - 1}"
        )
    return all_cells[number]


def listing(path: Path) -> Table:
    """Every run with its number and how far it is."""
    table = Table(box=None, pad_edge=False)
    for name in ("", "run", "done"):
        table.add_column(name, no_wrap=name != "run", overflow="fold")
    for number, one in enumerate(cells(path)):
        plan = one.run().plan()
        done = sum(item.state == "done" for item in plan)
        table.add_row(str(number), Text(str(one.folder)), f"{done} of {len(plan)} stages")
    return table
