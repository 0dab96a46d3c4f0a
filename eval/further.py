"""What the saved rows tell beside the main metrics: how far locality holds, and whose edits take.

- `locality_correct`: percent of locality probes answered rightly, beside `locality`, which asks
  only whether the answer is the base model's.
- `locality_kl`: how far the answers' distributions moved, in nats (`eval.divergence`); 0 is best.
- `self_refutation`: percent of claims with the old value that the model agrees with: who was taught
  a fact and still argues for the old one. A reply with neither yes nor no agrees with nothing.
- `edit_success_by_belief`: `edit_success` by how probable the base model held the old answer, in
  quarters of the cases, `strength_1` (weakest) to `strength_4`; of cases with an old answer.
- `forgotten`: percent of replies to the edit's question, in its own and in other words, that do not
  hold the old answer anywhere; of cases with an old answer that is no part of the new one.
- `refusal` and `locality_overlap`: of erasures, success and locality as the makers of KnowEdit's
  Sanitation score them: the reply holds the wanted refusal, whatever else it says; and the share of
  the words of the base model's reply that stand at the same place (they compare tokens).

Pure, like `eval.score`: no model, no file.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from eval.score import (
    BASE,
    REFUSABLE,
    CaseKey,
    Row,
    collect,
    is_erasure,
    key_of,
    matches,
    mean,
    mentions,
    normalise,
    score_row,
)

FURTHER = (
    "forgotten",
    "refusal",
    "locality_overlap",
    "self_refutation",
    "locality_correct",
    "locality_kl",
    "edit_success_by_belief",
)
LEAST = {"locality_kl": 0.0, "perplexity": 1.0, "fluency_entropy": 0.0, "sentiment_kl": 0.0}
"""Metrics that are no percentages, and the least they can be: nats, how many tokens a model is torn
between, and hundredths of a bit. Nothing bounds them above."""
QUARTERS = 4
CLAIMS = "Claims"
"""The category of `hard` whose claims hold the new value (yes) or the old one (no)."""
_DENIED = (("no",),)


def further(rows: Iterable[Row]) -> dict[CaseKey, float]:
    """The value of every case, in percent or as `LEAST` says; error rows are left out."""
    kept = [row for row in rows if row.error is None]
    strata = strengths(kept)
    erased = {(row.dataset, row.case) for row in kept if is_erasure(row)}
    shares: list[tuple[CaseKey, float]] = []
    nats: list[tuple[CaseKey, float]] = []
    for row in kept:
        shares += _shares(row, strata)
        if row.protocol == "generate":
            shares += _erased(row, (row.dataset, row.case) in erased)
        if row.divergence:
            nats.append((key_of(row)._replace(metric="locality_kl"), mean(row.divergence)))
    return collect(shares) | collect(nats, scale=1)


def _shares(row: Row, strata: Mapping[tuple[str, str], str]) -> Iterator[tuple[CaseKey, float]]:
    key, generated = key_of(row), row.protocol == "generate"
    if row.metric == "hard" and row.category == CLAIMS and row.answers == _DENIED and generated:
        agreed = matches(row.text, "yes", row.prompt)
        yield key._replace(metric="self_refutation"), float(agreed)
    if row.metric == "locality" and (right := _right(row)) is not None:
        yield key._replace(metric="locality_correct"), right
    stratum = strata.get((row.dataset, row.case))
    score = score_row(row) if row.metric == "edit_success" and stratum else None
    if stratum and score is not None:
        yield key._replace(metric="edit_success_by_belief", category=stratum), score


def _erased(row: Row, erasure: bool) -> Iterator[tuple[CaseKey, float]]:
    """What has become of the old answer."""
    key = key_of(row)
    if row.metric in REFUSABLE and row.old and _can_be_missed(row, row.old):
        gone = not mentions(row.text, row.old)
        yield key._replace(metric="forgotten", category=row.metric), float(gone)
    if row.metric in ("edit_success", "portability") and is_erasure(row):
        # Anywhere, as a piece of text: theirs is no comparison of words.
        said = row.answers[0][0].casefold() in row.text.casefold()
        yield key._replace(metric="refusal", category=row.metric), float(said)
    if row.metric == "locality" and erasure:
        before, after = (normalise(text or "").split() for text in (row.base_text, row.text))
        kept = [a == b for a, b in zip(before, after, strict=False)]
        share = sum(kept) / len(before) if before else float(not after)
        yield key._replace(metric="locality_overlap"), share


def _can_be_missed(row: Row, old: str) -> bool:
    """Whether a reply without the old answer is possible beside a right one and its question."""
    told = [row.prompt, *(alias for answer in row.answers for alias in answer)]
    return bool(normalise(old)) and not any(mentions(text, old) for text in told)


def _right(row: Row) -> float | None:
    """Whether a locality probe is answered rightly; None if its answer is not known."""
    if row.protocol == "teacher_forced":
        return mean(row.gold_hits) if row.gold_hits else None
    if not any(row.answers):
        return None
    aliases = (alias for answer in row.answers for alias in answer)
    return float(any(matches(row.text, alias, row.prompt) for alias in aliases))


def strengths(rows: Sequence[Row]) -> dict[tuple[str, str], str]:
    """(data set, case) -> the quarter of its old belief; equal beliefs are in one quarter.

    Fewer than four cases with an old answer make no quarters.
    """
    priors: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if row.method == BASE and row.metric == "edit_success" and row.prior is not None:
            priors.setdefault(row.dataset, {}).setdefault(row.case, []).append(row.prior)
    found: dict[tuple[str, str], str] = {}
    for dataset, cases in priors.items():
        beliefs = {case: mean(values) for case, values in cases.items()}
        if len(beliefs) < QUARTERS:
            continue
        cuts = np.quantile(list(beliefs.values()), [q / QUARTERS for q in range(1, QUARTERS)])
        for case, belief in beliefs.items():
            found[dataset, case] = f"strength_{bisect_left(cuts.tolist(), belief) + 1}"
    return found
