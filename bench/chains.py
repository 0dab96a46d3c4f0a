"""Chains of unseen kinds, told apart by their hops and by where the edited fact lies in them.

The embedded world asks them under one name (`hard` / `Beyond`): three hops from the edited subject,
two hops of a pair of relations that no training query shows, and chains of somebody else that lead
through the edited fact. What a model can do of them with the fact in a prompt differs widely.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from eval.score import Row
from world.questions import beyond_patterns

METRIC, WHOLE = "hard", "Beyond"
THREE, TWO, THROUGH = "three hops", "two hops, pairs kept out", "through the edited fact"
KINDS = (THREE, TWO, THROUGH)


def by_kind(rows: Iterable[Row]) -> Iterator[Row]:
    """The rows about such chains once more, each under its kind.

    Only of runs that were joined: there a case is named by the prompt that was edited, which holds
    the subject.
    """
    for row in rows:
        if (row.metric, row.category) == (METRIC, WHOLE) and (kind := _kind(row)) is not None:
            yield row.model_copy(update={"category": kind})


def _kind(row: Row) -> str | None:
    for wording, hops in beyond_patterns():
        if found := wording.fullmatch(row.prompt):
            if f" {found[1]} " not in f" {row.case} ":
                return THROUGH
            return THREE if hops > 2 else TWO
    return None
