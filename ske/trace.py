"""What the agents saw and said: one JSON line an event, for people and for `ske inspect`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from ske.io import append_rows, record_of, row_of
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
    """Whether the model's replies were stored ones."""
    attempts: int = 0
    """How often a model was asked for this decision; 0 if none was. If it was and `brain` is
    "rules", no reply could be used, and `notes` say why."""
    call: str = ""
    """The key of the model's call (`items/calls.jsonl`); a turn that is redone has the same."""


class Trace:
    """Appends events to a file."""

    def __init__(self, path: Path) -> None:
        """Events go to `path`."""
        self.path = path

    def events(self) -> Iterator[Event]:
        """What is written, one at a time (a trace can be large); a torn last line is left out."""
        yield from self.containing(None)

    def containing(self, text: str | None) -> Iterator[Event]:
        """Only events with a text in their line, if one is given.

        Raises:
            UserError: a line is no event.
        """
        if self.path.exists():
            with self.path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if line.endswith(b"\n") and (text is None or text.encode() in line):
                        yield record_of(row_of(line, self.path, number), self.path, Event, number)

    def add(self, event: Event) -> None:
        """Write one event."""
        append_rows(self.path, [event.model_dump(mode="json")])
