"""peft's adapters: which ones are trained, and what they come to as differences of weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.adalora.layer import SVDLinear
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.distributed.tensor import DTensor
from transformers.modeling_utils import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from methods.arch import check_layers
from methods.delta import LowRank
from ske.training import LowRankOptions
from ske.types import UserError


def lora_config(options: LowRankOptions, model: PreTrainedModel) -> LoraConfig:
    """LoRA (Hu et al. 2021, arXiv 2106.09685) where the options say.

    Raises:
        UserError: the model has no such modules or layers.
    """
    return LoraConfig(
        r=options.rank, lora_alpha=options.alpha, lora_dropout=0.0, **places(options, model)
    )


def places(options: LowRankOptions, model: PreTrainedModel) -> dict[str, Any]:
    """Where adapters go, in the words of peft's configurations.

    Raises:
        UserError: the model has no such modules or layers.
    """
    wanted = options.target_modules
    check_modules(wanted, model)
    check_layers(options.layers or (), model.config.get_text_config().num_hidden_layers)
    if options.layers is not None and wanted == "all-linear":
        wanted = linear_names(model)  # peft takes layers only beside names
    return {
        "target_modules": wanted if wanted == "all-linear" else list(wanted),
        "layers_to_transform": None if options.layers is None else list(options.layers),
        "task_type": "CAUSAL_LM",
    }


def check_modules(wanted: str | Sequence[str], model: PreTrainedModel) -> None:
    """Raises UserError on the name of a linear map that the model does not have."""
    there = linear_names(model)
    if wanted != "all-linear" and (unknown := sorted(set(wanted) - set(there))):
        raise UserError(
            f"target_modules: {', '.join(unknown)}: the model has no linear map of this name; "
            f"it has {', '.join(there)}"
        )


def linear_names(model: PreTrainedModel) -> list[str]:
    """What a model calls its linear maps, each name once; without the head."""
    return sorted(
        {
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear | Conv1D)
            and module is not model.get_output_embeddings()
        }
    )


def low_rank_deltas(model: PeftModel) -> dict[str, LowRank | torch.Tensor]:
    """Adapters by the base parameter's name, in its orientation (Conv1D is [in, out])."""
    deltas: dict[str, LowRank | torch.Tensor] = {}
    inner: Any = model.base_model.model
    for name, layer in inner.named_modules():
        if not isinstance(layer, LoraLayer) or "default" not in layer.lora_A:
            continue
        up, down = _factors(layer)
        flipped = getattr(layer, "fan_in_fan_out", False)
        deltas[f"{name}.weight"] = LowRank(down.T, up.T) if flipped else LowRank(up, down)
    return deltas


def dense_deltas(
    model: PreTrainedModel, before: dict[str, torch.Tensor]
) -> dict[str, LowRank | torch.Tensor]:
    """What changed of the parameters in `before`, which may be in a coarser type."""
    return {name: model.get_parameter(name).detach() - value for name, value in before.items()}


def _factors(layer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(up [out, rank], down [rank, in]) of one adapter, scaled; pruned directions are left out."""
    scale = layer.scaling["default"]
    if isinstance(layer, SVDLinear):
        values = _whole(layer.lora_E["default"])[:, 0]
        kept = values != 0
        scale = scale / (layer.ranknum["default"].item() + 1e-5)
        up = _whole(layer.lora_B["default"])[:, kept] * (values[kept] * scale)
        return up, _whole(layer.lora_A["default"])[kept].clone()
    down = _whole(layer.lora_A["default"].weight).clone()
    return _whole(layer.lora_B["default"].weight) * scale, down


def _whole(weight: torch.Tensor) -> torch.Tensor:
    """A trained weight; under FSDP put together from all processes, which all must ask for it."""
    weight = weight.detach()
    return weight.full_tensor() if isinstance(weight, DTensor) else weight
