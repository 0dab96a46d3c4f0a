"""SVF's arithmetic: projections whose singular values are scaled, without a dense product.

A projection W = U diag(s) V^T becomes W' = U diag(s * z * c) V^T. In factor space it answers
y = ((x V) * (s z c)) U^T, so that neither W' nor a gradient of W's shape is ever made: the largest
things beside the factors are activations, [tokens, rank]. Merging adds W' - W to the weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from methods.arch import Projection
from methods.svd import Factors

Scales = Mapping[str, torch.Tensor]
"""By the weight's name: [rank], one number a singular value."""


def correction(s: torch.Tensor, z: torch.Tensor, renormalise: bool) -> torch.Tensor:
    """The factor sum(s) / sum(s z), which keeps the sum of the singular values; or 1.

    It is in the authors' code (`compose_new_params`), not in the paper's formula.
    """
    return s.sum() / (s * z).sum() if renormalise else torch.ones((), device=s.device)


def scaled(factors: Factors, z: torch.Tensor, renormalise: bool) -> torch.Tensor:
    """The new singular values s * z * c, [rank]."""
    z = z.to(factors.s.device)
    return factors.s * z * correction(factors.s, z, renormalise)


class FactorSpace:
    """Projections that answer in factor space while `installed`.

    `scales` holds their new singular values; None lets them answer as they were found.
    """

    def __init__(
        self, parts: Iterable[tuple[Projection, Factors]], beside: bool, cast: bool = True
    ) -> None:
        """Takes the factors; they are held in the weight's precision if `cast`.

        With `beside`, what the projection computes anyway stays and only the difference goes
        through the factors. That costs the dense product, and edits inside of this one still
        count. Without, the factors stand in for the weight.
        """
        self.scales: Scales | None = None
        self.projections: list[Projection] = []
        self.factors: dict[str, Factors] = {}
        self.beside = beside
        for projection, factors in parts:
            dtype = projection.weight.dtype if cast else torch.float32
            self.projections.append(projection)
            self.factors[projection.name] = factors.cast(dtype)

    @contextmanager
    def installed(self) -> Iterator[FactorSpace]:
        """Put the forward passes in and take them out, whatever happens."""
        before: list[tuple[nn.Module, Any]] = []
        try:
            for projection in self.projections:
                module = projection.module
                before.append((module, module.__dict__.get("forward")))
                module.forward = self._forward(projection)
            yield self
        finally:
            self.scales = None
            for module, own in reversed(before):
                module.__dict__.pop("forward", None)
                if own is not None:
                    module.__dict__["forward"] = own

    @contextmanager
    def using(self, scales: Scales | None) -> Iterator[None]:
        """Answer with these singular values, or as found, for the length of a `with` block."""
        outer, self.scales = self.scales, scales
        try:
            yield
        finally:
            self.scales = outer

    def _forward(self, projection: Projection) -> Callable[[torch.Tensor], torch.Tensor]:
        found = projection.module.forward
        # A forward of its own means that another edit is at work here: it must go on counting.
        beside = self.beside or "forward" in projection.module.__dict__
        factors = self.factors[projection.name]
        bias: Any = projection.module.bias

        def forward(x: torch.Tensor) -> torch.Tensor:
            if self.scales is None:
                return found(x)
            scale = self.scales[projection.name]
            if beside:
                return found(x) + through(x, factors, scale - factors.s)
            y = through(x, factors, scale)
            return y if bias is None else y + bias

        return forward


def through(x: torch.Tensor, factors: Factors, scale: torch.Tensor) -> torch.Tensor:
    """((x V) * scale) U^T for x [..., in], to [..., out], in x's precision.

    The product with the scale is in fp32: a scale that training moves by a thousandth would not
    move at all in bf16.
    """
    hidden = (x.to(factors.v.dtype) @ factors.v) * scale
    return (hidden.to(factors.u.dtype) @ factors.u.T).to(x.dtype)


@contextmanager
def merged(
    model: nn.Module,
    parts: Iterable[tuple[Projection, Factors]],
    new_values: Callable[[str, Factors], torch.Tensor],
) -> Iterator[None]:
    """Add U diag(new - s) V^T to each weight; the very bits that were there come back on exit.

    `parts` may be a generator: then one matrix' factors at a time are in memory.
    """
    originals: dict[str, torch.Tensor] = {}
    try:
        for projection, factors in parts:
            difference = new_values(projection.name, factors) - factors.s
            delta = (factors.u * difference) @ factors.v.T
            weight = projection.weight
            originals[projection.name] = weight.detach().clone()
            with torch.no_grad():
                weight += (delta.T if projection.flipped else delta).to(weight.dtype)
        yield
    finally:
        with torch.no_grad():
            for name, original in originals.items():
                model.get_parameter(name).copy_(original)
