"""`ske run --from`: finished stages of other runs, taken over where nothing they depend on differs.

Runs that differ in one thing have the rest in common: of an ablation of training, every run has the
same design. Only stages that ask or train a model are worth it. What a stage depends on is looked
at as when a run goes on, so that nothing is taken that would not have come out here.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline import aside
from pipeline.stage import Stage, read_manifest, sound
from ske.types import UserError

DEPTH = 3
"""How far below a folder runs are looked for: a grid's lie in OUT/DATASET/METHODS/seed-N."""


def runs_below(folders: Sequence[Path]) -> list[Path]:
    """The run folders that these are, or that lie in them.

    Raises:
        UserError: one of them is no folder, or there is no run in it.
    """
    found: list[Path] = []
    for folder in folders:
        if not folder.is_dir():
            raise UserError(
                f"--from {str(folder)!r}: no such folder; give a run, or a folder of runs"
            )
        if not (own := runs_in(folder)):
            raise UserError(
                f"--from {str(folder)!r}: there is no run in it, nor up to {DEPTH} folders below; "
                "give a run, or a folder of runs"
            )
        found += own
    return list(dict.fromkeys(found))


def runs_in(folder: Path) -> list[Path]:
    """The run that a folder is, or those that lie in it; none if it is not there."""
    return list(_runs(folder, DEPTH)) if folder.is_dir() else []


def _runs(folder: Path, depth: int) -> Iterator[Path]:
    if (folder / "stages").is_dir():
        yield folder
    elif depth:
        for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
            yield from _runs(inner, depth - 1)


def adopt(stage: Stage, run: Any, others: Sequence[Path]) -> Path | None:
    """Take a stage from the first run that has the same one; says which, None if none has.

    `run` has `config` and `folder`.
    """
    if "model" not in stage.keys:
        return None
    own = run.folder.resolve()
    for other in others:
        if other.resolve() != own and sound(stage, run.config, run.folder, other):
            _copy(stage, other, run.folder)
            return other
    return None


def _copy(stage: Stage, other: Path, folder: Path) -> None:
    """What the stage left in the run folder first, its manifest with the rest of it last."""
    left = read_manifest(other, stage.name).get("left", {})
    for name in sorted({*stage.leaves, *(Path(name).parts[0] for name in left)} - {"stages"}):
        _place(other / name, folder / name)
    _place(other / "stages" / stage.name, folder / "stages" / stage.name)
    aside.forget(folder / "stages" / stage.name)


def _place(source: Path, target: Path) -> None:
    fresh = target.with_name(f".{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, fresh, ignore=shutil.ignore_patterns("work"))
        shutil.rmtree(target, ignore_errors=True)
    else:
        shutil.copy2(source, fresh)
    fresh.replace(target)
