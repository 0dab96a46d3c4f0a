"""How a fine-tuning is told to go: one definition for the configuration and for the methods."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ske.types import Frozen

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegativeInt = Annotated[int, Field(ge=0)]
NotNegative = Annotated[float, Field(ge=0)]


class Schedule(Frozen):
    """How long and how fast."""

    learning_rate: Positive = 1e-3
    """Peak, after a warm-up of 5 %, followed by a cosine."""
    epochs: Positive = 10.0
    """Passes over the lessons."""
    batch_size: Count = 32
    """Lessons a step."""
    min_steps: NotNegativeInt = 0
    """With few facts, more passes are made until there are so many steps."""
    least_batch: Count | None = None
    """With few facts, before that, steps are made smaller: down to so many lessons; None: never."""


class LowRankOptions(Schedule):
    """A schedule for low-rank adapters."""

    rank: Count = 8
    """Rank of the adapters."""
    alpha: int = 16
    """Scale of the adapters; the update is alpha / rank * B A."""
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Which linear maps get one: all but the head, or those with these names, as peft takes them,
    e.g. [q_proj, v_proj]."""
    layers: tuple[NotNegativeInt, ...] | None = None
    """In which layers, counted from 0; None is all."""


class SftOptions(LowRankOptions):
    """Everything that supervised fine-tuning on lessons can be told."""

    tuning: Literal["lora", "full"] = "lora"
    """Low-rank adapters, merged on save; or all weights."""
    locality_weight: NotNegative = 1.0
    """Weight of the KL term, which holds the student to the base model on lessons with a stored
    distribution (neighbours, free text); 0 is plain SFT on the same lessons."""


class StudentOptions(SftOptions):
    """Supervised fine-tuning on top of another method's edit."""

    start: str | None = None
    """A method that changes weights, e.g. memit, whose edit the student starts from. What that
    writes into lower layers is found by chains of relations that no lesson asks for; the lessons
    teach the rest and repair what it breaks."""
    start_options: dict[str, Any] = Field(default_factory=dict)
    """That method's options, over configs/methods/NAME.yaml; gentle ones: see docs/log.md."""
