"""MEND: a trained network turns a fact's gradient into its edit (Mitchell et al. 2022).

arXiv 2110.11309. Training needs practice facts and depends on the model, the practice and the
options alone, so it is kept in the workshop's cache and a second edit takes seconds. Several facts
are edited at once by the sum of their transformed gradients.

Differs from the paper in this: the loss is that of the answer and its end token, each fact's
gradient is that of its own mean (so that it does not shrink when others are edited with it), and
the divergence is measured where unrelated answers stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from methods.arch import Projection
from methods.base import HasWeights, Practice, Workshop, options_of, weights_of
from methods.delta import DeltaEdit, LowRank
from methods.fingerprint import fingerprint
from methods.mend_factors import (
    Factors,
    Row,
    collate,
    frozen,
    gradient_factors,
    mlp_matrices,
)
from methods.mend_state import load_transforms, save_transforms
from methods.mend_training import MendOptions, Trainer, drills, require_unrelated, row, together
from methods.mend_transform import Transforms, informative
from ske.backends.render import Renderer
from ske.lm import LM, ask
from ske.types import Fact, UserError, content_hash

PASS_TOKENS = 4096
"""Tokens of one backward pass when facts are edited."""


class Mend:
    """The MEND editor."""

    def __init__(self, options: dict[str, Any], workshop: Workshop) -> None:
        """Raises UserError on unknown options."""
        self.options: MendOptions = options_of(MendOptions, options, "mend")
        self.workshop = workshop
        self._last: tuple[str, Renderer, Transforms] | None = None

    def check_practice(self, practice: Sequence[Practice]) -> None:
        """Raises UserError if nothing can be learned from these."""
        require_unrelated(practice)

    def edit(self, lm: LM, facts: Sequence[Fact]) -> DeltaEdit:
        """Train the transform, unless it is in the cache, and transform the facts' gradients.

        Raises:
            UserError: no weights, or no practice facts.
        """
        holder = weights_of(lm, "mend")
        matrices = mlp_matrices(holder.model, self.options.layers)
        with frozen(holder.model):
            transforms = self._transforms(holder, matrices)
            rows = [row(holder, ask(fact.prompt), fact.target_new) for fact in facts]
            return DeltaEdit(_deltas(holder, matrices, transforms, rows), "mend")

    def _transforms(self, holder: HasWeights, matrices: Sequence[Projection]) -> Transforms:
        """Those of the last edit if the model is still the same, else from the cache or trained."""
        model, renderer = fingerprint(holder.model), holder.renderer
        if self._last is None or self._last[0] != model or self._last[1] is not renderer:
            self._last = model, renderer, self._trained(holder, matrices, model)
        return self._last[2]

    def _trained(
        self, holder: HasWeights, matrices: Sequence[Projection], model: str
    ) -> Transforms:
        options, workshop = self.options, self.workshop
        if workshop.practice is None:
            raise UserError(
                "mend learns to edit from solved examples and was given none: give practice facts "
                "(not those to be edited) with other wordings and with (prompt, answer) pairs that "
                "must stay, as Workshop.practice"
            )
        made = drills(holder, workshop.practice())
        generator = torch.Generator().manual_seed(workshop.seed)
        transforms = Transforms(
            matrices, options.rank, options.edit_lr, generator, options.normalise
        ).to(holder.model.device)
        known = [model, made, options.model_dump(), workshop.seed]
        name = f"mend-{content_hash(known)}"
        done, going = _files(workshop, name)
        if load_transforms(done, transforms):
            return transforms
        trainer = Trainer(holder, matrices, transforms, made, options, workshop.seed)
        with torch.enable_grad():
            progress = trainer.run(going, workshop.progress)
        if done is not None:
            save_transforms(done, transforms, progress)
        if going is not None:
            going.unlink(missing_ok=True)
        return transforms


def _files(workshop: Workshop, name: str) -> tuple[Path | None, Path | None]:
    """Where the trained transform lies, and where a training that goes on."""
    folder = workshop.cache or workshop.folder
    if folder is None:
        return None, None
    return folder / f"{name}.safetensors", folder / f"{name}.training.safetensors"


@torch.no_grad()
def _deltas(
    holder: HasWeights, matrices: Sequence[Projection], transforms: Transforms, rows: Sequence[Row]
) -> dict[str, LowRank | torch.Tensor]:
    """The sum of the rows' transformed gradients, as few rows a pass as memory wants."""
    deltas: dict[str, LowRank | torch.Tensor] = {}
    size = max(1, PASS_TOKENS // max((len(each.ids) for each in rows), default=1))
    for first in range(0, len(rows), size):
        batch = collate(
            rows[first : first + size], holder.renderer.end_id or 0, holder.model.device
        )
        gradients = [together(f, 1) for f in gradient_factors(holder.model, matrices, batch)]
        for matrix, raw, new in zip(matrices, gradients, transforms(gradients), strict=True):
            used = informative(raw)
            update = Factors(new.inputs[used], new.deltas[used])
            deltas[matrix.name] = _added(deltas.get(matrix.name), update, matrix.flipped)
    return deltas


def _added(
    before: LowRank | torch.Tensor | None, update: Factors, flipped: bool
) -> LowRank | torch.Tensor:
    """One more update: thin factors, or the whole matrix where that is smaller."""
    up, down = (update.inputs, update.deltas) if flipped else (update.deltas, update.inputs)
    up, down = up.T.cpu(), down.cpu()
    if isinstance(before, LowRank):
        up, down = torch.cat([before.up, up], dim=1), torch.cat([before.down, down])
    if isinstance(before, torch.Tensor):
        return before + up @ down
    total = LowRank(up, down)
    rank, size = len(down), up.shape[0] * down.shape[1]
    return total if rank * (up.shape[0] + down.shape[1]) <= size else total.dense()
