"""Every question to a model and its reply, by content: a design replays without asking again.

Reads and appends to a file of JSON lines. It holds questions and replies, never a key or a URL.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ske.io import append_rows, drop_torn_line, read_rows
from ske.lm import Message
from ske.types import Frozen, content_hash


class Call(Frozen):
    """One question and what came of it."""

    key: str
    role: str
    model: str
    messages: list[Message]
    reply: str
    finished: bool = True
    """False if the model was cut short."""
    refused: str = ""
    """Why the server would not answer this question; then there is no reply."""
    tokens: int = 0


class Calls:
    """The calls of a file, by key."""

    def __init__(self, path: Path) -> None:
        """Reads what is there; a line that a killed process left half-written is dropped."""
        self.path = path
        drop_torn_line(path)
        self._by_key = {row["key"]: Call(**row) for row in read_rows(path)}

    def get(self, key: str) -> Call | None:
        """The stored call, if there is one."""
        return self._by_key.get(key)

    def answered(self) -> bool:
        """Whether a model has ever replied."""
        return any(not call.refused for call in self._by_key.values())

    def add(self, call: Call) -> None:
        """Keep a call, on disk first."""
        append_rows(self.path, [call.model_dump(mode="json")])
        self._by_key[call.key] = call


def call_key(
    model: str, messages: Sequence[Message], schema: type[BaseModel], sampling: dict[str, Any]
) -> str:
    """The identity of a question: the same one is never put to the same model twice."""
    return content_hash([model, list(messages), schema.model_json_schema(), sampling])
