"""AlphaEdit: MEMIT in the null space of what a layer stores (Fang et al. 2024, arXiv 2410.02355).

An update is projected on the null space of C, the directions that keys hardly ever take, so that
lambda C is not needed to weigh against it; keys of earlier batches are kept instead (section 3,
equation 12). Here the (in x in) system of the authors' code is solved by an equal one, in fp64: of
the size of the facts or of the null space, whichever is less.
"""

from __future__ import annotations

import torch
from pydantic import Field

from methods.arch import Projection
from methods.memit import Memit, Solver, SpreadOptions
from methods.moments import Moment
from ske.types import UserError


class AlphaEditOptions(SpreadOptions):
    """AlphaEdit's own; steps and rate as published for Llama-3."""

    steps: int = Field(default=25, ge=1)
    learning_rate: float = Field(default=0.1, gt=0)
    threshold: float = Field(default=0.02, gt=0)
    """Directions in which C is smaller than this are free to be written to. Published for Llama-3,
    GPT-2 XL and GPT-J; how many directions that is depends on the scale of a model's keys."""
    free_share: float | None = Field(default=None, gt=0, le=1)
    """Instead of `threshold`: so many of all directions are free, from the least used on."""
    ridge: float = Field(default=10.0, gt=0)
    """L2 of the authors' code: how much the update's size weighs."""


class NullSpace(Solver):
    """(P (K K^T + K_0 K_0^T) + L2 1)^-1 P K, with the keys K_0 of earlier batches."""

    def __init__(self, basis: torch.Tensor, ridge: float) -> None:
        """`basis` [in, free] spans the null space: P = basis basis^T."""
        self.basis, self.ridge = basis, ridge
        self.earlier = basis.new_zeros(0, basis.shape[1])
        """What earlier keys are in the null space, or as few rows with the same products."""

    def lefts(self, keys: torch.Tensor) -> torch.Tensor:
        """With G = P [K, K_0], it is the first n columns of G (G^T G + L2 1)^-1.

        That is (G G^T + L2 1)^-1 P K, too, which is the smaller system when there are more keys
        than directions.
        """
        own = keys.double() @ self.basis
        free = torch.cat([own, self.earlier])
        wide = len(free) > free.shape[1]
        inner = free.T @ free if wide else free @ free.T
        inner.diagonal().add_(self.ridge)
        if wide:
            return torch.linalg.solve(inner, own.T).T @ self.basis.T
        return torch.linalg.solve(inner, free)[: len(keys)] @ self.basis.T

    def remember(self, keys: torch.Tensor) -> None:
        """Later updates keep what these keys give. Only their products count: see R of QR."""
        self.earlier = torch.cat([self.earlier, keys.double() @ self.basis])
        if len(self.earlier) > self.earlier.shape[1]:
            self.earlier = torch.linalg.qr(self.earlier, mode="r").R


def null_space(moment: Moment, options: AlphaEditOptions, name: str) -> torch.Tensor:
    """An orthonormal basis [in, free] of the directions that keys hardly take.

    Raises:
        UserError: C is below the threshold in none.
    """
    sizes, directions = torch.linalg.eigh(moment.mean())  # smallest first
    if options.free_share is not None:
        return directions[:, : max(1, round(options.free_share * len(sizes)))]
    free = directions[:, sizes < options.threshold]
    if free.shape[1] == 0:
        raise UserError(
            f"alphaedit: no direction of {name} is free: its second moment is nowhere below "
            f"threshold = {options.threshold} (least {sizes[0]:.3g}, median "
            f"{sizes.median():.3g}); give a larger threshold, or free_share, e.g. 0.5"
        )
    return free


class AlphaEdit(Memit):
    """The AlphaEdit editor."""

    name = "alphaedit"
    schema = AlphaEditOptions

    def solver(self, moment: Moment, projection: Projection) -> Solver:
        """What a layer is solved by."""
        basis = null_space(moment, self.options, projection.name)
        return NullSpace(basis, self.options.ridge)
