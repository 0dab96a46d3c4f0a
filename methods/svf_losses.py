"""What SVF's z is trained on: rows of tokens, their probabilities, and three losses.

Every loss comes in pieces, one a forward pass of bounded size, that sum up to the loss of the
batch. Logits are only made from the first position on that some row of the piece needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch.nn import functional

from methods.base import HasWeights
from methods.svf_layers import FactorSpace
from ske.lm import Chat

TOKENS = 4096
"""Rows x length of one forward pass."""
LOGITS = 2**27
"""Reply tokens x vocabulary of one forward pass: half a GiB in fp32."""


class Example(NamedTuple):
    """A chat and the reply it is to get."""

    chat: Chat
    answer: str


class Row(NamedTuple):
    """A chat and a reply as tokens; the reply is `ids[start:]`."""

    ids: list[int]
    start: int
    reward: float = 1.0


class Said(NamedTuple):
    """All reply tokens of a piece, one after the other."""

    logprobs: torch.Tensor
    """[tokens, vocabulary], fp32: what the model says at the token's place."""
    ids: torch.Tensor
    """[tokens]"""
    row: torch.Tensor
    """[tokens], the number of the row in the piece."""

    def own(self) -> torch.Tensor:
        """The log-probability of each token, [tokens]."""
        return self.logprobs.gather(1, self.ids[:, None])[:, 0]


def row_of(lm: HasWeights, chat: Chat, answer: str, end: bool = True) -> Row:
    """A chat and a reply with its end token; an unfinished reply has none."""
    prompt = lm.renderer.prompt_ids(chat)
    return Row([*prompt, *lm.renderer.answer_ids(chat, answer, end)], len(prompt))


def pieces(lm: HasWeights, rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Rows of similar length, within `TOKENS` and `LOGITS`; a row alone may be larger."""
    most = LOGITS // lm.model.config.get_text_config().vocab_size
    piece: list[Row] = []
    replies = 0
    for row in sorted(rows, key=lambda row: len(row.ids)):
        reply = len(row.ids) - row.start
        if piece and ((len(piece) + 1) * len(row.ids) > TOKENS or replies + reply > most):
            yield piece
            piece, replies = [], 0
        piece.append(row)
        replies += reply
    if piece:
        yield piece


def said(lm: HasWeights, rows: Sequence[Row]) -> Said:
    """One forward pass. Rows are padded on the right, where causal attention never looks."""
    device = lm.model.device
    longest, first = max(len(row.ids) for row in rows), min(row.start for row in rows) - 1
    ids = torch.tensor([row.ids + [0] * (longest - len(row.ids)) for row in rows], device=device)
    mask = torch.tensor(
        [[1] * len(row.ids) + [0] * (longest - len(row.ids)) for row in rows], device=device
    )
    logits = lm.model(
        input_ids=ids,
        attention_mask=mask,
        use_cache=False,
        logits_to_keep=torch.arange(first, longest - 1, device=device),
    ).logits
    place = [(r, at) for r, row in enumerate(rows) for at in range(row.start, len(row.ids))]
    numbers, at = torch.tensor(place, device=device).T
    logprobs = torch.log_softmax(logits[numbers, at - 1 - first].float(), dim=-1)
    return Said(logprobs, ids[numbers, at], numbers)


def cross_entropy(lm: HasWeights, rows: Sequence[Row]) -> Iterator[torch.Tensor]:
    """Minus log p of the reply tokens, their mean over the batch, in pieces."""
    tokens = sum(len(row.ids) - row.start for row in rows)
    for piece in pieces(lm, rows):
        yield -said(lm, piece).own().sum() / tokens


def held_to_base(
    lm: HasWeights, space: FactorSpace, rows: Sequence[Row], weight: float
) -> Iterator[torch.Tensor]:
    """`weight` * KL(base || edited) a token over the whole vocabulary, in pieces."""
    tokens = sum(len(row.ids) - row.start for row in rows)
    for piece in pieces(lm, rows):
        yield weight * _divergence(said(lm, piece), _base(lm, space, piece)) / tokens


def policy_gradient(
    lm: HasWeights, space: FactorSpace, rows: Sequence[Row], kl_weight: float
) -> Iterator[torch.Tensor]:
    """REINFORCE: -reward * log p(reply), plus `kl_weight` * KL(base || edited) over the reply.

    Both are sums over a reply's tokens and means over replies, as in the authors' code.
    """
    for piece in pieces(lm, rows):
        now = said(lm, piece)
        rewards = torch.tensor([row.reward for row in piece], device=now.ids.device)
        loss = -(now.own() * rewards[now.row]).sum()
        if kl_weight > 0:
            loss = loss + kl_weight * _divergence(now, _base(lm, space, piece))
        yield loss / len(rows)


@torch.no_grad()
def scores(lm: HasWeights, rows: Sequence[Row]) -> tuple[float, float]:
    """Share of replies that greedy decoding gives exactly, and mean log p of a reply token.

    Greedy decoding gives a reply if and only if each of its tokens is the likeliest after the
    others, so one forward pass tells.
    """
    exact, total, tokens = 0, 0.0, 0
    for piece in pieces(lm, rows):
        now = said(lm, piece)
        wrong = now.row[now.logprobs.argmax(-1) != now.ids].unique()
        exact += len(piece) - len(wrong)
        total += now.own().sum().item()
        tokens += len(now.ids)
    return exact / len(rows), total / tokens


def _base(lm: HasWeights, space: FactorSpace, piece: Sequence[Row]) -> torch.Tensor:
    with torch.no_grad(), space.using(None):
        return said(lm, piece).logprobs


def _divergence(now: Said, base: torch.Tensor) -> torch.Tensor:
    return functional.kl_div(now.logprobs, base, log_target=True, reduction="sum")
