"""How far an edit moved what a model is about to say: the KL divergence of answer distributions.

Read at every token of the base model's own answer, its end included, and averaged over them. Not
at the first token alone: an edit that turns "New York" into "New Delhi" has moved nothing there.
Not at the gold answer: what an edit should leave alone is what the base says, right or wrong, and
many locality probes have no gold answer. Agreement of the replies only says whether the most likely
tokens still are the most likely; this also sees what has not tipped yet.

Only the k most likely tokens are known of either model. So both distributions are read on a coarser
set: the tokens that both lists hold, the answer's own token (known of both exactly), and one bucket
for all others. Merging outcomes never raises a KL divergence (Cover and Thomas 2006, theorem 2.7.1,
the log sum inequality), so the figure is a lower bound, and close to the true one where the
answer's tokens hold most of the mass. In nats. Reads numbers, writes nothing.
"""

from __future__ import annotations

import math

from ske.lm import Scored
from ske.types import Frozen

TOP_K = 20
_DIGITS = 6
_LEAST_TOKEN, _LEAST_REST = math.log(1e-12), 1e-6
"""What no probability falls below: a rest below 1e-6 is rounding. Keeps every figure finite."""


class Told(Frozen):
    """A model's distributions at the tokens of one answer; each list has an entry per token."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Of the answer's own tokens; natural logarithm."""
    top_ids: tuple[tuple[int, ...], ...]
    top_logprobs: tuple[tuple[float, ...], ...]


def told(scored: Scored) -> Told | None:
    """What is kept of a scored answer; None if it has no token to read at.

    Raises:
        ValueError: a log-probability is not a number, which no divergence can be made of.
    """
    if not scored.tokens:
        return None
    rows = [scored.logprobs, *scored.top_logprobs]
    if any(math.isnan(value) for row in rows for value in row):
        raise ValueError("the model's log-probabilities are not numbers (NaN)")
    return Told(
        tokens=tuple(scored.tokens),
        logprobs=_kept(scored.logprobs),
        top_ids=tuple(map(tuple, scored.top_ids)),
        top_logprobs=tuple(map(_kept, scored.top_logprobs)),
    )


def _kept(values: list[float]) -> tuple[float, ...]:
    return tuple(max(round(value, _DIGITS), _LEAST_TOKEN) for value in values)


def divergence(before: Told, after: Told) -> tuple[float, ...]:
    """KL(before || after) in nats at each token of the answer, from below.

    Raises:
        ValueError: the two were not read at the same answer.
    """
    if before.tokens != after.tokens:
        raise ValueError(f"two answers: {before.tokens[:8]!r} ... and {after.tokens[:8]!r} ...")
    return tuple(_at(before, after, place) for place in range(len(before.tokens)))


def _at(before: Told, after: Told, place: int) -> float:
    own = before.tokens[place]
    p = dict(zip(before.top_ids[place], before.top_logprobs[place], strict=True))
    q = dict(zip(after.top_ids[place], after.top_logprobs[place], strict=True))
    p[own], q[own] = before.logprobs[place], after.logprobs[place]
    common = p.keys() & q.keys()
    total = math.fsum(math.exp(p[token]) * (p[token] - q[token]) for token in common)
    rest = 1 - math.fsum(math.exp(p[token]) for token in common)
    other = 1 - math.fsum(math.exp(q[token]) for token in common)
    if rest > _LEAST_REST:
        total += rest * math.log(rest / max(other, _LEAST_REST))
    return max(total, 0.0)
