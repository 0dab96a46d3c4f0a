"""Who decides for a role: one interface for rules and, later, for models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from pydantic import BaseModel

from ske.lm import Message

Decision = TypeVar("Decision", bound=BaseModel)


class Brain(Protocol):
    """Takes the decision that a role needs."""

    @property
    def name(self) -> str:
        """What traces call it: "rules", or a model's name."""
        ...

    def decide(
        self,
        role: str,
        messages: list[Message],
        schema: type[Decision],
        rule: Callable[[], Decision],
    ) -> Decision:
        """Decide.

        Args:
            role: Who is asked, e.g. "planner".
            messages: The question as a model reads it, with the schema's JSON form in it.
            schema: What the answer is parsed into.
            rule: What the rules say; computed only when called. A brain that reads the messages
                may fall back on it when its reply cannot be parsed.

        Returns:
            An instance of `schema`.
        """
        ...


class RulesBrain:
    """Deterministic, without a model: the messages are for the reader of the trace."""

    name = "rules"

    def decide(
        self,
        role: str,
        messages: list[Message],
        schema: type[Decision],
        rule: Callable[[], Decision],
    ) -> Decision:
        """Follow the rule."""
        return rule()
