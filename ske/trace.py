"""What the agents saw and said: one JSON line an event, for people and for `ske inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from ske.io import append_rows
from ske.lm import Message
from ske.types import Frozen


class Event(Frozen):
    """One decision or question of one role."""

    stage: str
    role: str
    brain: str
    """"rules", or the name of the model that answered."""
    template: str
    """The prompt template (`prompts/...`), and
    its hash in `template_hash`."""
    template_hash: str
    variables: dict[str, Any] = Field(default_factory=dict)
    messages: list[Message] = Field(default_factory=list)
    """What was asked, as a model would read it."""
    reply: str = ""
    parsed: dict[str, Any] = Field(default_factory=dict)
    scores: dict[str, Any] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)
    """Anything out of the ordinary, e.g. a relation that the lexicon does not know."""
    facts: list[str] = Field(default_factory=list)
    """Ids of the facts it is about, so that one fact's whole way can be shown."""
    tokens: int = 0
    seconds: float = 0.0
    cached: bool = False


class Trace:
    """Appends events to a file."""

    def __init__(self, path: Path) -> None:
        """Events go to `path`."""
        self.path = path

    def add(self, event: Event) -> None:
        """Write one event."""
        append_rows(self.path, [event.model_dump(mode="json")])
