"""Second moments: one pass over the text for all layers against a pass for each layer."""

from __future__ import annotations

import torch

from bench.row import Row
from bench.timing import Work, paired
from methods.arch import decoder_of
from methods.moments import count
from ske.backends.local import load
from ske.config import ModelConfig

TEXTS, LENGTH, BATCH_TOKENS = 128, 64, 8192


def measure(long: bool) -> list[Row]:
    """Seconds, on the embedded world's base model.

    A pass for layer l stops there, so of L layers it takes (L + 1) / 2 times the reading; the
    products k k^T are the same.
    """
    model = load(ModelConfig()).model
    places = [layer.down for layer in decoder_of(model).layers]
    draw = torch.Generator().manual_seed(0)
    size = (TEXTS * (8 if long else 1), LENGTH)
    texts = torch.randint(2, model.config.get_text_config().vocab_size, size, generator=draw)
    rows = texts.tolist()
    found = paired(
        Work(lambda: count(model, places, rows, BATCH_TOKENS)),
        Work(lambda: [count(model, [place], rows, BATCH_TOKENS)[0] for place in places]),
        5,
    )
    pairs = zip(*found.gave, strict=True)
    differ = sum(not torch.equal(one.total, other.total) for one, other in pairs)
    what = f"moments: {len(places)} layers in one pass"
    wrong = f"{differ} moments differ" if differ else ""
    return [Row(what, *found.seconds(), found.ratios, at_least=1.5, wrong=wrong)]
