"""Questions asked again behind a text: an edit has to hold in the middle of a page, too.

Who learns answers to questions on an empty page may know them there alone. So some of what is
taught about each fact is also learned behind a sentence that the base model made up, with the
same answer; and some of what must stay is held to what the base model says there, sentence and all.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from agents.batch import Query
from agents.queries import FEW
from eval.leakage import Guard, Report
from methods.base import Lesson
from pipeline.run import Run
from pipeline.withheld import gives_away
from ske.lm import ask

T = TypeVar("T")
Row = dict[str, Any]
"""A lesson and the question that it came from, as stage `teach` keeps them."""
BEHIND = "behind"
"""What a question behind a text is noted as, and its lesson's status."""
_END = re.compile(r"[.!?](?=\s|$)")


def behind(
    run: Run, rows: Sequence[Row], near: Sequence[Query], texts: Sequence[str], guard: Guard
) -> tuple[list[Row], list[Query], Report]:
    """What is taught and what must stay, behind texts, and what the guard found in it.

    Args:
        run: Tells how many (`teach.behind`).
        rows: Stage `teach`'s rows about the facts.
        near: The neighbours.
        texts: The base model's own.
        guard: Over the run's probes; near-copies of them are left out.
    """
    facts = len({row["lesson"]["fact"] for row in rows if row["lesson"]})
    each, seed = how_often(run.config.teach.behind, facts), run.config.seed
    before = sentences(texts, guard, embedded=run.config.data.path is None) if each else []
    taught = taught_behind(rows, before, each, seed)
    held = near_behind(near, before, each * 2 // 3, seed)
    prompts = [row["query"]["prompt"] for row in taught] + [query.prompt for query in held]
    kept, report = guard.filter(prompts)
    last = len(taught)
    return (
        [taught[i] for i in kept if i < last],
        [held[i - last] for i in kept if i >= last],
        report,
    )


def how_often(each: int, facts: int) -> int:
    """How many sentences a fact is asked behind: up to three times as many where facts are few.

    A student learns from all of these questions together that a sentence before one changes
    nothing. Chosen on validation people (docs/log.md).
    """
    return max(each, min(3 * each, each * FEW // max(1, facts)))


def sentences(texts: Iterable[str], guard: Guard, embedded: bool) -> list[str]:
    """What questions may be asked behind: whole sentences that give no probe away.

    Of a text its first line counts, up to its last full sentence; if it has none, it becomes one.
    `embedded`: the facts are the embedded world's (see `gives_away`).
    """
    found = dict.fromkeys(_whole(text) for text in texts)
    return [text for text in found if text and not gives_away(guard, text, embedded)]


def taught_behind(rows: Sequence[Row], before: Sequence[str], each: int, seed: int) -> list[Row]:
    """Rows of stage `teach` about facts, asked behind `each` sentences a fact, drawn by seed."""
    about: dict[str, list[Row]] = {}
    for row in rows:
        if row["lesson"] and row["kind"] in ("fact", "paraphrase"):
            about.setdefault(row["lesson"]["fact"], []).append(row)
    drawn = (_behind(row, text) for row, text in _drawn(about, before, each, f"behind-{seed}"))
    return list({row["query"]["prompt"]: row for row in drawn}.values())


def near_behind(found: Sequence[Query], before: Sequence[str], each: int, seed: int) -> list[Query]:
    """Neighbours, asked behind `each` sentences a fact, drawn by seed."""
    about: dict[str, list[Query]] = {}
    for query in found:
        about.setdefault(query.fact_id, []).append(query)
    drawn = (
        query.model_copy(update={"prompt": f"{text} {query.prompt}", "note": BEHIND})
        for query, text in _drawn(about, before, each, f"near-{seed}")
    )
    return list({query.prompt: query for query in drawn}.values())


def _drawn(
    about: Mapping[str, Sequence[T]], before: Sequence[str], each: int, name: str
) -> Iterator[tuple[T, str]]:
    """Of every fact, what stands behind which sentence; a sentence comes once a fact."""
    for fact, own in about.items():
        rng = random.Random(f"{name}-{fact}")
        for text in rng.sample(before, min(each, len(before))):
            yield rng.choice(own), text


def _behind(row: Row, text: str) -> Row:
    prompt = f"{text} {row['query']['prompt']}"
    lesson = Lesson(**row["lesson"]).model_copy(update={"chat": ask(prompt), "kind": "paraphrase"})
    asked = {"prompt": prompt, "kind": "paraphrase", "note": BEHIND}
    return {
        "kind": "paraphrase",
        "status": BEHIND,
        "lesson": lesson.model_dump(mode="json"),
        "query": {**row["query"], **asked},
    }


def _whole(text: str) -> str:
    line = text.strip().partition("\n")[0].strip()
    ends = [found.end() for found in _END.finditer(line)]
    return line[: ends[-1]] if ends else line and f"{line}."
