"""Rank-one pieces of gradients: what each token adds to the gradient of a weight matrix.

The gradient of `y = W x` is `sum_t delta_t x_t^T`: with the inputs x and the output gradients
delta of every token it is known without ever being built. An update of the same form is added to
the forward pass as `(x A^T) B`, so that no edited matrix is built either, and gradients flow to A
and B (Mitchell et al. 2022, arXiv 2110.11309, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers.modeling_utils import PreTrainedModel

from methods.arch import Projection, decoder_of

IGNORED = -100


class Factors(NamedTuple):
    """`sum_t deltas[t] inputs[t]^T`, for each of some independent edits."""

    inputs: torch.Tensor
    """[edits, tokens, in]"""
    deltas: torch.Tensor
    """[edits, tokens, out]"""


class Row(NamedTuple):
    """A text whose end is the answer."""

    ids: list[int]
    start: int
    """Place of the answer's first token, at least 1."""


class Batch(NamedTuple):
    """Rows of one length, padded on the right."""

    ids: torch.Tensor
    """[rows, longest]"""
    mask: torch.Tensor
    """[rows, longest], 1 where there is text."""
    labels: torch.Tensor
    """[rows, longest], the answer's tokens in their own places, else -100."""


def mlp_matrices(model: PreTrainedModel, layers: int) -> list[Projection]:
    """The matrices outside of attention in the last `layers` decoder layers, in their order.

    Raises:
        UserError: as `decoder_of` (experts that are one tensor, for example).
    """
    last = decoder_of(model).layers[-layers:]
    return [projection for layer in last for projection in layer.mlp_projections]


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """In fp32, or as it is if that is more."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def collate(rows: Sequence[Row], pad: int, device: torch.device) -> Batch:
    """Rows as tensors."""
    longest = max(len(row.ids) for row in rows)
    spare = [longest - len(row.ids) for row in rows]
    ids = [row.ids + [pad] * n for row, n in zip(rows, spare, strict=True)]
    mask = [[1] * len(row.ids) + [0] * n for row, n in zip(rows, spare, strict=True)]
    labels = [
        [IGNORED] * row.start + row.ids[row.start :] + [IGNORED] * n
        for row, n in zip(rows, spare, strict=True)
    ]
    return Batch(*(torch.tensor(t, device=device) for t in (ids, mask, labels)))


def log_probs(model: PreTrainedModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """What the model says where the answers stand.

    Returns:
        Log-probabilities [positions, vocabulary] in fp32, and each position's weight [positions]:
        one over the length of its answer, so that the weights of a row add up to 1.
    """
    output: Any = model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False)
    said = batch.labels[:, 1:] != IGNORED
    weights = (said / said.sum(1, keepdim=True).clamp(min=1))[said]
    return torch.log_softmax(wide(output.logits[:, :-1][said]), dim=-1), weights


def answer_loss(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Mean negative log-likelihood of each answer's tokens, summed over the rows, in nats."""
    spoken, weights = log_probs(model, batch)
    return answer_nll(spoken, weights, batch)


def answer_nll(spoken: torch.Tensor, weights: torch.Tensor, batch: Batch) -> torch.Tensor:
    """`answer_loss` from what `log_probs` gave."""
    targets = batch.labels[:, 1:]
    targets = targets[targets != IGNORED]
    return -(spoken.gather(1, targets[:, None])[:, 0] * weights).sum()


def gradient_factors(
    model: PreTrainedModel, matrices: Sequence[Projection], batch: Batch
) -> list[Factors]:
    """Inputs and output gradients of `answer_loss` at every token, one `Factors` a matrix.

    The rows stand alone: a row's factors do not depend on the others. Shapes [rows, longest, in]
    and [rows, longest, out], fp32; gradients are zero on padding.
    """
    inputs: dict[str, torch.Tensor] = {}
    probes: dict[str, torch.Tensor] = {}

    def probe(matrix: Projection) -> Callable[..., torch.Tensor]:
        def hook(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
            inputs[matrix.name] = args[0].detach()
            # The gradient of what is added to an output is the gradient of the output.
            probes[matrix.name] = torch.zeros_like(output, requires_grad=True)
            return output + probes[matrix.name]

        return hook

    with torch.enable_grad(), _hooked(matrices, probe):
        loss = answer_loss(model, batch)
        deltas = torch.autograd.grad(loss, [probes[matrix.name] for matrix in matrices])
    rows, device = len(batch.ids), batch.ids.device
    return [
        Factors(
            wide(inputs[matrix.name].reshape(rows, -1, matrix.inputs)).to(device),
            wide(delta.reshape(rows, -1, matrix.outputs)).to(device),
        )
        for matrix, delta in zip(matrices, deltas, strict=True)
    ]


@contextmanager
def updated(matrices: Sequence[Projection], updates: Sequence[Factors]) -> Iterator[None]:
    """The model's forward with `updates` added to the matrices, as `(x inputs^T) deltas`.

    With several edits, the rows of a batch are cut into as many equal parts, and each part sees its
    own edit.
    """
    of = {matrix.name: update for matrix, update in zip(matrices, updates, strict=True)}

    def add(matrix: Projection) -> Callable[..., torch.Tensor]:
        update = of[matrix.name]

        def hook(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
            x = args[0].reshape(len(update.inputs), -1, matrix.inputs).to(update.inputs)
            added = (x @ update.inputs.mT) @ update.deltas
            return output + added.reshape(output.shape).to(output)

        return hook

    with _hooked(matrices, add):
        yield


@contextmanager
def _hooked(
    matrices: Sequence[Projection], make: Callable[[Projection], Callable[..., torch.Tensor]]
) -> Iterator[None]:
    handles = []
    try:
        for matrix in matrices:
            handles.append(matrix.module.register_forward_hook(make(matrix)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def frozen(model: PreTrainedModel) -> Iterator[None]:
    """No weight of the model asks for a gradient: backward passes end at the first edited layer."""
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in wanted:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)
