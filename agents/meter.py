"""What a design has spent, against its budgets: questions to the teacher, tokens, seconds.

The budgets are hard: a question that would pass one is not put. Tokens and seconds of a call are
known only afterwards, so they are foreseen from the calls before it. Of a model that decides, only
the question is foreseen: its reply, or a repeated question, may pass a budget once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ske.config import DesignConfig
from ske.trace import Event

TEACHER = "teacher"
DENSEST = 0.5
"""Tokens a character before anything was asked: more than any usual text has."""
MARGIN = 1.25
"""By how much texts may be denser, and a call slower, than those before it."""


class Spent(Exception):
    """The next call would pass a budget; the message says which."""


@dataclass
class Meter:
    """Counts; a run that goes on counts what its trace says was asked before."""

    config: DesignConfig
    calls: int = 0
    """Questions to the teacher."""
    tokens: int = 0
    """Of the teacher's questions and replies, and of a model that decides."""
    seconds: float = 0.0
    """In which the teacher answered or something was decided."""
    characters: int = 0
    """Put to the teacher since this process started; what tokens are foreseen from."""
    its_tokens: int = 0
    its_seconds: float = 0.0
    calls_a_fact: float = 0.0
    """The most that an examination has taken for each of its facts."""
    tokens_a_fact: float = 0.0

    @property
    def limited(self) -> bool:
        """Whether there is a budget at all."""
        budgets = (self.config.max_calls, self.config.max_tokens, self.config.max_seconds)
        return any(most is not None for most in budgets)

    def recount(self, events: Iterable[Event]) -> None:
        """Start from what a trace holds."""
        for event in events:
            self.add(event)

    def add(self, event: Event, characters: int = 0) -> None:
        """Take in a turn."""
        self.tokens += event.tokens
        self.seconds += event.seconds
        if event.brain != TEACHER:
            return
        asked = int(event.scores.get("questions", 0))
        self.calls += asked
        if characters:
            self.characters += characters
            self.its_tokens += event.tokens
            self.its_seconds += event.seconds
        if event.facts:
            n = len(event.facts)
            self.calls_a_fact = max(self.calls_a_fact, asked / n)
            self.tokens_a_fact = max(self.tokens_a_fact, event.tokens / n)

    def check(self, calls: int, characters: int) -> None:
        """Refuse what would pass a budget.

        Args:
            calls: Questions to the teacher; 0 for a turn of a model that decides.
            characters: Of all that would be read.

        Raises:
            Spent: It would.
        """
        share = MARGIN * characters / self.characters if self.characters else 0.0
        tokens = share * self.its_tokens if share else characters * DENSEST
        why = self._over(calls, tokens, share * self.its_seconds)
        if why:
            raise Spent(why)

    def allows(self, facts: int) -> bool:
        """Whether another trial with so many facts is foreseen to stay within the budgets."""
        tokens = facts * self.tokens_a_fact
        return not self._over(facts * self.calls_a_fact, tokens, 0.0)

    def spent(self) -> str:
        """Which budget is used up; "" if none."""
        return self._over(1, 1, 0.0)

    def _over(self, calls: float, tokens: float, seconds: float) -> str:
        used = {
            "max_calls": (self.calls + calls, self.config.max_calls),
            "max_tokens": (self.tokens + tokens, self.config.max_tokens),
            "max_seconds": (self.seconds + seconds, self.config.max_seconds),
        }
        for key, (value, most) in used.items():
            if most is not None and value > most:
                return f"the budget design.{key} = {most} is spent"
        return ""

    def report(self) -> dict[str, float]:
        """For `costs.json`."""
        return {"calls": self.calls, "tokens": self.tokens, "seconds": round(self.seconds, 2)}
