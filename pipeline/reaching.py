"""Is the server that decides for the agents there? Asked before anything heavy is loaded.

Keeps in `items/answered.jsonl` of a design's folder which designs have every reply they need: those
are made again from the stored calls, without the server and without asking for it.
"""

from __future__ import annotations

from pathlib import Path

from agents.approval import refused
from ske.config import DesignConfig
from ske.io import append_rows, drop_torn_line, read_rows
from ske.types import content_hash

FILE = "items/answered.jsonl"


def reach(config: DesignConfig, folder: Path) -> None:
    """Ask the server something cheap, unless the design in `folder` needs it no more.

    Raises:
        UserError: It cannot be asked; the message says why, and how to go on.
    """
    if config.brain != "model" or config.endpoint is None or _needed(folder) in _answered(folder):
        return
    from agents.endpoint import Endpoint

    Endpoint(config.endpoint).reach()


def all_answered(folder: Path) -> None:
    """Keep that the design in `folder` has every reply it needs, until a person says no to it."""
    if (needed := _needed(folder)) not in _answered(folder):
        append_rows(folder / FILE, [{"design": needed}])


def _answered(folder: Path) -> set[str]:
    drop_torn_line(folder / FILE)
    return {row["design"] for row in read_rows(folder / FILE)}


def _needed(folder: Path) -> str:
    """What the replies depend on: the stage's key, and the prompts a person wants others for."""
    return content_hash([(folder / "key").read_text(encoding="utf-8"), refused(folder)])
