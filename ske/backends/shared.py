"""The key/value cache of a shared beginning, repeated over a batch with room for what follows.

transformers' own layers grow by concatenation, which copies the whole beginning at every token; a
thousand tokens of it cost more than the new one.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


def repeated(cache: DynamicCache, rows: int, room: int) -> DynamicCache:
    """A cache for `rows` rows that all begin alike; up to `room` more tokens are not copied."""
    layers: Any = cache.layers
    if any(type(layer) is not DynamicLayer for layer in layers):
        # Windows and the like keep books of their own.
        copied = copy.deepcopy(cache)
        copied.batch_repeat_interleave(rows)
        return copied
    spacious: Any = DynamicCache()
    spacious.layers = [_Spacious(layer.keys, layer.values, rows, room) for layer in layers]
    return spacious


class _Spacious(DynamicLayer):
    """`keys` and `values` are the filled parts of longer tensors."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, rows: int, room: int) -> None:
        """Both are [1, heads, tokens, size]."""
        super().__init__()
        self.lazy_initialization(keys, values)
        self.dtype = keys.dtype
        self._all = [_with_room(one, rows, room) for one in (keys, values)]
        self._fill(keys.shape[2])

    def _fill(self, end: int) -> None:
        self.keys, self.values = (one[:, :, :end] for one in self._all)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write behind what is there; all that there is, then."""
        begun = self.get_seq_length()
        end = begun + key_states.shape[2]
        if end > self._all[0].shape[2]:
            self._all = [_with_room(one[:, :, :begun], 1, end) for one in self._all]
        for kept, new in zip(self._all, (key_states, value_states), strict=True):
            kept[:, :, begun:end] = new
        self._fill(end)
        assert self.keys is not None and self.values is not None
        return self.keys, self.values


def _with_room(one: torch.Tensor, rows: int, room: int) -> torch.Tensor:
    """[b, heads, tokens, size] to [b * rows, heads, tokens + room, size]; b or rows is 1."""
    _, heads, tokens, size = one.shape
    wide = one.new_empty(len(one) * rows, heads, tokens + room, size)
    wide[:, :, :tokens] = one
    return wide
