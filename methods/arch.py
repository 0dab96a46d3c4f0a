"""Where things are in a decoder: layers, MLPs, projections, norm, head, embedding.

Found from the modules' structure and shapes, so that an architecture nobody thought of works too.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import nn
from transformers.modeling_utils import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ske.types import UserError

Targets = Literal["mlp", "attention", "all"]


class Projection(NamedTuple):
    """A linear map, whichever way round its weight is stored."""

    name: str
    """The path of its weight, as `model.get_parameter` takes it."""
    module: nn.Module
    flipped: bool
    """True for Conv1D (GPT-2), whose weight is [in, out] and not [out, in]."""

    @property
    def weight(self) -> nn.Parameter:
        """The stored weight, [out, in], or [in, out] if `flipped`."""
        return self.module.get_parameter("weight")

    @property
    def inputs(self) -> int:
        """How long its input is."""
        return self.weight.shape[0 if self.flipped else 1]

    @property
    def outputs(self) -> int:
        """How long its output is."""
        return self.weight.shape[1 if self.flipped else 0]

    def oriented(self, matrix: torch.Tensor) -> torch.Tensor:
        """A matrix [out, in] in the weight's own orientation (and the other way round)."""
        return matrix.T if self.flipped else matrix

    def matrix(self) -> torch.Tensor:
        """A view of the weight as [out, in]."""
        return self.oriented(self.weight.detach())


class Layer(NamedTuple):
    """One decoder layer; `mlp` and `attention` are its direct children."""

    name: str
    """The module path, e.g. "model.layers.3"."""
    block: nn.Module
    mlp: nn.Module
    mlp_projections: tuple[Projection, ...]
    """All linear maps outside of attention, in the model's order."""
    down: Projection
    """The MLP's last projection, [intermediate] -> [hidden]."""
    attention: nn.Module
    attention_projections: tuple[Projection, ...]
    attention_out: Projection
    """The attention's last projection, [heads * head size] -> [hidden]."""


class Decoder(NamedTuple):
    """A model's parts."""

    layers: list[Layer]
    hidden: int
    norm: nn.Module
    """The final norm."""
    head: nn.Module
    embedding: nn.Module


def decoder_of(model: PreTrainedModel) -> Decoder:
    """Find the parts of a decoder-only model.

    Raises:
        UserError: the model is built in another way (mixture of experts, quantised, no decoder).
    """
    hidden = model.config.get_text_config().hidden_size
    name, blocks = _blocks(model)
    layers = [_layer(model, f"{name}.{i}", block, hidden) for i, block in enumerate(blocks)]
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if not isinstance(head, nn.Module) or not isinstance(embedding, nn.Module):
        raise _unknown(model, "no output head, or no input embedding")
    return Decoder(layers, hidden, _norm(model, name), head, embedding)


def chosen_layers(
    decoder: Decoder, layers: tuple[int, ...] | None, first: float, last: float
) -> list[Layer]:
    """The layers asked for by number, or those from `first` to `last` as fractions of the depth.

    Raises:
        UserError: a layer that the model does not have.
    """
    depth = len(decoder.layers)
    numbers = layers or tuple(range(_at(first, depth), _at(last, depth) + 1))
    check_layers(numbers, depth)
    return [decoder.layers[number] for number in sorted(set(numbers))]


def check_layers(layers: Sequence[int], depth: int) -> None:
    """Raises UserError on a layer that a model of this depth does not have."""
    for number in layers:
        if not 0 <= number < depth:
            raise UserError(f"layers: {number} is not there; the model has layers 0 to {depth - 1}")


def projections(model: PreTrainedModel, targets: Targets) -> list[Projection]:
    """The projections of all layers' MLPs, attention, or both, in the layers' order.

    Raises:
        UserError: as `decoder_of`.
    """
    return [
        projection
        for layer in decoder_of(model).layers
        for kind, own in (
            ("attention", layer.attention_projections),
            ("mlp", layer.mlp_projections),
        )
        for projection in own
        if targets in (kind, "all")
    ]


def _at(fraction: float, depth: int) -> int:
    return min(depth - 1, round(fraction * depth))


def _blocks(model: PreTrainedModel) -> tuple[str, nn.ModuleList]:
    """The list of decoder layers: as many equal modules as the configuration says, deep inside."""
    depth = model.config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            kinds = {type(block) for block in module}
            if len(kinds) == 1 and any(_linears("", module[0])):
                return name, module
    raise _unknown(model, f"no list of {depth} decoder layers")


def _layer(model: PreTrainedModel, name: str, block: nn.Module, hidden: int) -> Layer:
    """Tell attention and MLP apart by what they are called with: only one is given a mask."""
    inside: dict[bool, list[Projection]] = {True: [], False: []}
    ends: dict[bool, tuple[nn.Module, Projection]] = {}
    for child_name, child in block.named_children():
        found = list(_linears(f"{name}.{child_name}", child))
        attends = any("mask" in key for key in inspect.signature(child.forward).parameters)
        inside[attends] += found
        into = [one for one in found if one.outputs == hidden or _quantised(one)]
        if into:
            ends[attends] = child, into[-1]
    for attends, part in ((False, "MLP with a dense projection"), (True, "attention")):
        quantised = next(filter(_quantised, inside[attends]), None)
        if quantised:
            stored = f"{quantised.name} is stored as {quantised.weight.dtype}"
            raise _unknown(model, f"{stored}; load it unquantised")
        if attends not in ends:
            raise _unknown(model, f"{name} has no {part} that ends in {hidden} dimensions")
    return Layer(
        name,
        block,
        mlp=ends[False][0],
        mlp_projections=tuple(inside[False]),
        down=ends[False][1],
        attention=ends[True][0],
        attention_projections=tuple(inside[True]),
        attention_out=ends[True][1],
    )


def _quantised(projection: Projection) -> bool:
    return not projection.weight.is_floating_point()


def _linears(prefix: str, module: nn.Module) -> Iterator[Projection]:
    """Linear maps inside a module, in order."""
    for name, part in module.named_modules(prefix=prefix):
        if isinstance(part, nn.Linear | Conv1D):
            yield Projection(f"{name}.weight", part, isinstance(part, Conv1D))


def _norm(model: PreTrainedModel, blocks: str) -> nn.Module:
    """The final norm: the last norm among the siblings of the list of layers."""
    parent = model.get_submodule(blocks.rpartition(".")[0])
    norms = [child for child in parent.children() if "norm" in type(child).__name__.casefold()]
    if not norms:
        raise _unknown(model, "no norm after the last layer")
    return norms[-1]


def _unknown(model: PreTrainedModel, why: str) -> UserError:
    return UserError(
        f"{type(model).__name__}: {why}; this method edits dense decoder-only transformers "
        "in floating point (GPT-2, GPT-NeoX, GPT-J, Llama, Mistral, Qwen, Gemma, Phi, OLMo)"
    )
