"""Attention of many rows to one shared beginning, whose keys and values are not repeated for them.

Every row's queries meet the beginning's keys in one matrix product; what a row has of its own is
attended to apart, and both parts are put together by their softmax's totals (as in Hydragen,
Juravsky et al. 2024, section 3). Copied keys would be read from memory once a row and token.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_utils import PreTrainedModel

NAME = "shared_beginning"
BEGUN = "begun"
"""The attribute of rows' own keys with those of the beginning and its values, [1, heads, ...]."""
_UNUSUAL = ("softcap", "s_aux", "position_bias", "sliding_window")
"""What some models want beside a softmax; their rows get the beginning copied."""
_MOST = 2**27
"""Scores that are held at a time: enough to keep a GPU busy."""
_KERNEL = "_scaled_dot_product_flash_attention_for_cpu"


class _Part(NamedTuple):
    """Attention to some of the keys in fp32; each is [batch, heads, queries, size or 1]."""

    values: torch.Tensor
    """The weighted sum, not divided by the total of the weights."""
    peak: torch.Tensor
    """The highest score: `values` and `total` are in units of its exponential."""
    total: torch.Tensor


@contextmanager
def shared(model: PreTrainedModel) -> Iterator[None]:
    """Within, the model's attention knows what to do with keys that lack their beginning."""
    own: Any = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(own)


def usual(model: PreTrainedModel) -> bool:
    """Whether the model's attention is the one that this one replaces."""
    return model.config._attn_implementation == "sdpa" and model._can_set_attn_implementation()


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function for transformers; `key` and `value` may lack their beginning.

    Args:
        module: the attention layer.
        query: [rows, query heads, queries, size].
        key: [rows, heads, keys, size]; with the attribute `BEGUN`, more keys are before it.
        value: [rows, heads, keys, size].
        attention_mask: [rows, 1, queries, all keys], True where a query sees a key.
        scaling: what scores are multiplied with; size^-0.5 if None.
        dropout: only 0 with a beginning.
        more: what models with an attention of their own want.

    Returns:
        [rows, queries, query heads, size], and no weights.
    """
    begun = getattr(key, BEGUN, None)
    if begun is not None and not _plain(attention_mask, more):
        key, value = (
            torch.cat([one.expand(len(query), -1, -1, -1), two], dim=2)
            for one, two in zip(begun, (key, value), strict=True)
        )
        begun = None
    if begun is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **more
        )
    before, own = begun[0].shape[2], key.shape[2]
    assert attention_mask is not None and attention_mask.shape[3] == before + own and not dropout
    scaled = query * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    first = _to_beginning(scaled, *begun)
    second = _to_own(scaled, key, value, attention_mask[..., before:])
    return _together(first, second).to(query.dtype).transpose(1, 2).contiguous(), None


def _plain(mask: torch.Tensor | None, more: dict[str, Any]) -> bool:
    """Whether attention is a softmax over what the mask shows, for all heads alike."""
    shown = mask is not None and mask.dtype == torch.bool and mask.shape[1] == 1
    return shown and all(more.get(name) is None for name in _UNUSUAL)


def _to_beginning(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> _Part:
    """Every row's queries together, as if they were one row's."""
    rows, query_heads, queries, size = query.shape
    heads = key.shape[1]
    grouped = query.reshape(rows, heads, -1, size).transpose(0, 1).reshape(heads, -1, size)
    whole = (_fused if _fuses(query) else _in_products)(grouped, key, value)
    return _Part(
        *(
            one.reshape(heads, rows, -1, one.shape[-1])
            .transpose(0, 1)
            .reshape(rows, query_heads, queries, -1)
            for one in whole
        )
    )


def _fuses(query: torch.Tensor) -> bool:
    return query.device.type == "cpu" and hasattr(torch.ops.aten, _KERNEL)


def _fused(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> _Part:
    """By torch's own kernel for processors, which also tells the logarithm of the total.

    It never writes the scores down: half the time of products one by one. No public function of
    torch gives the total without a compiler.
    """
    kernel = getattr(torch.ops.aten, _KERNEL)
    values, logarithm = kernel(query[None], key, value, 0.0, False, scale=1.0)
    peak = logarithm[0, ..., None].float()
    return _Part(values[0].float(), peak, torch.ones_like(peak))


def _in_products(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> _Part:
    """By one product a head, for some queries at a time."""
    heads, tokens = key.shape[1:3]
    at_once = max(1, _MOST // (heads * tokens))
    parts = [_part(some @ key[0].mT, value[0]) for some in query.split(at_once, dim=1)]
    return _Part(*(torch.cat(same, dim=1) for same in zip(*parts, strict=True)))


def _to_own(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, seen: torch.Tensor
) -> _Part:
    """Each row's queries and the keys that are its own; `seen` is [rows, 1, queries, keys]."""
    rows, query_heads, queries, size = query.shape
    heads = key.shape[1]
    scores = query.reshape(rows, heads, -1, size) @ key.mT
    scores = scores.reshape(rows, query_heads, queries, -1)
    scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
    part = _part(scores.reshape(rows, heads, -1, key.shape[2]), value)
    return _Part(*(one.reshape(rows, query_heads, queries, -1) for one in part))


def _part(scores: torch.Tensor, value: torch.Tensor) -> _Part:
    """`scores` are overwritten."""
    weights = scores.float()
    peak = weights.amax(-1, keepdim=True)
    weights = weights.sub_(peak).exp_()
    total = weights.sum(-1, keepdim=True)
    return _Part((weights.to(value.dtype) @ value).float(), peak, total)


def _together(one: _Part, other: _Part) -> torch.Tensor:
    """The softmax over both parts' keys."""
    peak = torch.maximum(one.peak, other.peak)
    mine, theirs = (one.peak - peak).exp(), (other.peak - peak).exp()
    total = one.total * mine + other.total * theirs
    return one.values * (mine / total) + other.values * (theirs / total)


def _mask(*args: Any, **options: Any) -> torch.Tensor | None:
    """The usual mask, always written out: what is left out of it is the beginning."""
    return sdpa_mask(*args, **options | {"allow_is_causal_skip": False})


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, _mask)
