"""The key/value cache of a shared beginning, under many rows that go on from it.

transformers' own layers grow by concatenation, which copies the whole beginning at every token; a
thousand tokens of it cost more than the new one. Here it is read where it is
(`ske.backends.attention`) or, by models that don't take that, from a copy with room for the rest.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.modeling_utils import PreTrainedModel

from ske.backends import attention
from ske.backends.caching import with_cache

_SAME = 0.05
"""Share of the logits' spread up to which differences are rounding (bfloat16 has 8 bits)."""


def usual(cache: DynamicCache) -> bool:
    """Whether it is keys and values alone; windows and the like keep books of their own."""
    return all(type(layer) is DynamicLayer for layer in cache.layers)


def repeated(cache: DynamicCache, rows: int, room: int) -> DynamicCache:
    """A cache for `rows` rows that all begin alike; up to `room` more tokens are not copied."""
    if usual(cache):
        return _of([_Spacious(one.keys, one.values, rows, room) for one in _layers(cache)])
    copied = copy.deepcopy(cache)
    copied.batch_repeat_interleave(rows)
    return copied


@contextmanager
def apart(
    model: PreTrainedModel, cache: DynamicCache, rows: int, room: int
) -> Iterator[DynamicCache]:
    """The same without a copy of the beginning; the model reads it rightly within this block."""
    with attention.shared(model):
        yield _of([_Apart(one.keys, one.values, rows, room) for one in _layers(cache)])


@torch.no_grad()
def reads_apart(model: PreTrainedModel, cache: DynamicCache, ids: list[int]) -> bool:
    """Whether the model reads a beginning apart as it reads a copied one: tried with some ids."""
    if not (usual(cache) and attention.usual(model)):
        return False
    lengths = (len(ids), max(1, len(ids) - 1))
    ones = [[1] * (cache.get_seq_length() + own) + [0] * (len(ids) - own) for own in lengths]
    asked = {
        "input_ids": torch.tensor([ids, ids], device=model.device),
        "attention_mask": torch.tensor(ones, device=model.device),
        "use_cache": True,
    }

    def ask(begun: DynamicCache) -> Any:
        return model(**asked, **with_cache(model.forward, begun))

    copied = ask(repeated(cache, 2, len(ids))).logits[:, : lengths[1]]
    try:
        with apart(model, cache, 2, len(ids)) as own:
            found = ask(own).logits[:, : lengths[1]]
    except Exception:  # Whatever an architecture trips over, it can read copies.
        return False
    differ = (found - copied).float().square().mean().sqrt()
    return bool(differ <= _SAME * copied.float().std())


def narrowed(cache: Any, rows: list[int]) -> bool:
    """Keep some rows of a cache; False, and all of them, if it is not keys and values alone."""
    if not isinstance(cache, DynamicCache):
        return False
    if not all(isinstance(layer, DynamicLayer) for layer in cache.layers):
        return False
    cache.batch_select_indices(torch.tensor(rows))
    return True


def _layers(cache: DynamicCache) -> Any:
    return cache.layers


def _of(layers: list[Any]) -> DynamicCache:
    made: Any = DynamicCache()
    made.layers = layers
    return made


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
        self.filled = end
        self.keys, self.values = (one[:, :, :end] for one in self._all)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write behind what is there; all that there is, then."""
        begun = self.filled
        end = begun + key_states.shape[2]
        if end > self._all[0].shape[2]:
            self._all = [_with_room(one[:, :, :begun], 1, end) for one in self._all]
        for kept, new in zip(self._all, (key_states, value_states), strict=True):
            kept[:, :, begun:end] = new
        self._fill(end)
        assert self.keys is not None and self.values is not None
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep some rows."""
        self._all = [one[indices.to(one.device)] for one in self._all]
        self._fill(self.filled)


class _Apart(_Spacious):
    """Keys and values of what follows; those of the beginning go with them, uncopied."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, rows: int, room: int) -> None:
        """Both are [1, heads, tokens, size]."""
        super().__init__(keys[:, :, :0], values[:, :, :0], rows, room)
        self._begun = (keys, values)

    def get_seq_length(self) -> int:
        """Tokens that have been read, the beginning's too."""
        return self._begun[0].shape[2] + self.filled

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write behind what is there; what each row has of its own, then."""
        keys, values = super().update(key_states, value_states, *args, **kwargs)
        setattr(keys, attention.BEGUN, self._begun)
        return keys, values


def _with_room(one: torch.Tensor, rows: int, room: int) -> torch.Tensor:
    """[b, heads, tokens, size] to [b * rows, heads, tokens + room, size]; b or rows is 1."""
    _, heads, tokens, size = one.shape
    wide = one.new_empty(len(one) * rows, heads, tokens + room, size)
    wide[:, :, :tokens] = one
    return wide
