"""Samples token ids from a model with a generator of its own; no global state is touched."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers.modeling_utils import PreTrainedModel

from ske.backends.caching import cache_of, with_cache


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    starts: Sequence[Sequence[int]],
    length: int,
    seed: int,
    top_k: int = 0,
    end_id: int | None = None,
) -> list[list[int]]:
    """Continue beginnings of equal length at temperature 1 until rows have `length` tokens.

    Args:
        model: what is sampled from.
        starts: token ids, all of one length.
        length: tokens of a row in all, its beginning included.
        seed: of a generator that is made here.
        top_k: only the k most likely tokens are drawn; 0 is all.
        end_id: a row ends before this token.
    """
    rows = torch.tensor([list(start) for start in starts], device=model.device)
    begun, cache, new = rows.shape[1], None, rows
    generator = torch.Generator(device=model.device).manual_seed(seed)
    ended = torch.zeros(len(rows), dtype=torch.bool, device=model.device)
    while rows.shape[1] < length and not ended.all():
        how = with_cache(model.forward, cache)
        output = model(input_ids=new, use_cache=True, logits_to_keep=1, **how)
        cache = cache_of(output)
        p = torch.softmax(output.logits[:, -1].float(), dim=-1)
        if top_k:
            likely, tokens = p.topk(min(top_k, p.shape[1]))
            new = tokens.gather(1, torch.multinomial(likely, 1, generator=generator))
        else:
            new = torch.multinomial(p, 1, generator=generator)
        rows = torch.cat([rows, new], dim=1)
        if end_id is not None:
            ended |= new[:, 0] == end_id
    return [_until(row, begun, end_id) for row in rows.tolist()]


def _until(row: list[int], begun: int, end_id: int | None) -> list[int]:
    rest = row[begun:]
    return row[:begun] + (rest[: rest.index(end_id)] if end_id in rest else rest)
