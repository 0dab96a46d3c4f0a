"""All that stage `ask` has saved of a run, read once, each line checked. Writes nothing.

Reads of a run folder `stages/ask/`: `rows.jsonl`, `capability.jsonl`, and what its configuration
and data ask for beside them: `retention.jsonl`, `opinions.jsonl`, `judged.jsonl`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

from eval import capability, judge, sentiment
from eval.capability import SkillRow
from eval.judge import JudgedRow
from eval.retention import FILE as RETENTION
from eval.retention import RetentionRow
from eval.saved import read_saved
from eval.score import CaseKey, ErrorKey, Row, count_errors
from eval.sentiment import OpinionRow
from ske.config import Config
from ske.io import read_rows


class Beside(NamedTuple):
    """Answers that are no probe of a case."""

    capability: list[SkillRow]
    opinions: list[OpinionRow]
    """Of ConvSent: what people say of the topics."""
    judged: list[JudgedRow]
    """Where there is a judge: its verdicts."""

    @property
    def values(self) -> dict[CaseKey, float]:
        """As `eval.tables` takes them."""
        skills, said = capability.values(self.capability), sentiment.values(self.opinions)
        return skills | said | judge.values(self.judged)

    @property
    def errors(self) -> dict[ErrorKey, int]:
        """How many have an error, and so are in no mean."""
        rows = (*self.capability, *self.opinions, *self.judged)
        return dict(Counter(row.error_key for row in rows if row.error is not None))


class Answers(NamedTuple):
    """All answers of a run."""

    rows: list[Row]
    retention: list[RetentionRow]
    """Of a sequential run: the answers after each round."""
    beside: Beside

    @property
    def errors(self) -> dict[ErrorKey, int]:
        """How many have an error, and so are in no mean; those after each round apart."""
        return count_errors(self.rows) | self.beside.errors


def read_answers(folder: Path, config: Config, again: str) -> Answers:
    """The saved answers of a run.

    Args:
        folder: The run's.
        config: The run's; it says which files there must be.
        again: What a user can do about a missing or broken file.

    Raises:
        UserError: a file is missing, or a line of it is broken.
    """
    asked = folder / "stages" / "ask"
    in_rounds = config.edits.mode == "sequential"
    return Answers(
        read_saved(asked / "rows.jsonl", Row, again),
        read_saved(asked / RETENTION, RetentionRow, again) if in_rounds else [],
        read_beside(folder, config, again),
    )


def read_beside(folder: Path, config: Config, again: str) -> Beside:
    """The part of `read_answers` that is no probe of a case."""
    asked, cases = folder / "stages" / "ask", folder / "stages" / "facts" / "cases.jsonl"
    talked = "teacher_forced" in config.eval.protocols and _have_opinions(cases)
    return Beside(
        read_saved(asked / "capability.jsonl", SkillRow, again),
        read_saved(asked / sentiment.FILE, OpinionRow, again) if talked else [],
        read_saved(asked / judge.FILE, JudgedRow, again) if config.eval.judge else [],
    )


def _have_opinions(cases: Path) -> bool:
    return any(case.get("opinions") for case in read_rows(cases))
