"""Documents -> tensors: packs contexts and their questions into rows with a block mask.

In a row, a question sees its own context and itself, never another question or another document;
its positions go on where its context ends. Training therefore looks exactly like use.
"""

from __future__ import annotations

import random
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerFast

from world.documents import Document, Writer
from world.tokenizer import end_id, pad_id

ANSWER, QUESTION, CONTEXT = 1.0, 0.25, 0.1
"""Loss weights of the three kinds of tokens."""


class Stage(NamedTuple):
    """A stretch of training with contexts of up to `max_facts` facts."""

    max_facts: int
    length: int
    """Tokens a row."""
    rows: int
    tokens: int
    """Context tokens to train on before the next stage."""
    plain: float
    """Share of steps that read questions without any context."""


class Batch(NamedTuple):
    """Everything a step needs; all but `mask` are [rows, length]."""

    ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    """[rows, 1, length, length], true where a query token may look at a key token."""
    weights: torch.Tensor
    """Loss weight of predicting this token from those before it; 0 at a document's first token."""
    spans: list[tuple[int, int, int, str]]
    """(row, start, end, kind) of every answer."""


class Row:
    """Collects tokens up to a length."""

    def __init__(self, length: int) -> None:
        """An empty row of `length` tokens."""
        self.length = length
        self.ids: list[int] = []
        self.positions: list[int] = []
        self.documents: list[int] = []
        self.branches: list[int] = []
        self.weights: list[float] = []
        self.spans: list[tuple[int, int, str]] = []
        self.count = 0

    @property
    def free(self) -> int:
        """Tokens that still fit."""
        return self.length - len(self.ids)

    def extend(self, ids: list[int], start: int, branch: int, weight: float) -> None:
        """Append tokens of the current document at positions from `start` on."""
        self.ids += ids
        self.positions += range(start, start + len(ids))
        self.documents += [self.count] * len(ids)
        self.branches += [branch] * len(ids)
        self.weights += [weight] * len(ids)


def _add(row: Row, tokens: PreTrainedTokenizerFast, document: Document, lead: list[int]) -> int:
    """Put a document into a row, as many questions as fit; returns how many did."""
    context = lead + (_encode(tokens, document.context + "\n\n") if document.context else [])
    if len(context) + 24 > row.free:
        return 0
    row.count += 1
    begin = len(row.ids)
    row.extend(context, 0, 0, CONTEXT)
    placed = 0
    for question in document.questions:
        prompt = _encode(tokens, question.prompt)
        answer = [*_encode(tokens, " " + question.answer), end_id(tokens)]
        if len(prompt) + len(answer) > row.free:
            break
        placed += 1
        row.extend(prompt, len(context), placed, QUESTION)
        row.spans.append((len(row.ids), len(row.ids) + len(answer), question.kind))
        row.extend(answer, len(context) + len(prompt), placed, ANSWER)
    if begin < len(row.ids):
        row.weights[begin] = 0.0
    return placed


def _encode(tokens: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokens(text, add_special_tokens=False).input_ids


def plain_batch(writer: Writer, tokens: PreTrainedTokenizerFast, rows: int, length: int) -> Batch:
    """Rows of single questions without a context."""
    return _batch([_plain_row(writer, tokens, length) for _ in range(rows)], tokens)


def _plain_row(writer: Writer, tokens: PreTrainedTokenizerFast, length: int) -> Row:
    row = Row(length)
    while row.free >= 28:
        _fill(row, writer, tokens, Document("", [writer.plain()]))
    return row


def _fill(row: Row, writer: Writer, tokens: PreTrainedTokenizerFast, document: Document) -> int:
    # Now and then a document follows an end token: free text is sampled from there.
    lead = [end_id(tokens)] if writer.rng.random() < 0.3 else []
    return _add(row, tokens, document, lead)


def context_batch(writer: Writer, tokens: PreTrainedTokenizerFast, stage: Stage) -> Batch:
    """Rows of contexts, filled up with smaller ones and with single questions."""
    rows = []
    for _ in range(stage.rows):
        row = Row(stage.length)
        _fill_contexts(row, writer, tokens, stage.max_facts)
        while row.free >= 28:
            _fill(row, writer, tokens, Document("", [writer.plain()]))
        rows.append(row)
    return _batch(rows, tokens)


def _fill_contexts(row: Row, writer: Writer, tokens: PreTrainedTokenizerFast, most: int) -> None:
    while row.free > 60 and most >= 1:
        n_facts = _draw_size(writer.rng, most)
        document = writer.contextual(n_facts, 4 + n_facts // 3)
        if not _fill(row, writer, tokens, document):
            most = int(0.8 * min(most, n_facts))


def _draw_size(rng: random.Random, most: int) -> int:
    if rng.random() < 0.5:
        return rng.randint((most + 1) // 2, most)
    return round(most ** rng.random())


def _batch(rows: list[Row], tokens: PreTrainedTokenizerFast) -> Batch:
    length = rows[0].length

    def stack(name: str, fill: float, dtype: torch.dtype) -> torch.Tensor:
        padded = [[*getattr(row, name), *[fill] * row.free] for row in rows]
        return torch.tensor(padded, dtype=dtype)

    documents = stack("documents", -1, torch.int32)
    branches = stack("branches", 0, torch.int32)
    same = documents[:, :, None] == documents[:, None, :]
    shared = (branches[:, None, :] == 0) | (branches[:, :, None] == branches[:, None, :])
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    weights = stack("weights", 0.0, torch.float32)
    # A question's first token follows its context, not the question that stands before it.
    weights[:, 1:][(branches[:, 1:] != branches[:, :-1]) & (branches[:, 1:] > 1)] = 0.0
    return Batch(
        ids=stack("ids", pad_id(tokens), torch.int64),
        positions=stack("positions", 0, torch.int64),
        mask=(same & shared & causal)[:, None],
        weights=weights,
        spans=[(i, *span) for i, row in enumerate(rows) for span in row.spans],
    )


__all__ = ["Batch", "Stage", "context_batch", "plain_batch"]
