"""SVF against numbers from the authors' own code (`tests/golden/README.md` says how they came)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from methods.arch import Projection
from methods.svd import factors_of
from methods.svf_layers import merged, scaled, through

GOLDEN = json.loads((Path(__file__).parent / "golden" / "svf.json").read_text(encoding="utf-8"))
NUMBERS = {"tall": 0, "wide": 1, "square": 2, "max_mult_2": 0, "bfloat16": 0}


def draw(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def linear(case: dict[str, Any], number: int) -> Projection:
    out, inner = case["shape"]
    module = torch.nn.Linear(inner, out, bias=False)
    with torch.no_grad():
        module.weight.copy_(draw((out, inner), 31 + number))
    assert module.weight[0, :4].tolist() == pytest.approx(case["weight"])
    return Projection("weight", module, False)


def p_of(case: dict[str, Any]) -> torch.Tensor:
    return torch.tensor(case["p"], requires_grad=True)


# bfloat16 is the authors' own precision; its numbers are two digits, ours stay fp32.
@pytest.mark.parametrize(
    ("name", "tolerance"), [*((n, 1e-5) for n in NUMBERS if n != "bfloat16"), ("bfloat16", 2e-2)]
)
def test_weights_and_gradients_are_the_authors(name: str, tolerance: float) -> None:
    case, number = GOLDEN[name], NUMBERS[name]
    projection = linear(case, number)
    factors, p = factors_of(projection), p_of(case)
    z = torch.sigmoid(p) * case["max_mult"]
    scale = scaled(factors, z, renormalise=True)
    assert z.tolist() == pytest.approx(case["mask"], rel=tolerance)
    assert (scale / factors.s / z).tolist() == pytest.approx(
        [case["renormalisation"]] * len(p), rel=tolerance
    )
    expected = torch.tensor(case["composed"])
    most = expected.abs().max().item()
    # All rows of the identity through the factors: W' itself, transposed.
    composed = through(torch.eye(case["shape"][1]), factors, scale).T
    assert torch.allclose(composed, expected, atol=tolerance * most, rtol=0)
    composed.backward(draw(composed.shape, 51 + number))
    gradient = torch.tensor(case["gradient"])
    assert p.grad is not None
    # Singular vectors whose values are close (7.23, 7.12) mix in fp32, and their gradients do.
    error = (p.grad - gradient).abs().max() / gradient.abs().max()
    assert error < 5 * tolerance

    before = projection.weight.detach().clone()
    with merged(
        projection.module, [(projection, factors)], lambda _, f: scaled(f, z.detach(), True)
    ):
        assert torch.allclose(projection.weight, expected, atol=tolerance * most, rtol=0)
    assert torch.equal(projection.weight, before)
