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
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ske.types import UserError

RecordT = TypeVar("RecordT", bound=BaseModel)


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


def read_rows(path: Path, whole: bool = False) -> list[dict[str, Any]]:
    """Read JSON lines written by this program; none if the file is not there.

    A torn last line is work owed, not an error, unless the file was written as a whole.

    Raises:
        UserError: a line is no row of JSON.
    """
    if not path.exists():
        return []
    # Not splitlines(): model text may hold characters that it takes for line ends. What stands
    # after the last line end is torn, or nothing.
    *lines, torn = path.read_bytes().split(b"\n")
    if whole and torn:
        lines.append(torn)
    return [row_of(line, path, number) for number, line in enumerate(lines, 1)]


def read_records(path: Path, kind: type[RecordT]) -> list[RecordT]:
    """The rows of a file that was written as a whole, each as a record.

    Raises:
        UserError: a line is no such record.
    """
    return [
        record_of(row, path, kind, line) for line, row in enumerate(read_rows(path, whole=True), 1)
    ]


def read_kept(path: Path, kind: type[RecordT]) -> list[RecordT]:
    """The records before the first line that is none: what follows is work owed."""
    kept: list[RecordT] = []
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    for line in lines:
        try:
            kept.append(kind.model_validate_json(line))
        except ValidationError:
            break
    return kept


def row_of(line: bytes | str, path: Path, number: int) -> dict[str, Any]:
    """A line of a file as a row; raises UserError if it is none."""
    try:
        row = json.loads(line)
    except ValueError as error:  # not JSON, or not UTF-8
        raise broken(path, f"not a row of JSON ({error})", number) from error
    if not isinstance(row, dict):
        raise broken(path, f"not a row of JSON but {str(row)[:40]!r}", number)
    return row


def read_json(path: Path, keys: Iterable[str] = ()) -> Any:
    """A file of JSON that this program wrote.

    Args:
        path: The file.
        keys: What it must have, if it is an object.

    Raises:
        UserError: it cannot be read, is not JSON, or a key is missing.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise broken(path, f"cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise broken(path, f"not JSON ({error})") from error
    if missing := [key for key in keys if not isinstance(value, dict) or key not in value]:
        raise broken(path, f"key {missing[0]!r} is missing in {str(value)[:40]!r}")
    return value


def record_of(value: Any, path: Path, kind: type[RecordT], line: int | None = None) -> RecordT:
    """A record from what stood in a file; raises UserError if it is none, with the first reason."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise broken(
            path, f"key {key!r}, value {str(first['input'])[:40]!r}: {first['msg']}", line
        ) from error


def broken(path: Path, what: str, line: int | None = None) -> UserError:
    """What is wrong with a file that this program wrote, and how a run makes it again."""
    where = str(path) if line is None else f"{path}, line {line}"
    return UserError(f"{where}: {what}; {_again(path)}")


def _again(path: Path) -> str:
    """What to delete so that a run makes a file again: the manifests above it, and its item."""
    above = [place for place in path.parents if place.parent.name == "stages"][::-1]
    inside = [place for place in above if (place.parents[1] / "config.yaml").exists()]
    stages = above[above.index(inside[0]) :] if inside else above
    if not stages:
        return "put it back as it was"
    # A round is a run inside a run; what a stage keeps from one time to the next are its items.
    gone = [str(place / "manifest.json") for place in stages]
    kept = "items" in path.relative_to(stages[-1]).parts[:-1]
    if kept:
        gone.append(str(path if path.parent.name == "items" else path.parent))
    return f"delete {' and '.join(gone)}, then: ske run {stages[0].parents[1]}/config.yaml"


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
