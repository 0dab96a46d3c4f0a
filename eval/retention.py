"""What is still known of earlier edits: the retention matrix, the forgetting curve, edit decay.

Pure, from saved rows. R[t, i] is the success of round i's facts after round t; `round` `all` is
the mean over the facts of all rounds so far (the forgetting curve). Decay is the same scores by
how many edits came after a fact's own, over all rounds that were asked at that distance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import model_validator

from eval.score import ALL, CaseKey, Metric, Row, per_case
from eval.stats import bootstrap_seeds
from eval.tables import TableRow, shown
from ske.types import Frozen

FILE = "retention.jsonl"
"""In stage `ask`, of sequential runs."""
RETAINED: tuple[Metric, ...] = ("edit_success", "paraphrase")
"""What is asked again after every round."""
_HEAD = ("method", "dataset", "protocol", "metric")
_TAIL = ("n", "mean", "ci_low", "ci_high", "seed")
RETENTION_COLUMNS = (*_HEAD, "after_round", "round", *_TAIL)
DECAY_COLUMNS = (*_HEAD, "later_edits", *_TAIL)


class RetentionRow(Frozen):
    """An answer about a fact of one round after some round."""

    after_round: int
    """From 1."""
    round: int
    """The fact's own, at most `after_round`."""
    row: Row

    @model_validator(mode="after")
    def _was_edited(self) -> RetentionRow:
        if not 1 <= self.round <= self.after_round:
            raise ValueError(
                f"case {self.row.case!r} of round {self.round} was asked after round "
                f"{self.after_round}, before it was edited"
            )
        return self


class Scored(Frozen):
    """A case's value after some round, in percent."""

    after: int
    round: int
    key: CaseKey
    value: float


def scored(rows: Iterable[RetentionRow]) -> list[Scored]:
    """The value of every case after every round.

    Raises:
        ValueError: If a probe occurs twice after the same round.
    """
    by_time: dict[int, list[Row]] = {}
    own: dict[tuple[str, int], int] = {}
    for item in rows:
        by_time.setdefault(item.after_round, []).append(item.row)
        own[item.row.case, item.row.seed] = item.round
    return [
        Scored(after=after, round=own[key.case, key.seed], key=key, value=value)
        for after in sorted(by_time)
        for key, value in per_case(by_time[after]).items()
        if key.category == ALL
    ]


def matrix(values: Sequence[Scored]) -> list[TableRow]:
    """The rows of `retention.csv`: R[t, i], then the mean over all rounds so far."""
    cells = _table(values, ("after_round", "round"), lambda v: (v.after, v.round))
    curve = _table(values, ("after_round", "round"), lambda v: (v.after, ALL))
    return cells + curve


def decay(values: Sequence[Scored]) -> list[TableRow]:
    """The rows of `decay.csv`: success as a function of how many edits came later."""
    sizes = _sizes(values)

    def later(value: Scored) -> tuple[int]:
        mine = sizes[value.key.seed]
        return (sum(mine.get(number, 0) for number in range(value.round + 1, value.after + 1)),)

    return _table(values, ("later_edits",), later)


def _sizes(values: Iterable[Scored]) -> dict[int, dict[int, int]]:
    """How many facts each round edited, by seed."""
    cases: dict[int, dict[int, set[str]]] = {}
    for value in values:
        of_seed = cases.setdefault(value.key.seed, {})
        of_seed.setdefault(value.round, set()).add(value.key.case)
    return {
        seed: {number: len(ids) for number, ids in of_seed.items()}
        for seed, of_seed in cases.items()
    }


def _table(
    values: Sequence[Scored],
    columns: Sequence[str],
    place: Callable[[Scored], tuple[Any, ...]],
) -> list[TableRow]:
    """One line a method, metric and place: a block per seed, then one over several seeds."""
    seeds = sorted({value.key.seed for value in values})
    groups: dict[tuple[Any, ...], dict[tuple[str, int], float]] = {}
    for block in [*seeds, *([ALL] if len(seeds) > 1 else [])]:
        for value in values:
            if block in (ALL, value.key.seed):
                head = [getattr(value.key, column) for column in _HEAD]
                group = groups.setdefault((*head, *place(value), block), {})
                group[value.key.case, value.key.seed] = value.value
    return [_row(columns, group, found) for group, found in groups.items()]


def _row(
    columns: Sequence[str], group: tuple[Any, ...], found: Mapping[tuple[str, int], float]
) -> TableRow:
    named = dict(zip((*_HEAD, *columns, "seed"), group, strict=True))
    return named | shown(bootstrap_seeds(found))
