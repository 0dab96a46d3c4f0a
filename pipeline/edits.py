"""Stages `train` and `edit`: make every method's edit, each in a folder of its own.

Writes `edit/` (the student's) and `student/` in the run folder for `train`; `items/METHOD/` and
`edits.json` (hashes) for `edit`; seconds, bytes and peak memory go into `costs.json`.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from methods.base import Edit, Lesson
from methods.table import build, defaults, load_edit
from pipeline.costs import measured, size_of
from pipeline.facts import read_facts
from pipeline.places import edit_folder, is_taught, options_for
from pipeline.practice import workshop
from pipeline.run import Run
from pipeline.stage import fingerprint
from ske.io import file_hash, read_rows, write_json
from ske.types import Fact, content_hash


def train(run: Run, folder: Path) -> None:
    """Train the student on the teacher's lessons and save it as an ordinary checkpoint."""
    rows = read_rows(run.stage("teach") / "lessons.jsonl")
    lessons = [Lesson(**row) for row in rows]
    options = run.config.train.model_dump(mode="json")
    _ = run.lm  # Loading the model is nobody's cost.
    with measured() as costs:
        edit = _make(run, "ske", options, read_facts(run), folder / "work", lessons)
        edit.save(folder / "edit")
    save_student(run, edit, run.folder / "student")
    write_json(folder / "costs.json", {**costs, "bytes": size_of(folder / "edit")})
    shutil.rmtree(folder / "work", ignore_errors=True)


def save_student(run: Run, edit: Edit, target: Path) -> None:
    """Merge an edit into the base model's weights and save a folder that transformers loads."""
    fresh = target.with_name(f".{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    with edit.applied(run.lm):
        run.lm.model.save_pretrained(fresh, safe_serialization=True)
    run.lm.tokenizer.save_pretrained(fresh)
    shutil.rmtree(target, ignore_errors=True)
    fresh.replace(target)


def run(run: Run, folder: Path) -> None:
    """Make the edits of all methods but the student; what is there with the same key stays."""
    facts = read_facts(run)
    summary: dict[str, str] = {}
    for method in run.config.methods:
        if is_taught(method):
            continue
        options = options_for(run.config, method)
        key = content_hash(
            [
                method,
                {**defaults(method), **options},
                run.config.seed,
                [fact.model_dump() for fact in facts],
                run.config.practice.model_dump(),
                run.config.texts.model_dump(),
                _model_key(run),
            ]
        )
        place = folder / "items" / method
        mark = place / "key"
        if not mark.exists() or mark.read_text(encoding="utf-8") != key:
            shutil.rmtree(place, ignore_errors=True)
            _ = run.lm
            with measured() as costs:
                _make(run, method, options, facts, place / "work").save(place)
            shutil.rmtree(place / "work", ignore_errors=True)
            write_json(place / "costs.json", {**costs, "bytes": size_of(place)})
            mark.write_text(key, encoding="utf-8")
        summary[method] = content_hash(
            {p.name: file_hash(p) for p in sorted(place.iterdir()) if p.name.startswith("edit")}
        )
    write_json(folder / "edits.json", summary)


def edit_of(run: Run, method: str) -> Edit:
    """A method's saved edit."""
    return load_edit(edit_folder(run, method))


def _make(
    run: Run,
    method: str,
    options: dict[str, Any],
    facts: list[Fact],
    work: Path,
    lessons: list[Lesson] | None = None,
) -> Edit:
    with run.progress(f"{method}") as update:
        given = replace(
            workshop(run, work),
            lessons=None if lessons is None else lambda: lessons,
            progress=lambda step, steps, loss: update(step, steps, f"loss {loss:.3f}"),
        )
        return build(method, options, given).edit(run.lm, facts)


def _model_key(run: Run) -> str:
    return fingerprint(run.config.model.path)
