"""Who decides for a role: one interface for rules and for models, and the rules' side of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel

from ske.lm import Message

Decision = TypeVar("Decision", bound=BaseModel)


class Decided(NamedTuple, Generic[Decision]):
    """A decision, and how it came about."""

    decision: Decision
    brain: str
    """Who decided in the end: "rules", or a model's name."""
    reply: str = ""
    """What the model said last, word for word; "" if none was asked."""
    attempts: int = 0
    """How often a model was asked; 0 if none was."""
    notes: tuple[str, ...] = ()
    """Why a reply could not be used, an entry for each attempt that failed."""
    tokens: int = 0
    cached: bool = False
    """Whether every reply was a stored one."""
    call: str = ""
    """The key of the first question among the stored calls, which tells turns apart."""


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
        flaw: Callable[[Decision], str],
    ) -> Decided[Decision]:
        """Decide.

        Args:
            role: Who is asked, e.g. "planner".
            messages: The question as a model reads it, with the schema's JSON form in it.
            schema: What the answer is parsed into.
            rule: What the rules say; computed only when called. A brain that reads the messages
                falls back on it when its replies cannot be used.
            flaw: Says what about a decision would break the design, "" if nothing does. What the
                rules say has no flaw.

        Returns:
            An instance of `schema` without a flaw, and who it comes from.
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
        flaw: Callable[[Decision], str],
    ) -> Decided[Decision]:
        """Follow the rule."""
        return Decided(rule(), self.name)
