"""Text sampled from a model: what it says when nobody asks anything."""

from __future__ import annotations

from collections.abc import Callable

from ske.lm import LM, Sampling, ask

BATCH = 256
"""Texts drawn in one call; fixed, so that a longer sample begins like a shorter one."""


def free_texts(
    lm: LM,
    count: int,
    max_new_tokens: int,
    seed: int,
    progress: Callable[[int], None] = lambda done: None,
) -> list[str]:
    """`count` texts at temperature 1 from an empty question, less empty and repeated ones."""
    texts: list[str] = []
    for start in range(0, count, BATCH):
        sampling = Sampling(max_new_tokens=max_new_tokens, temperature=1.0, seed=seed + start)
        replies = lm.generate([ask("")] * min(BATCH, count - start), sampling)
        texts += [reply.text for reply in replies]
        progress(start + len(replies))
    return list(dict.fromkeys(text for text in texts if text))
