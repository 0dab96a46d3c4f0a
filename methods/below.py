"""What lies below a change is computed once: no layer before it ever sees what is changed.

Optimising a vector that is added in layer l runs a model dozens of times over the same tokens; its
first l layers say the same every time. Whether a model can go on from there is tried once, for
some hand things from one layer to another besides the hidden states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers.modeling_utils import PreTrainedModel

from methods.arch import decoder_of

SAME = 1e-3
"""Largest difference of logits, as a share of their spread, that is rounding."""


class Below(NamedTuple):
    """The layers below a change, and what the last of them says."""

    blocks: list[nn.Module]
    hidden: torch.Tensor
    """[rows, longest, hidden]"""
    beside: list[tuple[Any, ...] | None]
    """What each block returns beside its hidden states; None if it returns them bare."""

    def of(self, rows: list[int], longest: int) -> Below:
        """Some of the rows; they are padded on the right, and need not be as long any more."""
        return self._replace(hidden=self.hidden[rows, :longest])


def below(model: PreTrainedModel, module: nn.Module) -> list[nn.Module]:
    """The layers that a change of a module's output cannot reach, the first one first.

    If the module is a whole layer, it is one of them: the change comes behind it.
    """
    blocks = [layer.block for layer in decoder_of(model).layers]
    for number, block in enumerate(blocks):
        if block is module:
            return blocks[: number + 1]
        if any(part is module for part in block.modules()):
            return blocks[:number]
    return []


@torch.no_grad()
def read(blocks: Sequence[nn.Module], run: Callable[[], torch.Tensor]) -> Below | None:
    """Run the model once, and keep what the layers say; None if it can't go on from there.

    Args:
        blocks: The layers below the change.
        run: Runs the model without the change and returns its logits.
    """
    if not blocks:
        return None
    said: list[Any] = []
    handles = [block.register_forward_hook(lambda _, __, out: said.append(out)) for block in blocks]
    try:
        whole = run()
    finally:
        for handle in handles:
            handle.remove()
    if len(said) != len(blocks) or not all(isinstance(out, torch.Tensor | tuple) for out in said):
        return None
    beside = [out[1:] if isinstance(out, tuple) else None for out in said]
    last = said[-1][0] if isinstance(said[-1], tuple) else said[-1]
    found = Below(list(blocks), last, beside)
    with skipped(found):
        short = run()
    same = (short - whole).abs().max() <= SAME * whole.std()
    return found if bool(same) else None


@contextmanager
def skipped(found: Below | None) -> Iterator[None]:
    """The layers below say what they said, without being run."""
    if found is None:
        yield
        return

    def saying(beside: tuple[Any, ...] | None) -> Callable[..., Any]:
        said = found.hidden if beside is None else (found.hidden, *beside)
        return lambda *_, **__: said

    # Somebody else may have put a forward of their own there: hooks that load weights do.
    own = [vars(block).get("forward") for block in found.blocks]
    for block, beside in zip(found.blocks, found.beside, strict=True):
        block.forward = saying(beside)
    try:
        yield
    finally:
        for block, forward in zip(found.blocks, own, strict=True):
            del block.forward
            if forward is not None:
                block.forward = forward
