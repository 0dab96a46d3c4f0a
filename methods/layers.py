"""Where a decoder keeps what: module names found from the model's structure."""

from __future__ import annotations

from torch import nn
from transformers.modeling_utils import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ske.types import UserError


def mlp_projections(model: PreTrainedModel) -> list[str]:
    """The projection back to the hidden width that ends each decoder layer's MLP, by layer.

    It is the last linear map of a layer whose output is as wide as the hidden state: attention
    comes before the MLP in a layer, and its own projection before the MLP's.

    Raises:
        UserError: the model is not a stack of such layers.
    """
    embeddings = model.get_input_embeddings()
    assert isinstance(embeddings, nn.Embedding)
    hidden, depth = embeddings.embedding_dim, model.config.num_hidden_layers
    for stack, layers in model.named_modules():
        if not isinstance(layers, nn.ModuleList) or len(layers) != depth:
            continue
        found = [_last_into(layer, hidden) for layer in layers]
        if all(found):
            return [f"{stack}.{number}.{name}" for number, name in enumerate(found)]
    raise UserError(
        f"{type(model).__name__}: no stack of {depth} layers with a linear map to {hidden} "
        "features was found; methods that train a single MLP projection need such a decoder"
    )


def layers_at(model: PreTrainedModel, layers: tuple[int, ...] | None, depth: float) -> list[str]:
    """The weights of the MLP projections at `layers`, or else at this share of the depth.

    Raises:
        UserError: there is no such layer.
    """
    names = mlp_projections(model)
    chosen = layers if layers is not None else (int(depth * len(names)),)
    for layer in chosen:
        if not -len(names) <= layer < len(names):
            raise UserError(
                f"options: layers = {list(chosen)!r}: the model has {len(names)} layers, "
                f"counted from 0 to {len(names) - 1}"
            )
    return [f"{names[layer]}.weight" for layer in dict.fromkeys(chosen)]


def _last_into(layer: nn.Module, width: int) -> str | None:
    found = None
    for name, module in layer.named_modules():
        if _outputs(module) == width:
            found = name
    return found


def _outputs(module: nn.Module) -> int | None:
    if isinstance(module, nn.Linear):
        return module.out_features
    return module.nf if isinstance(module, Conv1D) else None
