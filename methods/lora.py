"""LoRA on the bare facts (Hu et al. 2021, arXiv 2106.09685): the usual fine-tuning baseline.

Each fact is one lesson, its prompt completed by its new target; peft and TRL do the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from methods.base import Lesson, Workshop, options_of, weights_of
from methods.delta import DeltaEdit
from methods.sft import train
from ske.lm import LM, ask
from ske.training import SftOptions
from ske.types import Fact


class Lora:
    """The LoRA editor."""

    def __init__(self, options: dict[str, Any], workshop: Workshop) -> None:
        """Raises UserError on unknown options."""
        self.options: SftOptions = options_of(SftOptions, options, "lora")
        self.workshop = workshop

    def edit(self, lm: LM, facts: Sequence[Fact]) -> DeltaEdit:
        """Train on (prompt, new target) pairs."""
        lessons = [
            Lesson(chat=ask(fact.prompt), completion=fact.target_new, fact=fact.id)
            for fact in facts
        ]
        return train(weights_of(lm, "lora"), lessons, self.options, self.workshop, "lora")
