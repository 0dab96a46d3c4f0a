"""Files that are never half-written: JSON lines that survive a torn end, renames, locks."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ske.types import UserError


def write_text(path: Path, text: str) -> None:
    """Write a whole file by renaming a finished one into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write JSON lines, atomically."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def append_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Append JSON lines in one write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines written by this program; a torn last line is work owed, not an error."""
    if not path.exists():
        return []
    rows = []
    # Not splitlines(): model text may hold characters that it takes for line ends. What stands
    # after the last line end is torn, or nothing.
    for line in path.read_bytes().split(b"\n")[:-1]:
        rows.append(json.loads(line))
    return rows


def drop_torn_line(path: Path) -> None:
    """Cut what a killed process left of a last line, before more is appended."""
    if path.exists():
        data = path.read_bytes()
        keep = data.rfind(b"\n") + 1
        if keep != len(data):
            with path.open("r+b") as file:
                file.truncate(keep)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, 16 digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]


def made_folder(folder: Path) -> Path:
    """A folder that is there, made if it was not.

    Raises:
        UserError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: no folder can be made there ({error.strerror}); choose another with --out"
        ) from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"{folder} cannot be written to; choose another with --out")
    return folder


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process.

    Raises:
        UserError: another process holds it.
    """
    made_folder(folder)
    with (folder / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _held(folder) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def refuse_in_use(folder: Path) -> None:
    """Say so before anything is loaded; leaves nothing in the folder.

    Raises:
        UserError: another process holds it.
    """
    if in_use(folder):
        raise _held(folder)


def _held(folder: Path) -> UserError:
    holder = (folder / ".lock").read_text(encoding="utf-8").strip() or "unknown"
    return UserError(
        f"{folder} is in use by another run (process {holder}); wait for it, "
        "or choose another folder with --out"
    )


def in_use(folder: Path) -> bool:
    """Whether a process holds the folder; for a moment it cannot be taken by another one."""
    lock = folder / ".lock"
    if not lock.exists():
        return False
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def cache_folder() -> Path:
    """Where what depends on a model alone is kept for later runs: $SKE_CACHE, or ~/.cache/ske."""
    return Path(os.environ.get("SKE_CACHE") or Path.home() / ".cache" / "ske")
