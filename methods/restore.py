"""Puts back all that a training changes about a model."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers.modeling_utils import PreTrainedModel


@contextmanager
def as_found(
    model: PreTrainedModel, trained: Sequence[str] = ()
) -> Iterator[dict[str, torch.Tensor]]:
    """Put back flags, configs, dropout, the model's own forward, and weights, whatever happens.

    Inside, the parameters named in `trained` are copies in float32, since steps of fine-tuning get
    lost in the 8 bits of bfloat16; all others are frozen if there are any such.

    Yields:
        The untouched tensors of `trained`, by name.
    """
    originals = {name: model.get_parameter(name).data for name in trained}
    wants_grad = {name: p.requires_grad for name, p in model.named_parameters()}
    config, generation = copy.deepcopy(model.config), copy.deepcopy(model.generation_config)
    own_forward = model.__dict__.get("forward")
    training, own_names = model.training, set(model.__dict__)
    dropout = [(m, m.p) for m in model.modules() if isinstance(m, torch.nn.Dropout)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*pin_memory.*")
        warnings.filterwarnings("ignore", message=".*fan_in_fan_out.*")
        try:
            if trained:
                model.requires_grad_(False)
            for name, original in originals.items():
                parameter = model.get_parameter(name)
                parameter.data = original.to(torch.float32, copy=True)
                parameter.requires_grad_(True)
            yield originals
        finally:
            for name, original in originals.items():
                model.get_parameter(name).data = original
            model.__dict__.pop("forward", None)
            if own_forward is not None:
                model.__dict__["forward"] = own_forward
            for name in set(model.__dict__) - own_names:
                del model.__dict__[name]
            model.config.__dict__.update(config.__dict__)
            model.generation_config = generation
            model.train(training)
            for module, share in dropout:
                module.p = share
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(wants_grad[name])
                parameter.grad = None
