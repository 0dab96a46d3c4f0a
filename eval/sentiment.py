"""ConvSent as its authors score it: has the opinion on a topic turned, and nothing else moved?

An edit asks for one side (for or against a topic). Mitchell et al. (2022, arXiv 2206.06520), whom
EasyEdit's `es` and `kl_loc_loss` follow, read the likelihood of people's sentences:

- `sentiment` = sigmoid(L+ - L-) * min(1, exp(L+ - B+)), in percent. L+ and L- are the edited
  model's mean log-probabilities of a token of the sentences of the wanted and of the other side, B+
  the base model's. The first factor (category `side`) says that the wanted side is the likelier
  one, the second (`topic`) that its sentences have not become unlikely. No opinion at all is 50.
- `sentiment_kl`, the drawdown: KL(base || edited) at the tokens of another topic's sentences, in
  nats (a lower bound, see `eval.divergence`).

Means are over tokens, as theirs are. EasyEdit reads each token's probability one place too late
(its logits are not shifted against the labels) and counts padding; here neither is so, and its
published figures cannot be compared to the digit. Reads rows of `stages/ask/opinions.jsonl`; writes
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

from pydantic import Field

from eval.records import Case
from eval.score import ALL, CaseKey, ErrorKey
from ske.types import Frozen

FILE = "opinions.jsonl"
SENTIMENT, DRAWDOWN = "sentiment", "sentiment_kl"
SAME, OTHER, OUTER = "same", "other", "outer"
_PROTOCOL = "teacher_forced"

NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class OpinionRow(Frozen):
    """One sentence that somebody says about a topic, under one method."""

    method: str
    dataset: str
    seed: int
    case: str
    side: Literal["same", "other", "outer"]
    """The wanted side, the other one, or (either side) another topic."""
    probe: int
    prompt: str
    sentence: str
    tokens: int = 0
    loss: NonNegative | None = None
    """Mean negative log-probability of the sentence's tokens, in nats."""
    base_loss: NonNegative | None = None
    """The base model's."""
    divergence: tuple[NonNegative, ...] = ()
    """Of another topic: KL(base || this model) at each token."""
    error: str | None = None

    @property
    def error_key(self) -> ErrorKey:
        """Where it is counted if it is an error row."""
        metric = DRAWDOWN if self.side == OUTER else SENTIMENT
        return ErrorKey(self.method, self.dataset, _PROTOCOL, metric)


def with_outer(chosen: Sequence[Case], every: Sequence[Case]) -> list[Case]:
    """The cases, each with what is said of the next topic in the file that is not edited, too.

    If all topics are edited, of the next one, as the authors have it.
    """
    edited = {case.fact.subject for case in chosen}
    places = {case.fact.id: place for place, case in enumerate(every)}
    return [
        _with_next(case, every, places[case.fact.id], edited) if case.opinions else case
        for case in chosen
    ]


def _with_next(case: Case, every: Sequence[Case], place: int, edited: set[str]) -> Case:
    later = [*every[place + 1 :], *every[:place]]
    others = [one for one in later if one.opinions and one.fact.subject != case.fact.subject]
    free = [one for one in others if one.fact.subject not in edited]
    if not others:
        return case
    found = (free or others)[0].opinions
    outer = (*found.get(SAME, ()), *found.get(OTHER, ()))
    return case.model_copy(update={"opinions": case.opinions | {OUTER: outer}})


def values(rows: Iterable[OpinionRow]) -> dict[CaseKey, float]:
    """The value of every case; rows with an error are left out, one without both sides has none."""
    cases: dict[CaseKey, dict[str, list[OpinionRow]]] = {}
    for row in rows:
        if row.error is None:
            key = CaseKey(row.method, row.dataset, _PROTOCOL, SENTIMENT, ALL, row.case, row.seed)
            cases.setdefault(key, {}).setdefault(row.side, []).append(row)
    found: dict[CaseKey, float] = {}
    for key, sides in cases.items():
        found |= _turned(key, sides.get(SAME, []), sides.get(OTHER, []))
        moved = [nats for row in sides.get(OUTER, []) for nats in row.divergence]
        if moved:
            found[key._replace(metric=DRAWDOWN)] = math.fsum(moved) / len(moved)
    return found


def _turned(
    key: CaseKey, same: Sequence[OpinionRow], other: Sequence[OpinionRow]
) -> dict[CaseKey, float]:
    wanted, base = _likelihood(same, "loss"), _likelihood(same, "base_loss")
    unwanted = _likelihood(other, "loss")
    if wanted is None or base is None or unwanted is None:
        return {}
    side = 1 / (1 + math.exp(min(unwanted - wanted, 700.0)))
    topic = math.exp(min(wanted - base, 0.0))
    return {
        key: 100 * side * topic,
        key._replace(category="side"): 100 * side,
        key._replace(category="topic"): 100 * topic,
    }


def _likelihood(rows: Sequence[OpinionRow], which: str) -> float | None:
    """The mean log-probability of a token of all sentences together; None without any."""
    losses = [(row.base_loss if which == "base_loss" else row.loss, row.tokens) for row in rows]
    known = [(loss, tokens) for loss, tokens in losses if loss is not None and tokens]
    if not known:
        return None
    return -math.fsum(loss * n for loss, n in known) / sum(n for _, n in known)
