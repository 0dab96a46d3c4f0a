"""Several rows in one line: short rows need not be padded to the longest of their batch.

Rows in one line are told apart by their positions, which start anew at 0. transformers' decoders
then build a mask that keeps them apart (as TRL's `padding_free` does); whether a model does is
tried before it is relied upon.
"""

from __future__ import annotations

import heapq
import inspect
from collections.abc import Sequence

import torch
from transformers.modeling_utils import PreTrainedModel

WIDTH = 128
"""Tokens in a line: attention costs its square, so lines are not made longer than they need be."""
SAME = 0.05
"""Share of the logits' spread up to which differences are rounding (bfloat16 has 8 bits)."""
TRIED = 16
"""Tokens of each row that is tried."""


def lines_of(lengths: Sequence[int], width: int = WIDTH) -> list[list[int]]:
    """Which rows share a line: as few lines as they fit into, about equally full.

    The batch is as wide as its fullest line, so a last line that is half empty is padding.

    Args:
        lengths: tokens of each row.
        width: most tokens in a line; a longer row widens all lines to its own length.

    Returns:
        The numbers of the rows in each line.
    """
    if not lengths:
        return []
    order = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    filled = _first_fit(lengths, order, max(width, *lengths))
    level = _level(lengths, order, len(filled))
    return min(
        level, filled, key=lambda lines: max(sum(lengths[n] for n in line) for line in lines)
    )


def _first_fit(lengths: Sequence[int], order: Sequence[int], width: int) -> list[list[int]]:
    """The longest first, each into the first line with room for it."""
    lines: list[list[int]] = []
    room: list[int] = []
    for number in order:
        fits = (line for line, left in enumerate(room) if left >= lengths[number])
        line = next(fits, len(lines))
        if line == len(lines):
            lines.append([])
            room.append(width)
        lines[line].append(number)
        room[line] -= lengths[number]
    return lines


def _level(lengths: Sequence[int], order: Sequence[int], count: int) -> list[list[int]]:
    """The longest first, each into the line that is emptiest so far."""
    lines: list[list[int]] = [[] for _ in range(count)]
    heap = [(0, line) for line in range(count)]
    for number in order:
        tokens, line = heap[0]
        heapq.heapreplace(heap, (tokens + lengths[number], line))
        lines[line].append(number)
    return lines


@torch.no_grad()
def keeps_apart(model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> bool:
    """Whether the model answers rows in one line as it answers each of them alone.

    Args:
        model: tried as it is, but without dropout.
        rows: token ids; the first two are tried.
    """
    if "position_ids" not in inspect.signature(model.forward).parameters or not rows:
        return False
    first, second = [list(row[:TRIED]) for row in (rows[0], rows[min(1, len(rows) - 1)])]
    training = model.training
    model.eval()
    try:
        line = torch.tensor([[*first, *second]], device=model.device)
        places = torch.tensor([[*range(len(first)), *range(len(second))]], device=model.device)
        together = model(input_ids=line, position_ids=places, use_cache=False).logits[0]
        alone = [
            model(input_ids=torch.tensor([row], device=model.device), use_cache=False).logits[0]
            for row in (first, second)
        ]
    finally:
        model.train(training)
    apart = torch.cat(alone).float()
    return bool((together.float() - apart).abs().max() <= SAME * apart.std())
