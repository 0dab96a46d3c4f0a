"""Where a run keeps a method's edits and their costs: paths only, so reading needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from methods.table import METHODS
from pipeline.leaks import Leaks, leaks_of
from pipeline.rounds import Mode, Round, Rounds, read_rounds
from pipeline.run import Run
from pipeline.stage import read_manifest
from ske.config import Config, found, read_yaml
from ske.io import read_json

TEACHING = ("design", "teach")
"""Stages of a taught method before its training; they are part of what its edit costs."""


def options_for(config: Config, method: str) -> dict[str, Any]:
    """A method's options in a run: those tuned for its model, under those it names itself."""
    tuned: dict[str, Any] = {}
    if config.tuned is not None:
        path = found(config.tuned) / f"{method}.yaml"
        tuned = read_yaml(path) if path.exists() else {}
    return {**tuned, **config.options.get(method, {})}


def is_taught(method: str) -> bool:
    """Whether a method learns from the teacher, and so has the stage `train` to itself."""
    return METHODS[method].taught


def round_folder(run: Run, number: int) -> Path:
    """The folder in which a taught method's round of several is designed, taught and trained.

    It is laid out as a run folder, so that `ske inspect` reads it.
    """
    return run.stage("train") / "items" / f"round-{number:04d}"


def whole_run(folder: Path) -> Path:
    """The run folder to go on with: of a round's own folder, that of the run it is a part of."""
    return folder.parents[3] if folder.parts[-4:-1] == ("stages", "train", "items") else folder


def teach_folders(run: Run) -> list[Path]:
    """Where the queries and lessons of a taught method lie: one folder, or one a round."""
    rounds = read_rounds(run)
    if rounds.mode == "batch":
        return [run.stage("teach")]
    return [round_folder(run, each.number) / "stages" / "teach" for each in rounds.rounds]


def edit_folder(run: Run, method: str, mode: Mode = "batch", number: int = 1) -> Path:
    """Where a method's edit lies; of several, the one of a round."""
    if is_taught(method):
        if mode == "batch":
            return run.stage("train") / "edit"
        return round_folder(run, number) / "stages" / "train" / "edit"
    items = run.stage("edit") / "items"
    return items / method if mode == "batch" else items / "rounds" / method / f"{number:04d}"


def edit_folders(run: Run, method: str, rounds: Rounds, numbers: Sequence[int]) -> list[Path]:
    """Where the edits of some rounds lie, in order."""
    return [edit_folder(run, method, rounds.mode, number) for number in numbers]


def costs_of(run: Run, method: str) -> dict[str, Any]:
    """Seconds, bytes, tokens and peak memory of making a method's edits; empty if none is made yet.

    Of several rounds: all but memory is added up, `edits` says of how many; of single edits,
    which have nothing to do with each other, they are those of one edit on average.
    """
    rounds = read_rounds(run)
    each = [c for c in (_costs(run, method, rounds.mode, r) for r in rounds.rounds) if c]
    return each[0] if rounds.mode == "batch" and each else _together(each, rounds.mode)


def _costs(run: Run, method: str, mode: Mode, each: Round) -> dict[str, Any]:
    folder = edit_folder(run, method, mode, each.number)
    path = (folder.parent if is_taught(method) else folder) / "costs.json"
    costs = read_json(path) if path.exists() else {}
    if is_taught(method) and "seconds" in costs:
        inner = run.folder if mode == "batch" else round_folder(run, each.number)
        costs["seconds"] += sum(read_manifest(inner, name).get("seconds", 0) for name in TEACHING)
    return costs


def _together(costs: Sequence[dict[str, Any]], mode: Mode) -> dict[str, Any]:
    if not costs:
        return {}
    share = len(costs) if mode == "single" else 1
    whole: dict[str, Any] = {"edits": len(costs)}
    for key in ("seconds", "bytes", "tokens"):
        if any(key in c for c in costs):
            whole[key] = sum(c[key] for c in costs if key in c) / share
    for key in ("peak_mb", "extra_mb"):
        if any(key in c for c in costs):
            whole[key] = max(c[key] for c in costs if key in c)
    return whole | {key: round(whole[key]) for key in ("bytes", "tokens") if key in whole}


def run_leaks(run: Run) -> dict[str, dict[str, Leaks]]:
    """What each method of a run used that is near to a probe, by kind, in the run's order."""
    taught = [method for method in run.config.methods if is_taught(method)]
    found = leaks_of(run.folder / "stages", taught, run.config.edits.mode != "batch")
    return {method: found[method] for method in run.config.methods if method in found}


def reference_of(config: Config) -> str:
    """Whose comparisons are told: the taught method, or the last one of a run without any."""
    taught = [method for method in config.methods if is_taught(method)]
    return [*config.methods, *taught][-1]
