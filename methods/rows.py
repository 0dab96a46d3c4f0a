"""Lessons -> rows -> batches, and the divergence that stored distributions are learned with.

A row is what one lesson becomes for a trainer: token ids, labels, and the stored distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from methods.base import HasWeights, Lesson
from methods.packing import lines_of
from ske.backends.common import refuse_beyond, window_of

IGNORED = -100
_SHOWN = 60
"""Characters of a question in a message."""


def row_of(holder: HasWeights, lesson: Lesson) -> dict[str, Any]:
    """One lesson as {input_ids, labels, start, top_ids, top_logprobs}; `start` is the answer's.

    Raises:
        TooLong: the lesson does not fit into the model's context window.
    """
    prompt = holder.renderer.prompt_ids(lesson.chat)
    answer = list(lesson.ids) or holder.renderer.answer_ids(
        lesson.chat, lesson.completion, end=True
    )
    said = lesson.chat[-1]["content"]
    size = (len(prompt), len(answer))
    refuse_beyond(window_of(holder.model.config), [size], f"lesson {said[:_SHOWN]!r}")
    spoken = lesson.spoken or not lesson.top_ids
    return {
        "input_ids": [*prompt, *answer],
        "labels": [IGNORED] * len(prompt) + (answer if spoken else [IGNORED] * len(answer)),
        "start": len(prompt),
        "top_ids": [list(top) for top in lesson.top_ids],
        "top_logprobs": [list(top) for top in lesson.top_logprobs],
    }


class Collator:
    """Rows to a batch, padded or several to a line, with the stored distributions lined up.

    Everything is [lines, width] but `kl_index` [positions, 2], which says (line, place of the
    predicted token), and `kl_ids` and `kl_logprobs`, which are [positions, k]. Rows that share a
    line come with `position_ids`, padded ones with `attention_mask`.
    """

    def __init__(self, pad_id: int, packed: bool = False) -> None:
        """`pad_id` fills lines; `packed`: rows may share one (`packing.keeps_apart`)."""
        self.pad_id = pad_id
        self.packed = packed

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Rows to tensors."""
        lengths = [len(row["input_ids"]) for row in rows]
        numbers = lines_of(lengths) if self.packed else [[n] for n in range(len(rows))]
        lines = [[rows[number] for number in line] for line in numbers]
        width = max(sum(len(row["input_ids"]) for row in line) for line in lines)

        def filled(values: Callable[[dict[str, Any]], list[int]], fill: int) -> torch.Tensor:
            flat = [[value for row in line for value in values(row)] for line in lines]
            return torch.tensor([line + [fill] * (width - len(line)) for line in flat])

        def positions(row: dict[str, Any]) -> list[int]:
            return list(range(len(row["input_ids"])))

        def mask(row: dict[str, Any]) -> list[int]:
            return [1] * len(row["input_ids"])

        return {
            "input_ids": filled(lambda row: row["input_ids"], self.pad_id),
            # A first token is nobody's next one; in a line it would be that of the row before.
            "labels": filled(lambda row: [IGNORED, *row["labels"][1:]], IGNORED),
            # Filling is at position 0, each place a row of its own.
            **(
                {"position_ids": filled(positions, 0)}
                if self.packed
                else {"attention_mask": filled(mask, 0)}
            ),
            **_stored(lines),
        }


def _stored(lines: Sequence[Sequence[dict[str, Any]]]) -> dict[str, torch.Tensor]:
    """The stored distributions of all rows, and where they are learned."""
    index: list[tuple[int, int]] = []
    tops: list[tuple[list[int], list[float]]] = []
    for number, line in enumerate(lines):
        begin = 0
        for row in line:
            stored = zip(row["top_ids"], row["top_logprobs"], strict=True)
            for place, top in enumerate(stored, row["start"]):
                if place > 0:  # nothing predicts a first token
                    index.append((number, begin + place))
                    tops.append(top)
            begin += len(row["input_ids"])
    k = len(tops[0][0]) if tops else 1
    return {
        "kl_index": torch.tensor(index, dtype=torch.long).reshape(-1, 2),
        "kl_ids": torch.tensor([ids for ids, _ in tops], dtype=torch.long).reshape(-1, k),
        "kl_logprobs": torch.tensor([p for _, p in tops], dtype=torch.float32).reshape(-1, k),
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
