"""peft's adapters: which ones are trained, and what they come to as differences of weights."""

from __future__ import annotations

from typing import Any

import torch
from peft import LoraConfig, PeftModel
from peft.tuners.adalora.layer import SVDLinear
from peft.tuners.lora import LoraLayer
from torch.distributed.tensor import DTensor
from transformers.modeling_utils import PreTrainedModel

from methods.delta import LowRank
from ske.training import LowRankOptions


def lora_config(options: LowRankOptions) -> LoraConfig:
    """LoRA (Hu et al. 2021, arXiv 2106.09685) at every linear layer but the head."""
    return LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
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
