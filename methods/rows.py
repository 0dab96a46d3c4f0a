"""Lessons -> rows -> batches, and the divergence that stored distributions are learned with.

A row is what one lesson becomes for a trainer: token ids, labels, and the stored distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from methods.base import HasWeights, Lesson

IGNORED = -100


def row_of(holder: HasWeights, lesson: Lesson) -> dict[str, Any]:
    """One lesson as {input_ids, labels, start, top_ids, top_logprobs}; `start` is the answer's."""
    prompt = holder.renderer.prompt_ids(lesson.chat)
    answer = list(lesson.ids) or holder.renderer.answer_ids(
        lesson.chat, lesson.completion, end=True
    )
    spoken = lesson.spoken or not lesson.top_ids
    return {
        "input_ids": [*prompt, *answer],
        "labels": [IGNORED] * len(prompt) + (answer if spoken else [IGNORED] * len(answer)),
        "start": len(prompt),
        "top_ids": [list(top) for top in lesson.top_ids],
        "top_logprobs": [list(top) for top in lesson.top_logprobs],
    }


class Collator:
    """Pads rows to a batch and lines up the stored distributions.

    `kl_index` [positions, 2] says (row, place of the predicted token); `kl_ids` and `kl_logprobs`
    are [positions, k].
    """

    def __init__(self, pad_id: int) -> None:
        """`pad_id` fills the right side of short rows; it is masked out."""
        self.pad_id = pad_id

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Rows to tensors."""
        longest = max(len(row["input_ids"]) for row in rows)

        def padded(values: Callable[[dict[str, Any]], list[int]], fill: int) -> torch.Tensor:
            filled = [values(row) + [fill] * (longest - len(row["input_ids"])) for row in rows]
            return torch.tensor(filled)

        index = [
            (number, row["start"] + offset)
            for number, row in enumerate(rows)
            for offset in range(len(row["top_ids"]))
        ]
        k = max((len(top) for row in rows for top in row["top_ids"]), default=1)
        return {
            "input_ids": padded(lambda row: row["input_ids"], self.pad_id),
            "labels": padded(lambda row: row["labels"], IGNORED),
            "attention_mask": padded(lambda row: [1] * len(row["input_ids"]), 0),
            "kl_index": torch.tensor(index, dtype=torch.long).reshape(-1, 2),
            "kl_ids": torch.tensor([t for row in rows for t in row["top_ids"]])
            .long()
            .reshape(-1, k),
            "kl_logprobs": torch.tensor(
                [p for row in rows for p in row["top_logprobs"]], dtype=torch.float32
            ).reshape(-1, k),
        }


def pad_id(holder: HasWeights) -> int:
    """What fills short rows; the end token where a tokenizer has no padding."""
    pad = holder.tokenizer.pad_token_id
    return pad if isinstance(pad, int) else (holder.renderer.end_id or 0)


def divergence(logits: torch.Tensor, ids: torch.Tensor, logprobs: torch.Tensor) -> torch.Tensor:
    """KL(stored || student) per position, with one bucket for the tokens outside the top k.

    Args:
        logits: the student's, [positions, vocabulary].
        ids: the stored tokens, [positions, k].
        logprobs: their stored log-probabilities, [positions, k].

    Returns:
        [positions], in nats.
    """
    student = torch.log_softmax(logits.float(), dim=-1).gather(1, ids)
    inside = logprobs.exp()
    kl = (inside * (logprobs - student)).sum(-1)
    rest = (1 - inside.sum(-1)).clamp(min=1e-6)
    student_rest = (1 - student.exp().sum(-1)).clamp(min=1e-6)
    return kl + rest * (rest.log() - student_rest.log())
