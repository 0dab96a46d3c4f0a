"""LocFT-BF: fine-tuning of one MLP projection, breadth first (Yang et al. 2025, arXiv 2509.22072).

Large shuffled batches over all facts, epoch after epoch, with the end token in the target. That
breadth-first order is what the paper finds missing in earlier fine-tuning baselines, together with
the choice of layer.

Differs: the published code skips steps on batches whose loss is below 0.01; here only the training
as a whole stops there. Gradients are clipped to norm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from methods.base import Workshop, options_of, weights_of
from methods.delta import DeltaEdit
from methods.ft import OneLayerOptions, Share, spoken_targets, train_weights
from ske.lm import LM
from ske.training import Count
from ske.types import Fact


class LocFtOptions(OneLayerOptions):
    """As published: learning rate 5e-4, at most 25 epochs, layer 22 of 32 (6 of 28 for Qwen2.5)."""

    batch_size: Count = 100
    depth: Share = 0.6875


class LocFt:
    """The LocFT-BF editor."""

    def __init__(self, options: dict[str, Any], workshop: Workshop) -> None:
        """Raises UserError on unknown options."""
        self.options: LocFtOptions = options_of(LocFtOptions, options, "locft")
        self.workshop = workshop

    def edit(self, lm: LM, facts: Sequence[Fact]) -> DeltaEdit:
        """Train one matrix on (prompt, new target, end) lessons."""
        holder = weights_of(lm, "locft")
        lessons = spoken_targets(holder, facts, end=True)
        return train_weights(holder, lessons, self.options, self.workshop, "locft")
