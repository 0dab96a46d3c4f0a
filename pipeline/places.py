"""Where a run keeps a method's edit and its costs: paths only, so that reading needs no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from methods.table import METHODS
from pipeline.run import Run
from ske.config import Config, found


def options_for(config: Config, method: str) -> dict[str, Any]:
    """A method's options in a run: those tuned for its model, under those it names itself."""
    tuned: dict[str, Any] = {}
    if config.tuned is not None:
        path = found(config.tuned) / f"{method}.yaml"
        tuned = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}
    return {**tuned, **config.options.get(method, {})}


def is_taught(method: str) -> bool:
    """Whether a method learns from the teacher, and so has the stage `train` to itself."""
    return METHODS[method].taught


def edit_folder(run: Run, method: str) -> Path:
    """Where a method's edit lies."""
    if is_taught(method):
        return run.stage("train") / "edit"
    return run.stage("edit") / "items" / method


def costs_of(run: Run, method: str) -> dict[str, Any]:
    """Seconds, bytes and peak memory of making a method's edit; empty if it is not made yet."""
    folder = run.stage("train") if is_taught(method) else edit_folder(run, method)
    path = folder / "costs.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def reference_of(config: Config) -> str:
    """Whose comparisons are told: the taught method, or the last one of a run without any."""
    taught = [method for method in config.methods if is_taught(method)]
    return [*config.methods, *taught][-1]
