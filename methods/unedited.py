"""base: the model as it is, as a method, so that every table has its first row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from methods.base import Workshop, options_of
from ske.io import write_json
from ske.lm import LM
from ske.types import Fact, Frozen


class NoEdit:
    """Changes nothing."""

    @contextmanager
    def applied(self, lm: LM) -> Iterator[LM]:
        """The model itself."""
        yield lm

    def save(self, folder: Path) -> None:
        """Write `edit.json`."""
        write_json(folder / "edit.json", {"form": "none"})

    @staticmethod
    def load(folder: Path) -> NoEdit:
        """Nothing to read."""
        return NoEdit()


class Unedited:
    """The editor that edits nothing."""

    def __init__(self, options: dict[str, Any], workshop: Workshop) -> None:
        """Takes no options."""
        options_of(Frozen, options, "base")

    def edit(self, lm: LM, facts: Sequence[Fact]) -> NoEdit:
        """Ignore the facts."""
        return NoEdit()
