"""Which matrices of a model a method works on: the projections of its MLPs and its attention.

They are found from the model's structure: the list of layers is the one that is as long as the
configuration says, attention is what takes an attention mask, and the rest of a layer is its MLP.
"""

from __future__ import annotations

import inspect
from typing import Literal, NamedTuple

import torch
from torch import nn
from transformers.modeling_utils import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ske.types import UserError

Targets = Literal["mlp", "attention", "all"]


class Projection(NamedTuple):
    """A linear map inside a layer."""

    name: str
    """Of its weight, as `model.get_parameter` takes it."""
    module: nn.Module
    flipped: bool
    """Whether the weight is stored as [in, out] (Conv1D) and not as [out, in]."""

    @property
    def weight(self) -> torch.Tensor:
        """The stored weight, [out, in], or [in, out] if `flipped`."""
        return self.module.get_parameter("weight")

    def matrix(self) -> torch.Tensor:
        """A view of the weight as [out, in]."""
        weight = self.weight.detach()
        return weight.T if self.flipped else weight


def projections(model: PreTrainedModel, targets: Targets, method: str) -> list[Projection]:
    """The projections of all layers, in the model's own order.

    Raises:
        UserError: no layers or no such projections are found, or they are quantised.
    """
    found = []
    for path, layer in _layers(model, method):
        attention = _attention(layer)
        for name, module in layer.named_modules():
            if not isinstance(module, (nn.Linear, Conv1D)):
                continue
            kind = "attention" if name.split(".")[0] in attention else "mlp"
            if targets in (kind, "all"):
                place = f"{path}.{name}.weight"
                found.append(Projection(place, module, isinstance(module, Conv1D)))
    if not found:
        raise UserError(
            f"method {method!r}, targets {targets!r}: {type(model).__name__} has no linear "
            "projections of this kind; try other targets"
        )
    return [_checked(one, method) for one in found]


def _layers(model: PreTrainedModel, method: str) -> list[tuple[str, nn.Module]]:
    count = model.config.get_text_config().num_hidden_layers
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return [(f"{path}.{number}", layer) for number, layer in enumerate(module)]
    raise UserError(
        f"method {method!r}: {type(model).__name__} has no list of {count} layers; "
        "this method needs a decoder model"
    )


def _attention(layer: nn.Module) -> set[str]:
    """The children of a layer that take an attention mask."""
    return {
        name
        for name, child in layer.named_children()
        if "attention_mask" in inspect.signature(type(child).forward).parameters
    }


def _checked(projection: Projection, method: str) -> Projection:
    if not projection.weight.is_floating_point():
        raise UserError(
            f"method {method!r}: {projection.name} is stored as {projection.weight.dtype}; "
            "load the model unquantised"
        )
    return projection
