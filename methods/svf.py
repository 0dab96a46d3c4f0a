"""SVF, the editor (Sun, Cetin and Tang 2025, arXiv 2501.06252, section 3.1).

Each targeted matrix W = U diag(s) V^T becomes U diag(s * z * c) V^T, and z alone is trained. From
the authors' code: z = sigmoid(p), c keeps the sum of the singular values, MLP projections are the
targets. Different: factor space instead of dense gradients, and cross-entropy by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from methods.base import Edit, HasWeights, Workshop, options_of, weights_of
from methods.svf_edit import Laying, SvfEdit, parts_of
from methods.svf_layers import FactorSpace
from methods.svf_losses import Example
from methods.svf_options import SvfOptions
from methods.svf_train import SvfTrainer, frozen
from ske.lm import LM, ask
from ske.types import Fact


class Svf:
    """The SVF editor."""

    def __init__(self, options: dict[str, Any], workshop: Workshop) -> None:
        """Raises UserError on unknown options."""
        self.options: SvfOptions = options_of(SvfOptions, options, "svf")
        self.workshop = workshop

    def edit(self, lm: LM, facts: Sequence[Fact]) -> Edit:
        """Train one z on (prompt, new target) pairs, or one for each relation."""
        holder, options = weights_of(lm, "svf"), self.options
        examples = [Example(ask(fact.prompt), fact.target_new) for fact in facts]
        parts = parts_of(holder.model, options.targets, self.workshop.cache)
        with frozen(holder.model), FactorSpace(parts, beside=False).installed() as space:
            trainer = SvfTrainer(space, holder, options, self.workshop)
            z = trainer.train(examples)
        laying = Laying(renormalise=options.renormalise, apply=options.apply)
        about = {"seed": self.workshop.seed, "options": options.model_dump()}
        return SvfEdit(z, laying, about, self.workshop.cache)
