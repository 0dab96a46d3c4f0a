"""Scores, from saved rows alone: no model, no file, no network.

Reads `Row`s, one line each of `stages/ask/rows.jsonl`, and gives percentages (0-100) per case.
Two protocols: `teacher_forced` counts the target tokens that are the argmax (EasyEdit's partial
credit), `generate` reads a freely generated reply (any alias of any acceptable answer counts).
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from eval.words import spaced
from ske.types import ERASED, Frozen

Metric = Literal["edit_success", "paraphrase", "portability", "locality", "hard"]
Protocol = Literal["teacher_forced", "generate"]

METRICS: tuple[Metric, ...] = ("edit_success", "paraphrase", "portability", "locality", "hard")
PROTOCOLS: tuple[Protocol, ...] = ("teacher_forced", "generate")
BASE = "base"
"""The unedited model: what locality and strength of belief are read from."""
ALL = "all"
"""The category of probes that have none, and of the mean over the categories of a case."""

REFUSABLE = ("edit_success", "paraphrase")
"""Where the old answer is what an erasure is to take away."""

NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Row(Frozen):
    """One probe asked once, with everything its score needs."""

    method: str
    dataset: str
    case: str
    """The id of the fact that was edited."""
    metric: Metric
    category: str = ALL
    probe: int
    """The probe's index inside its (case, metric, category)."""
    prompt: str
    protocol: Protocol
    seed: int
    answers: tuple[tuple[str, ...], ...] = ()
    """Acceptable answers, each with its aliases."""
    text: str = ""
    """What the model said (protocol `generate`)."""
    finished: bool = True
    """False if the reply was cut at its length limit; it is scored all the same."""
    base_text: str | None = None
    """What the base model said to the same prompt (`generate`, metric `locality`)."""
    hits: tuple[Literal[0, 1], ...] = ()
    """1 where the argmax is the target token; for locality, where it is the base's argmax."""
    error: str | None = None
    """Why there is no answer. Such a row is counted, never a 0."""
    tokens: int = 0
    gold_hits: tuple[Literal[0, 1], ...] = ()
    """For locality (`teacher_forced`): 1 where the argmax is the gold token."""
    divergence: tuple[NonNegative, ...] = ()
    """For locality (`generate`): KL(base || this model) at each token of the base's answer."""
    old: str | None = None
    """The old answer (`generate`, metrics of `REFUSABLE`)."""
    prior: Share | None = None
    """The base model's own rows of `edit_success`: the probability of the old answer, 0 to 1."""

    @model_validator(mode="after")
    def _can_be_scored(self) -> Row:
        """Refuse a row without what its score is made of: averaging would hide the gap as a 0."""
        if self.error is None and (missing := self._missing()):
            raise ValueError(
                f"{self.protocol} row of {self.method!r}, case {self.case!r}, {self.metric} "
                f"{self.category!r} {self.probe} has no {missing} and no error"
            )
        return self

    def _missing(self) -> str:
        if self.protocol == "teacher_forced":
            return "" if self.hits else "hits"
        if self.metric == "locality":
            return "" if self.base_text is not None else "base_text"
        return "" if any(self.answers) else "answers"


class CaseKey(NamedTuple):
    """Whose value it is: one method on one case, by metric and category."""

    method: str
    dataset: str
    protocol: str
    metric: str
    category: str
    case: str
    seed: int


class ErrorKey(NamedTuple):
    """Where error rows are counted."""

    method: str
    dataset: str
    protocol: str
    metric: str


# --- matching a free reply ------------------------------------------------------------------

# An article is a word of its own: "A. A. Milne" and "A-Team" keep their first letter.
_ARTICLE = re.compile(r"^[\W_]*(?:a|an|the)\s+(?=[^\s])")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
_DECIMAL = re.compile(r"(?<=\d)\.(?=\d)")
_MINUS = re.compile(r"(?<!\S)[-\u2212](?=\d)")
_DECIMAL_MARK, _MINUS_MARK = "\ue000", "\ue001"  # private use: no text that people write holds them

# "isn't" is "isn t" once its apostrophe is a space.
_AUX = "is|was|are|were|does|did|do|has|have|had|can|could|would|should"
_NEGATION = re.compile(
    rf"\b(?:not|never|neither|nor|cannot|no longer|(?:{_AUX})n t|can t|won t"
    r"|instead of|rather than|other than)\b"
)
_DENIED = re.compile(rf"(?:(?:{_AUX})(?:n t| not| never| no longer)|can t|cannot|won t)\b")
# A quote or bracket may close after the mark; the last three are the marks of Chinese and Japanese.
_SENTENCE_END = re.compile("[.!?]+(?=[\"'\u201d\u2019)\\]*]*(?:\\s|$))|[\u3002\uff01\uff1f]+")
_ABBREVIATED = re.compile(r"(?:^|[\W_])([^\W\d_]{1,3})$")


def _is_mark(char: str) -> bool:
    # "+" and "#" stay: C, C++ and C# are three answers.
    return unicodedata.category(char)[0] in "PS" and char not in "+#"


@lru_cache(maxsize=65536)
def normalise(text: str) -> str:
    """The form in which texts are compared.

    NFKC, casefolded, one leading article dropped, punctuation to spaces (a decimal point and a
    minus sign stay, a thousands comma goes), spaces collapsed; see `eval.words` for scripts
    without any.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = _ARTICLE.sub("", text.strip())
    text = _DECIMAL.sub(_DECIMAL_MARK, _THOUSANDS.sub("", _MINUS.sub(_MINUS_MARK, text)))
    text = spaced("".join(" " if _is_mark(char) else char for char in text))
    return " ".join(text.replace(_DECIMAL_MARK, ".").replace(_MINUS_MARK, "-").split())


def first_sentence(text: str) -> str:
    """The first sentence of the first line; a line that ends in a colon takes the next one along.

    A period after a capitalised word of 1 to 3 letters ("St. Louis", "J. K. Rowling") or before
    a small letter does not end a sentence: better a sentence too long than a name cut in two.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return ""
    announces = lines[0].rstrip("* ").endswith(":")
    line = " ".join(lines[:2]) if announces else lines[0]
    for end in _SENTENCE_END.finditer(line):
        if not _is_abbreviation(line, end):
            return line[: end.end()]
    return line


def _is_abbreviation(line: str, end: re.Match[str]) -> bool:
    if not end.group().startswith("."):
        return False
    word = _ABBREVIATED.search(line[: end.start()])
    follows = line[end.end() :].lstrip()
    return bool(word and word.group(1)[0].isupper()) or follows[:1].islower()


def matches(text: str, alias: str, prompt: str = "") -> bool:
    """Does the reply give this answer?

    Yes if the reply begins with the alias (whole words, both normalised), or if its first
    sentence holds the alias with no negation before it ("not", "never", "isn't", "no longer",
    "instead of", ...). Either way no if what follows denies it ("Syria is not ...").
    This errs on the strict side: "not Lebanon but Syria" is no match for Syria. A negation that
    the prompt itself holds (a film called "I'm Not There") is no negation. An empty alias never
    matches.
    """
    wanted = normalise(alias).split()
    if not wanted:
        return False
    size = len(wanted)
    words = normalise(text).split()
    if words[:size] == wanted:
        return not _DENIED.match(" ".join(words[size:]))
    words = normalise(first_sentence(text)).split()
    asked = set(_NEGATION.findall(normalise(prompt)))
    return any(
        words[start : start + size] == wanted
        and set(_NEGATION.findall(" ".join(words[:start]))) <= asked
        and not _DENIED.match(" ".join(words[start + size :]))
        for start in range(len(words) - size + 1)
    )


def score_row(row: Row) -> float | None:
    """The row's score from 0 to 1 (not a percentage), or None for an error row.

    Of an erasure, a reply that refuses and gives the old answer all the same has failed.
    """
    if row.error is not None:
        return None
    if row.protocol == "teacher_forced":
        return mean(row.hits)
    if row.metric == "locality":
        # Drift, not truth: the edit must leave the answer as it was, right or wrong.
        return float(normalise(row.text) == normalise(row.base_text or ""))
    if is_erasure(row) and row.old and mentions(row.text, row.old):
        return 0.0
    aliases = (alias for answer in row.answers for alias in answer)
    return float(any(matches(row.text, alias, row.prompt) for alias in aliases))


def is_erasure(row: Row) -> bool:
    """Whether the wanted answer is not to answer."""
    return row.answers == ((ERASED,),)


def mentions(text: str, value: str) -> bool:
    """Whether a text holds a value anywhere (whole words, both normalised), denied or not."""
    return bool(wanted := normalise(value)) and f" {wanted} " in f" {normalise(text)} "


# --- aggregation ----------------------------------------------------------------------------


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean, exactly rounded, so that the order of rows never shows.

    Raises:
        ValueError: If there are no values.
    """
    if not values:
        raise ValueError("the mean of no values is undefined")
    return math.fsum(values) / len(values)


def collect(scored: Iterable[tuple[CaseKey, float]], scale: float = 100) -> dict[CaseKey, float]:
    """Probe scores (0-1) to percentages per case (times `scale`), as EasyEdit aggregates.

    The value of a category is the mean over its probes; the value of `all` is the mean over the
    categories that the case has. A case without probes is absent, not 0.
    """
    probes: dict[CaseKey, list[float]] = {}
    for key, value in scored:
        probes.setdefault(key, []).append(value)
    by_category = {key: scale * mean(values) for key, values in probes.items()}
    categories: dict[CaseKey, list[float]] = {}
    for key, value in by_category.items():
        categories.setdefault(key._replace(category=ALL), []).append(value)
    return by_category | {key: mean(values) for key, values in categories.items()}


def per_case(rows: Iterable[Row]) -> dict[CaseKey, float]:
    """The value of every case in percent: what intervals and paired comparisons are made of.

    Error rows are left out; `count_errors` says how many.

    Raises:
        ValueError: If the same probe occurs twice, which would count it double.
    """
    return collect(
        (key_of(row), score) for row in _unique(rows) if (score := score_row(row)) is not None
    )


def key_of(row: Row) -> CaseKey:
    """Whose value a row's score belongs to."""
    return CaseKey(
        row.method, row.dataset, row.protocol, row.metric, row.category, row.case, row.seed
    )


def _unique(rows: Iterable[Row]) -> Iterator[Row]:
    seen: set[tuple[CaseKey, int]] = set()
    for row in rows:
        identity = (key_of(row), row.probe)
        if identity in seen:
            raise ValueError(f"two rows for probe {row.probe!r} of {key_of(row)!r}")
        seen.add(identity)
        yield row


def count_errors(rows: Iterable[Row]) -> dict[ErrorKey, int]:
    """How many rows have an error, by method, data set, protocol and metric; zeros are absent."""
    return dict(
        Counter(
            ErrorKey(row.method, row.dataset, row.protocol, row.metric)
            for row in rows
            if row.error is not None
        )
    )


def aggregate_reference(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The percentages of an EasyEdit result file, by metric, through the same `collect` as ours.

    Raises:
        ValueError: If a record is not of EasyEdit's shape (`post.rewrite_acc`, ...).
    """
    scored: list[tuple[CaseKey, float]] = []
    for index, record in enumerate(records):
        if not isinstance(record.get("post"), Mapping):
            raise ValueError(f"record {index} has no object 'post': keys {list(record)!r}")
        scored += _reference_scores(str(index), record["post"])
    cases: dict[str, list[float]] = {}
    for key, value in collect(scored).items():
        if key.category == ALL:
            cases.setdefault(key.metric, []).append(value)
    return {metric: mean(cases[metric]) for metric in METRICS if metric in cases}


def _reference_scores(case: str, post: Mapping[str, Any]) -> Iterator[tuple[CaseKey, float]]:
    groups: list[tuple[Metric, str, Any]] = [
        ("edit_success", ALL, post.get("rewrite_acc", [])),
        ("paraphrase", ALL, post.get("rephrase_acc", [])),
    ]
    for metric in ("portability", "locality"):
        for name, values in post.get(metric, {}).items():
            if name.endswith("_acc"):  # beside them lie the tokens that were compared
                groups.append((metric, name.removesuffix("_acc"), values))
    for metric, category, values in groups:
        for value in values if isinstance(values, list) else [values]:
            if not isinstance(value, int | float):
                raise ValueError(f"record {case}: {metric} {category} holds {value!r}, no number")
            yield CaseKey("", "", "teacher_forced", metric, category, case, 0), float(value)
