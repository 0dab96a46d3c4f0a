"""Reads row files of a run, and says which line of which file is broken.

A row that cannot be scored must stop a report: averaging would hide it. Writes nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ske.types import UserError

RowT = TypeVar("RowT", bound=BaseModel)


def read_saved(path: Path, kind: type[RowT], again: str) -> list[RowT]:
    """The rows of a file of JSON lines; a torn last line is work owed, not an error.

    Args:
        path: The file.
        kind: What a row is.
        again: What a user can do about a missing or broken file.

    Raises:
        UserError: the file is missing, or a line is not JSON, holds NaN or an infinity, or is no
            such row.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {again}") from error
    # Not splitlines(): model text may hold characters that it takes for line ends.
    lines = data.split(b"\n")[:-1]
    return [_row(line, f"{path}, line {n}", kind, again) for n, line in enumerate(lines, 1)]


def _row(line: bytes, where: str, kind: type[RowT], again: str) -> RowT:
    try:
        return kind.model_validate(json.loads(line, parse_constant=_refuse))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        given = f"key {key!r}, value {str(first['input'])[:80]!r}: " if key else ""
        raise UserError(f"{where}: {given}{first['msg']}; {again}") from error
    except ValueError as error:  # not JSON, not UTF-8, or NaN
        raise UserError(f"{where}: {_named(line, error)}; {again}") from error


class _NotFinite(ValueError):
    """NaN or an infinity, which JSON does not know and no score can be made of."""


def _refuse(name: str) -> Any:
    raise _NotFinite(name)


def _named(line: bytes, error: ValueError) -> str:
    """What is wrong, with the key that holds what is no number."""
    if not isinstance(error, _NotFinite):
        return f"not a row of JSON ({error})"
    found = json.loads(line)
    keys = [key for key, value in found.items() if str(error) in json.dumps(value)]
    told = f"key {keys[0]!r} holds" if keys else "it holds"
    return f"{told} {error}, which is not a number"
