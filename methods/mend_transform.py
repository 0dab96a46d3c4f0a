"""MEND's gradient transform: maps a gradient's factors to those of an edit.

Mitchell et al. 2022 (arXiv 2110.11309), section 3.2, equations 3 and 4. One transform serves all
matrices of one shape; each of them has its own scale and shift inside. An edit is
`W - lr * sum_t delta'_t x'_t^T`, with one learned `lr` a matrix. (The authors' code adds the update
where the paper takes it off; the learned rates may have either sign, so it is the same family.)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from methods.arch import Projection
from methods.mend_factors import Factors


class LowRankLayer(nn.Module):
    """`x + max(0, scale * (U V x + b) + shift)`, the identity at first: U and b are zero."""

    def __init__(self, width: int, rank: int, matrices: int, generator: torch.Generator) -> None:
        """`scale` and `shift` [matrices, width] have one row a matrix; V is standard normal."""
        super().__init__()
        rank = min(rank, width)
        self.up = nn.Parameter(torch.zeros(width, rank))
        self.down = nn.Parameter(torch.randn(rank, width, generator=generator))
        self.bias = nn.Parameter(torch.zeros(width))
        self.scale = nn.Parameter(torch.ones(matrices, width))
        self.shift = nn.Parameter(torch.zeros(matrices, width))

    def forward(self, x: torch.Tensor, matrix: int) -> torch.Tensor:
        """[..., width] -> [..., width]."""
        inner = (x @ self.down.T) @ self.up.T + self.bias
        # At first all of this is 0, where ReLU has no gradient and a clamp has.
        return x + (inner * self.scale[matrix] + self.shift[matrix]).clamp(min=0)


class GradientTransform(nn.Module):
    """Two layers over [x; delta], normalised by running statistics of what was seen in training.

    Buffers: `count` (tokens seen), `mean` and `squares` [in + out] (sum of squared deviations).
    """

    count: torch.Tensor
    mean: torch.Tensor
    squares: torch.Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        matrices: int,
        rank: int,
        generator: torch.Generator,
        normalise: bool = True,
        layers: int = 2,
    ) -> None:
        """`rank` is the width inside a layer, at most in + out."""
        super().__init__()
        width = inputs + outputs
        self.inputs, self.normalise = inputs, normalise
        self.layers = nn.ModuleList(
            LowRankLayer(width, rank, matrices, generator) for _ in range(layers)
        )
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("squares", torch.zeros(width))

    @torch.no_grad()
    def observe(self, factors: Factors) -> None:
        """Merge tokens into the running statistics; those without a gradient do not count."""
        used = informative(factors)
        seen = torch.cat([factors.inputs[used], factors.deltas[used]], dim=-1)
        if not len(seen):
            return
        mean, total = seen.mean(0), self.count + len(seen)
        apart = mean - self.mean
        self.squares += (seen - mean).square().sum(0) + apart**2 * self.count * len(seen) / total
        self.mean += apart * len(seen) / total
        self.count.copy_(total)

    def forward(self, factors: Factors, matrix: int) -> Factors:
        """Transformed factors of the same shapes; tokens without a gradient give zeros."""
        joined = torch.cat([factors.inputs, factors.deltas], dim=-1)
        if self.normalise:
            deviation = (self.squares / (self.count - 1).clamp(min=1)).sqrt()
            apart = (joined - self.mean) / (deviation + 1e-7)
            # What never changed in training would be blown up by its first change.
            joined = torch.where(deviation > 0, apart, 0.0)
        for layer in self.layers:
            joined = layer(joined, matrix)
        joined = joined * informative(factors)[..., None]
        return Factors(joined[..., : self.inputs], joined[..., self.inputs :])


def informative(factors: Factors) -> torch.Tensor:
    """[edits, tokens]: whether input and gradient both are more than zeros."""
    return (factors.inputs != 0).any(-1) & (factors.deltas != 0).any(-1)


class Transforms(nn.Module):
    """The transforms of all edited matrices, one a shape, and the matrices' learning rates."""

    def __init__(
        self,
        matrices: Sequence[Projection],
        rank: int,
        edit_lr: float,
        generator: torch.Generator,
        normalise: bool = True,
    ) -> None:
        """`edit_lr` is what every matrix's learning rate starts from."""
        super().__init__()
        shapes: dict[str, list[Projection]] = {}
        self.places: list[tuple[str, int]] = []
        for matrix in matrices:
            same = shapes.setdefault(f"{matrix.inputs}x{matrix.outputs}", [])
            self.places.append((f"{matrix.inputs}x{matrix.outputs}", len(same)))
            same.append(matrix)
        self.shapes = nn.ModuleDict(
            {
                shape: GradientTransform(
                    same[0].inputs, same[0].outputs, len(same), rank, generator, normalise
                )
                for shape, same in shapes.items()
            }
        )
        self.edit_lrs = nn.Parameter(torch.full((len(matrices),), edit_lr))

    def observe(self, gradients: Sequence[Factors]) -> None:
        """Merge the tokens of every matrix into the statistics of its shape."""
        for (shape, _), factors in zip(self.places, gradients, strict=True):
            transform = self.shapes[shape]
            assert isinstance(transform, GradientTransform)
            transform.observe(factors)

    def forward(self, gradients: Sequence[Factors], learning: bool = False) -> list[Factors]:
        """What to add to each matrix: transformed factors, with -lr in the deltas.

        In training each matrix's tokens enter the statistics right before they are transformed.
        """
        updates = []
        for (shape, place), lr, factors in zip(self.places, self.edit_lrs, gradients, strict=True):
            transform = self.shapes[shape]
            assert isinstance(transform, GradientTransform)
            if learning:
                transform.observe(factors)
            changed = transform(factors, place)
            updates.append(Factors(changed.inputs, -lr * changed.deltas))
        return updates
