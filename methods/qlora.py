"""QLoRA (Dettmers et al. 2023, arXiv 2305.14314): adapters trained on a base of 4 bits a weight.

While the adapters are trained, every linear layer of the model but its head is a 4-bit copy
(NormalFloat, doubly quantised); gradients pass through it and into the adapters alone. The edit is
what the adapters come to; it is applied to the base in its own precision, as merged QLoRA is.

Needs bitsandbytes (`pip install -e ".[qlora]"`). Differs: the model is loaded in full before,
so it is training that saves memory, not loading; no paged optimizer.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers.modeling_utils import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from methods.base import Lesson, Workshop, options_of, weights_of
from methods.delta import DeltaEdit, LowRank
from methods.sft import train
from ske.lm import LM, ask
from ske.training import LowRankOptions, SftOptions
from ske.types import Fact, MissingExtra

INSTALL = 'pip install -e ".[qlora]"'


class QLora:
    """The QLoRA editor, on the bare facts."""

    def __init__(self, options: dict[str, Any], workshop: Workshop) -> None:
        """Raises UserError on unknown options."""
        self.options: LowRankOptions = options_of(LowRankOptions, options, "qlora")
        self.workshop = workshop

    def edit(self, lm: LM, facts: Sequence[Fact]) -> DeltaEdit:
        """Train on (prompt, new target) pairs.

        Raises:
            MissingExtra: bitsandbytes is not installed, or does not run on this machine.
        """
        holder = weights_of(lm, "qlora")
        lessons = [
            Lesson(chat=ask(fact.prompt), completion=fact.target_new, fact=fact.id)
            for fact in facts
        ]
        options = SftOptions(**self.options.model_dump())
        with four_bit(holder.model) as flipped:
            edit = train(holder, lessons, options, self.workshop, "qlora")
        for name in flipped & edit.deltas.keys():
            delta = edit.deltas[name]
            assert isinstance(delta, LowRank)
            edit.deltas[name] = LowRank(delta.down.T, delta.up.T)
        return edit


@contextmanager
def four_bit(model: PreTrainedModel) -> Iterator[set[str]]:
    """Every linear layer below the head stands aside for a 4-bit copy of itself.

    Yields:
        The names of the weights whose copy is transposed (Conv1D, which is [in, out]).
    """
    bitsandbytes = _bitsandbytes()
    head = model.get_output_embeddings()
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    flipped: set[str] = set()
    try:
        for name, module in list(model.named_modules()):
            if not isinstance(module, nn.Linear | Conv1D) or module is head:
                continue
            parent, _, child = name.rpartition(".")
            owner = model.get_submodule(parent)
            setattr(owner, child, _quantised(bitsandbytes, module, model.device))
            replaced.append((owner, child, module))
            if isinstance(module, Conv1D):
                flipped.add(f"{name}.weight")
        # What peft and TRL recognise such a model by.
        model.__dict__["is_loaded_in_4bit"] = True
        yield flipped
    finally:
        model.__dict__.pop("is_loaded_in_4bit", None)
        for owner, child, module in replaced:
            setattr(owner, child, module)


def _quantised(bitsandbytes: Any, layer: nn.Linear | Conv1D, device: torch.device) -> nn.Module:
    weight = layer.weight.detach()
    weight = weight.T if isinstance(layer, Conv1D) else weight
    outputs, inputs = weight.shape
    copy = bitsandbytes.nn.Linear4bit(
        inputs,
        outputs,
        bias=layer.bias is not None,
        compute_dtype=weight.dtype,
        compress_statistics=True,
        quant_type="nf4",
    )
    copy.weight = bitsandbytes.nn.Params4bit(
        weight.contiguous().clone(), requires_grad=False, compress_statistics=True, quant_type="nf4"
    )
    if layer.bias is not None:
        copy.bias = nn.Parameter(layer.bias.detach().clone(), requires_grad=False)
    # In training, or bitsandbytes repacks weights for CPUs with AVX512-BF16, which not all fit.
    return copy.to(device).train()


def _bitsandbytes() -> Any:
    """The package, if it is there and quantises on this machine.

    Raises:
        MissingExtra: it is not, or does not.
    """
    try:
        package: Any = importlib.import_module("bitsandbytes")
        package.functional.quantize_4bit(torch.zeros(64, 64), quant_type="nf4")
    except (ImportError, OSError, RuntimeError, NotImplementedError) as error:
        raise MissingExtra(
            f"method 'qlora' needs bitsandbytes, which quantises the base to 4 bits, and it does "
            f"not run here ({str(error).splitlines()[0]}); install it: {INSTALL}"
        ) from error
    return package
