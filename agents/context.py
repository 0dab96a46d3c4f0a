"""What every node can use but no checkpoint holds: the model, the facts, the trace, the folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agents.batch import Batch, Query
from agents.brain import Brain
from agents.meter import Meter
from ske.config import DesignConfig
from ske.lm import LM, Reply
from ske.trace import Trace
from ske.types import Fact

Progress = Callable[[str], None]


@dataclass
class Context:
    """One run's surroundings. The memories only spare questions: they can be rebuilt."""

    lm: LM
    """The teacher: without a system message it is the base model."""
    facts: dict[str, Fact]
    config: DesignConfig
    trace: Trace
    folder: Path
    brain: Brain
    batch: Batch
    names: Sequence[str] = ()
    """Other subjects that neighbours may be asked about."""
    progress: Progress | None = None
    answered: bool = False
    """Whether a person's word is passed on, which counts even where none would be asked for."""
    base: dict[str, Reply] = field(default_factory=dict)
    """The base model's answers by question."""
    ahead: dict[tuple[str, ...], tuple[Reply, float]] = field(default_factory=dict)
    """Replies that wait to be asked for, by roles and texts of the chat, with their seconds."""
    meter: Meter = field(init=False)
    """What was spent, against the budgets."""
    exam: dict[str, list[Query]] = field(default_factory=dict)
    """What each fact is examined with."""

    def __post_init__(self) -> None:
        """Nothing is spent yet."""
        self.meter = Meter(self.config)
