"""SVF's memory: z trained in factor space against the authors' way, at the same rank.

The authors' code composes every scaled weight W' anew for each step, lets the backward pass make a
gradient of W's size for each, and chains those to z by hand. Both ways hold the same factors, and
what is measured is all that a step holds beyond the model's own weights.
"""

from __future__ import annotations

from typing import Any

import torch

from bench.facts import facts_of
from bench.memory import Held, held, megabytes
from bench.row import Row
from bench.shapes import SHAPES, random_model
from methods.arch import projections
from methods.hooks import at_rest
from methods.svd import Factors
from methods.svf_edit import parts_of
from methods.svf_layers import FactorSpace, correction, scaled
from methods.svf_losses import Row as Tokens
from methods.svf_losses import cross_entropy, row_of
from ske.backends.local import LocalLM
from ske.lm import ask

RANK, BATCH, SAME = 64, 4, 1e-3
COUNTED, COUNTED_TOKENS = "Llama-3.1-8B", 128


def measure(long: bool) -> list[Row]:
    """Bytes of one step: counted for a large model, measured on one of middle size."""
    lm = random_model("middle")
    full = list(parts_of(lm.model, "mlp", None))
    ranks = (0, RANK)
    found = [_measured(lm, [(one, f.largest(rank)) for one, f in full], rank) for rank in ranks]
    return [_counted(), *found[::-1]]


def _measured(lm: LocalLM, parts: list[Any], rank: int) -> Row:
    rows = [row_of(lm, ask(fact.prompt), fact.target_new) for fact in facts_of(BATCH)]
    factors = {one.name: f for one, f in parts}
    z = {name: torch.rand(len(f.s)) for name, f in factors.items()}
    with at_rest(lm.model):
        ours = held(lambda: in_factor_space(lm, parts, z, rows, rank), lm.device)
        theirs = held(lambda: by_dense_weights(lm, factors, z, rows), lm.device)
    size = sum(part.nbytes for f in factors.values() for part in f)
    what = f"SVF step at rank {rank or 'full'}, beyond the model (factors: {megabytes(size)})"
    wrong = _differing(ours, theirs)
    # At full rank the factors alone are larger than a fifth: the row is for information.
    most = 0.2 if rank else None
    peaks = [one.peak + size for one in (ours, theirs)]
    ours_told, theirs_told = map(megabytes, peaks)
    ratio = [peaks[0] / peaks[1]]
    return Row(what, ours_told, theirs_told, ratio, at_most=most, wrong=wrong)


def in_factor_space(
    lm: LocalLM, parts: list[Any], z: dict[str, torch.Tensor], rows: list[Tokens], rank: int
) -> dict[str, torch.Tensor]:
    """d loss / d z as our editor has it."""
    leaves = {name: value.clone().requires_grad_() for name, value in z.items()}
    with FactorSpace(parts, beside=rank > 0).installed() as space, torch.enable_grad():
        scales = {n: scaled(f, leaves[n], renormalise=True) for n, f in space.factors.items()}
        with space.using(scales):
            sum(cross_entropy(lm, rows), torch.zeros(())).backward()
    return {name: _gradient(leaf) for name, leaf in leaves.items()}


def by_dense_weights(
    lm: LocalLM, factors: dict[str, Factors], z: dict[str, torch.Tensor], rows: list[Tokens]
) -> dict[str, torch.Tensor]:
    """The same by composed weights and their gradients.

    dL/d(s z c)_i = u_i^T G v_i, and from there to z.
    """
    composed: dict[str, torch.Tensor] = {}
    before: dict[str, torch.Tensor] = {}
    for one in projections(lm.model, "mlp"):
        f = factors[one.name]
        change = scaled(f, z[one.name], renormalise=True) - f.s
        composed[one.name] = (one.matrix() + (f.u * change) @ f.v.T).requires_grad_()
        before[one.name] = one.weight.data
    try:
        for name, weight in composed.items():
            parameter = lm.model.get_parameter(name)
            parameter.data = weight.detach()
            parameter.requires_grad_(True)
        with torch.enable_grad():
            sum(cross_entropy(lm, rows), torch.zeros(())).backward()
        return {name: _chained(lm, name, f, z[name]) for name, f in factors.items()}
    finally:
        for name, weight in before.items():
            parameter = lm.model.get_parameter(name)
            parameter.data = weight
            parameter.grad = None
            parameter.requires_grad_(False)


def _chained(lm: LocalLM, name: str, f: Factors, z: torch.Tensor) -> torch.Tensor:
    dense = _gradient(lm.model.get_parameter(name))
    by_value = ((dense @ f.v) * f.u).sum(0)
    leaf = z.clone().requires_grad_()
    with torch.enable_grad():
        values = f.s * leaf * correction(f.s, leaf, renormalise=True)
        values.backward(by_value)
    return _gradient(leaf)


def _gradient(leaf: torch.Tensor) -> torch.Tensor:
    assert leaf.grad is not None
    return leaf.grad


def _differing(ours: Held, theirs: Held) -> str:
    off = max(
        ((own - theirs.gave[name]).abs().max() / theirs.gave[name].abs().max()).item()
        for name, own in ours.gave.items()
    )
    return f"gradients differ by {off:.1g} of the largest" if off > SAME else ""


def _counted() -> Row:
    """By the formulas, in bf16: the activations that both ways hold alike are left out."""
    _, numbers = SHAPES[COUNTED]
    hidden, inner = numbers["hidden_size"], numbers["intermediate_size"]
    matrices = 3 * numbers["num_hidden_layers"]
    factors = matrices * RANK * (hidden + inner)
    passing = 2 * matrices * COUNTED_TOKENS * RANK  # x V, and the same scaled
    dense = 2 * matrices * hidden * inner  # W' and its gradient
    ours, theirs = 2 * (factors + passing), 2 * (factors + dense)
    what = f"SVF step at rank {RANK}, beyond the model, counted for {COUNTED}"
    return Row(what, megabytes(ours), megabytes(theirs), [ours / theirs], at_most=0.2)
