"""What a judge makes of free replies, beside the match by words: `edit_success_judged` and so on.

Reads rows of `stages/ask/judged.jsonl`; writes nothing. A reply whose verdict could not be read has
an error and no value: it is neither right nor wrong.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import model_validator

from eval.score import CaseKey, ErrorKey, Row, collect
from ske.types import Frozen

FILE = "judged.jsonl"
PROTOCOL = "generate"
OF = ("edit_success", "paraphrase", "portability")
"""What is judged; locality is agreement with the base model, which needs no judge."""
JUDGED = tuple(f"{metric}_judged" for metric in OF)


class JudgedRow(Frozen):
    """One reply of one method, and the verdict."""

    method: str
    dataset: str
    seed: int
    case: str
    metric: Literal["edit_success", "paraphrase", "portability"]
    category: str
    probe: int
    right: bool | None = None
    said: str = ""
    """What the judge said, word for word."""
    judge: str = ""
    """Its model, and the hash of the question's template."""
    error: str | None = None

    @model_validator(mode="after")
    def _can_be_scored(self) -> JudgedRow:
        if self.right is None and self.error is None:
            raise ValueError(f"case {self.case!r}, {self.metric}: no verdict and no error")
        return self

    @property
    def judged_metric(self) -> str:
        """What its verdict counts for."""
        return f"{self.metric}_judged"

    @property
    def error_key(self) -> ErrorKey:
        """Where it is counted if it is an error row."""
        return ErrorKey(self.method, self.dataset, PROTOCOL, self.judged_metric)


def to_judge(rows: Iterable[Row]) -> list[Row]:
    """The rows that a judge is asked about."""
    return [
        row for row in rows if row.protocol == PROTOCOL and row.metric in OF and row.error is None
    ]


def values(rows: Iterable[JudgedRow]) -> dict[CaseKey, float]:
    """Percent of replies that the judge holds right, by case."""
    return collect(
        (
            CaseKey(
                row.method,
                row.dataset,
                PROTOCOL,
                row.judged_metric,
                row.category,
                row.case,
                row.seed,
            ),
            float(row.right),
        )
        for row in rows
        if row.error is None and row.right is not None
    )
