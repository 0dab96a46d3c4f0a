"""`ske edit`: the everyday job, a facts file in and an edited model out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from pipeline.mistakes import check_methods, check_options
from pipeline.places import edit_folder
from pipeline.publishing import publish, remember
from pipeline.run import Run
from ske.config import Config, apply, parse
from ske.facts import (
    EXAMPLE,
    NEEDED,
    OPTIONAL,
    parse_json,
    quoted,
    read_facts,
    read_text,
    shortened,
)
from ske.paths import absolute
from ske.types import UserError

GIVEN = {"data": "--facts", "methods": "--method", "model.path": "--model"}
"""Keys that the command's own options set."""


def edit_model(
    model: str, facts: Path, method: str, out: Path, overrides: list[str], console: Console
) -> None:
    """Edit a model; the folder `out` becomes a checkpoint, `out/run` says how it was made.

    Raises:
        UserError: bad facts (all of them listed), an unknown method or one that changes no weights,
            a model that cannot be loaded or a folder that holds something else: nothing has been
            written then.
    """
    from methods.table import METHODS

    _check_method(method)
    _check_target(out)
    left = check_facts(facts)
    run = Run(_config(model, facts, method, overrides), out / "run")
    check_methods(list(run.config.options))
    check_options(run.config)
    _ = run.lm  # A model that cannot be loaded is found before anything is written.
    from pipeline.edits import save_student  # torch: after the user's mistakes are found

    for line in shortened(left):
        console.print(f"Left out: {escape(line)}", highlight=False, soft_wrap=True)
    remember(out)
    run.execute("train" if METHODS[method].taught else "edit")
    if not METHODS[method].taught:
        save_student(run, [edit_folder(run, method)], run.folder / "student")
    publish(out)
    console.print(f"Edited model: {out}  (how it was made: {out}/run)", highlight=False)
    _show_answers(run, out, console)


def _config(model: str, facts: Path, method: str, overrides: list[str]) -> Config:
    """The configuration of a run that edits all facts of the file with one method."""
    tree: dict[str, Any] = {"model": {}, "edits": {}}
    for override in overrides:
        for key, option in GIVEN.items():
            if re.match(rf"\s*{re.escape(key)}\b", override):
                raise UserError(f"--set {override}: here that is for {option} to say")
        apply(tree, override)
    tree["data"] = {"path": str(absolute(facts))}
    tree["methods"] = ["base", method]
    if isinstance(tree["model"], dict) and isinstance(tree["edits"], dict):
        tree["model"]["path"] = model
        tree["edits"].setdefault("limit", None)
    config = parse(tree, "ske edit")
    if config.edits.mode != "batch":
        raise UserError(
            f"--set edits.mode={config.edits.mode}: `ske edit` makes all facts of the file in one "
            "batch; to measure single or sequential edits, use `ske run`"
        )
    return config


def check_facts(path: Path) -> list[str]:
    """Read a facts file before anything heavy loads; data sets are read as they are.

    Returns:
        Which facts of a data set will be left out and why, a line each; of plain facts none are.

    Raises:
        UserError: the file cannot be read, facts in it are wrong, or none is left.
    """
    suffix = path.suffix.lower()
    if suffix != ".csv" and (suffix != ".json" or _plain_facts(path)):
        read_facts(path)
        return []
    from eval.cases import load
    from pipeline.facts import left_out, without_conflicts

    loaded = load(path)
    lines = left_out(loaded)
    if not without_conflicts(loaded.cases)[0]:
        raise UserError("\n".join([f"{path}: no fact in it can be used", *shortened(lines)]))
    return lines


def _plain_facts(path: Path) -> bool:
    """Whether a JSON file holds facts and nothing else, and so is no data set.

    Raises:
        UserError: it cannot be read.
    """
    rows = parse_json(read_text(path), str(path))
    if isinstance(rows, dict):
        return False  # Some data sets are one object.
    if not isinstance(rows, list) or not rows:
        raise UserError(
            f"{path}: {quoted(rows)} is not a list of facts; write [{EXAMPLE}, ...], or name a "
            "file of a data set that `ske datasets` lists"
        )
    keys = {key for row in rows if isinstance(row, dict) for key in row}
    return bool(keys) and keys <= {*NEEDED, *OPTIONAL}


def _check_method(method: str) -> None:
    from methods.table import METHODS

    saved = [name for name, line in METHODS.items() if line.saved]
    if method in saved:
        return
    why = "there is no such method"
    if method in METHODS:
        why = "it changes no weights, or not for good, so there would be no model to save"
    raise UserError(f"--method {method!r}: {why}; choose one of {', '.join(saved)}")


def _check_target(out: Path) -> None:
    if out.is_file():
        raise UserError(f"--out {str(out)!r} is a file; give a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / "run").is_dir():
        raise UserError(f"--out {str(out)!r} holds other things; give a new or empty folder")


def _show_answers(run: Run, out: Path, console: Console) -> None:
    from eval.score import matches
    from pipeline.facts import read_facts as drawn
    from ske.backends.local import load
    from ske.lm import Sampling, ask

    facts = drawn(run)
    lm = load(run.config.model.model_copy(update={"path": str(out)}))
    replies = lm.generate([ask(fact.prompt) for fact in facts], Sampling())
    right = [matches(r.text, f.target_new, f.prompt) for f, r in zip(facts, replies, strict=True)]
    console.print(
        f"The edited model now answers {sum(right)} of {len(facts)} facts as given.",
        highlight=False,
    )
    for fact, reply, good in list(zip(facts, replies, right, strict=True))[:10]:
        mark = "[green]+[/green]" if good else "[red]-[/red]"
        console.print(
            f" {mark} ",
            escape(json.dumps(fact.prompt, ensure_ascii=False)),
            "->",
            escape(json.dumps(reply.text, ensure_ascii=False)),
            highlight=False,
        )
