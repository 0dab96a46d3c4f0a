"""What an edit should leave alone though no probe asks it: skills, facts, general text, fluency.

Reads rows of `stages/ask/capability.jsonl`, each one question or one text under one method, and
gives values for `tables`. `capability` is percent right; `perplexity` is that of one text, the
exponential of its tokens' mean negative log-probability, averaged over texts; `fluency` that of
what was written behind an edit's prompt (`eval.fluency`). A question is a case, if the row names
none: every method is asked the same ones in the same order. `changes` is what every skill and task
was before an edit and is after it, question by question.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from eval.fluency import ENTROPY, FLUENCY, fluency
from eval.score import ALL, BASE, CaseKey, ErrorKey, collect, matches
from eval.stats import paired
from eval.tables import TableRow
from ske.types import Frozen

CHANGE_COLUMNS = "method dataset category n before after diff ci_low ci_high".split()
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class SkillRow(Frozen):
    """One question, or one text, under one method."""

    method: str
    dataset: str
    seed: int
    skill: str
    """Its category: a skill, "held_out", "in_context", "free_text", a task's name, or "all"."""
    metric: Literal["capability", "perplexity", "fluency"] = "capability"
    case: str = ""
    """The id of the fact behind whose prompt a text was written (fluency)."""
    prompt: str = ""
    answer: str = ""
    aliases: tuple[str, ...] = ()
    """Other names of the answer."""
    text: str = ""
    """What the model said."""
    score: NonNegative | None = None
    """Where the reply alone does not tell: percent for a task's question, a text's perplexity."""
    error: str | None = None

    @model_validator(mode="after")
    def _can_be_scored(self) -> SkillRow:
        told = self.metric == FLUENCY or self.score is not None or self.answer
        if self.error is None and not told:
            raise ValueError(
                f"row of {self.method!r}, {self.metric} {self.skill!r} has no answer, no score and "
                "no error"
            )
        return self

    @property
    def protocol(self) -> str:
        """Of the figure that the row counts for."""
        return "teacher_forced" if self.metric == "perplexity" else "generate"

    @property
    def error_key(self) -> ErrorKey:
        """Where it is counted if it is an error row."""
        return ErrorKey(self.method, self.dataset, self.protocol, self.metric)


def values(rows: Iterable[SkillRow]) -> dict[CaseKey, float]:
    """The value of every question and text; rows with an error have none, and are not 0."""
    asked: Counter[tuple[str, str, str, int]] = Counter()
    found: list[tuple[CaseKey, float]] = []
    for row in rows:
        place = (row.method, row.dataset, row.skill, row.seed)
        case = row.case or f"{row.skill} {asked[place]}"
        asked[place] += 1
        key = CaseKey(row.method, row.dataset, row.protocol, row.metric, row.skill, case, row.seed)
        if row.error is None and row.metric == FLUENCY:
            written = fluency(row.text)
            found += [(key, written.share), (key._replace(metric=ENTROPY), written.entropy)]
        elif row.error is None:
            found.append((key, _score(row)))
    return collect(found, scale=1)


def _score(row: SkillRow) -> float:
    if row.score is not None:
        return row.score
    names = (row.answer, *row.aliases)
    return 100.0 * any(matches(row.text, name, row.prompt) for name in names)


def changes(values: Mapping[CaseKey, float]) -> list[TableRow]:
    """Skill by skill and task by task, what was right before and after each edit, in percent.

    `diff` is after minus before, in points, with its interval, over the `n` questions that both the
    base and the method answered. Nothing is corrected for the number of lines.
    """
    answered: dict[tuple[str, str, str], dict[tuple[str, int], float]] = {}
    for key, value in values.items():
        if key.metric == "capability" and key.category != ALL:
            own = answered.setdefault((key.dataset, key.category, key.method), {})
            own[key.case, key.seed] = value
    return [
        _change((method, dataset, category), answered[dataset, category, BASE], own)
        for (dataset, category, method), own in answered.items()
        if method != BASE and own.keys() & answered.get((dataset, category, BASE), {}).keys()
    ]


def _change(
    names: tuple[str, str, str],
    base: Mapping[tuple[str, int], float],
    own: Mapping[tuple[str, int], float],
) -> TableRow:
    found = paired(own, base)
    both = own.keys() & base.keys()
    before, after = (sum(side[key] for key in both) / len(both) for side in (base, own))
    numbers = (before, after, found.diff, found.low, found.high)
    told = (*names, found.n, *(round(number, 4) for number in numbers))
    return dict(zip(CHANGE_COLUMNS, told, strict=True))
