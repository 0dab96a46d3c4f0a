"""Puts the checkpoint that `ske edit` made into its folder, in place of an earlier one.

What `out` holds beside a checkpoint (`out/run`, a user's notes) is never touched: `PUBLISHED` lists
which files are an edit's. Reads and writes files; knows nothing of models.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from ske.io import write_json

PUBLISHED = "published.json"
"""In `out/run`: the names of the files in `out` that an edit has put there, or was about to."""
LOADED_FIRST = "config.json"
"""Without it, transformers takes a folder for no checkpoint."""
FRESH = ".checkpoint.new"
"""Where the new files wait, in `out` itself, so that a rename brings them to their place."""


def remember(out: Path) -> None:
    """Note which files an edit by an older version has put into `out`, while that can be told.

    It kept no list: they are called like those of its student, which the next edit replaces.
    """
    student, record = out / "run" / "student", out / "run" / PUBLISHED
    if record.exists() or not student.is_dir():
        return
    write_json(record, sorted(path.name for path in student.iterdir()))


def publish(out: Path) -> None:
    """Make the files of `out/run/student` those of `out`; of an earlier edit's, none stays.

    If this is killed in between, `out` holds no `config.json`, so that nobody loads a mixture of
    two checkpoints, and the next call brings it to an end.
    """
    fresh, record = out / FRESH, out / "run" / PUBLISHED
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(out / "run" / "student", fresh)
    new = sorted(path.name for path in fresh.iterdir())
    old = json.loads(record.read_text(encoding="utf-8")) if record.exists() else []
    write_json(record, sorted({*old, *new}))
    (out / LOADED_FIRST).unlink(missing_ok=True)
    for name in set(old) - set(new):
        _remove(out / name)
    for name in sorted(new, key=lambda name: name == LOADED_FIRST):
        if (out / name).is_dir():
            _remove(out / name)
        (fresh / name).replace(out / name)
    fresh.rmdir()
    write_json(record, new)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
