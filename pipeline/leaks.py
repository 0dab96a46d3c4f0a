"""What each method trained, designed or showed, against every probe: recorded, checked, counted.

A `Ledger` records what an edit is made of: all that the workshop hands out, and all that the method
says it made itself (`Workshop.used`). Its texts lie beside the edit as `used.jsonl`; what the guard
finds in them goes into the stage's `leakage.json` and from there into the run's `leakage.csv`. The
facts' own prompts are known to everybody and no leak.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from eval.leakage import Guard, Report
from eval.tables import TableRow
from ske.io import read_json, read_rows, write_json, write_rows
from ske.types import UserError

if TYPE_CHECKING:
    from methods.base import Lesson, Practice, Workshop  # imports torch; reading needs none

LEAKAGE_COLUMNS = ("method", "dataset", "kind", "checked", "dropped", "copies", "templates", "seed")
USED, FOUND = "used.jsonl", "leakage.json"
MOST_EXAMPLES = 10
Item = TypeVar("Item")


class Leaks(NamedTuple):
    """What the guard found in one kind of text."""

    checked: int = 0
    dropped: int = 0
    """Near-copies of probes that were left out before anything was done with them."""
    copies: int = 0
    """Near-copies that were used."""
    templates: int = 0
    """The wording of a probe, about another subject."""
    examples: tuple[tuple[str, str], ...] = ()
    """(text, probe) of near-copies that were used."""

    def plus(self, other: Leaks) -> Leaks:
        """Counts added up."""
        return Leaks(
            self.checked + other.checked,
            self.dropped + other.dropped,
            self.copies + other.copies,
            self.templates + other.templates,
            (*self.examples, *other.examples)[:MOST_EXAMPLES],
        )


class Ledger:
    """The texts that an edit is made of, by kind."""

    def __init__(self) -> None:
        """Empty."""
        self.texts: dict[str, dict[str, None]] = {}

    def used(self, kind: str, texts: Iterable[str]) -> None:
        """Note texts; one that is used often is noted once."""
        known = self.texts.setdefault(kind, {})
        known.update((text, None) for text in texts if text.strip())

    def over(self, workshop: Workshop) -> Workshop:
        """The workshop, with everything it hands out noted."""
        return replace(
            workshop,
            used=self.used,
            lessons=self._noting("lessons", workshop.lessons, _of_lessons),
            practice=self._noting("practice", workshop.practice, _of_practice),
            texts=self._noting("general text", workshop.texts, iter),
        )

    def _noting(
        self,
        kind: str,
        source: Callable[[], Sequence[Item]] | None,
        read: Callable[[Sequence[Item]], Iterable[str]],
    ) -> Callable[[], Sequence[Item]] | None:
        if source is None:
            return None

        def handed() -> Sequence[Item]:
            items = source()
            self.used(kind, read(items))
            return items

        return handed

    def tokens(self, tokenizer: Callable[[list[str]], Any]) -> int:
        """How many tokens all texts have together, each counted once."""
        texts = [text for own in self.texts.values() for text in own]
        return sum(map(len, tokenizer(texts)["input_ids"])) if texts else 0

    def save(self, folder: Path) -> None:
        """Write `used.jsonl`."""
        write_rows(
            folder / USED,
            ({"kind": kind, "text": text} for kind, own in self.texts.items() for text in own),
        )


def _of_lessons(lessons: Sequence[Lesson]) -> Iterator[str]:
    return (text for lesson in lessons for text in lesson.texts)


def _of_practice(practice: Sequence[Practice]) -> Iterator[str]:
    for example in practice:
        yield example.fact.prompt
        yield from example.paraphrases
        yield from (prompt for prompt, _ in example.unrelated)


def checked(guard: Guard, folders: Iterable[Path]) -> dict[str, Leaks]:
    """What the guard finds in the ledgers of some edits, by kind."""
    texts: dict[str, dict[str, None]] = {}
    for folder in folders:
        for row in read_rows(folder / USED):
            texts.setdefault(row["kind"], {})[row["text"]] = None
    return {kind: leaks_in(guard.filter(list(own)).report) for kind, own in texts.items()}


def leaks_in(report: Report) -> Leaks:
    """The guard's report on texts that were used all the same."""
    examples = tuple((example.query, example.probe) for example in report.copy_examples)
    return Leaks(report.checked, 0, report.copies, report.templates, examples)


def refuse(strict: bool, who: str, leaks: Mapping[str, Leaks]) -> None:
    """Fail the run on a leak, if that is wanted.

    Raises:
        UserError: with the first near-copy of a probe that was used.
    """
    for kind, own in leaks.items():
        if strict and own.copies:
            text, probe = own.examples[0]
            raise UserError(
                f"leakage.strict: {who} used {own.copies} near-copies of probes "
                f"({kind}), e.g. {text!r}, which is the probe {probe!r}; leave them out of what it "
                "is made of, or set leakage.strict=false to count them in leakage.csv instead"
            )


def write_leaks(folder: Path, leaks: Mapping[str, Mapping[str, Leaks]]) -> None:
    """Write a stage's `leakage.json`: by method and kind."""
    tree = {m: {kind: one._asdict() for kind, one in own.items()} for m, own in leaks.items()}
    write_json(folder / FOUND, tree)


def read_leaks(folder: Path) -> dict[str, dict[str, Leaks]]:
    """What `write_leaks` wrote; empty if nothing was checked yet."""
    path = folder / FOUND
    if not path.exists():
        return {}
    tree = read_json(path)
    return {
        method: {
            kind: Leaks(**{**one, "examples": tuple(map(tuple, one["examples"]))})
            for kind, one in own.items()
        }
        for method, own in tree.items()
    }


def teaching_leaks(folder: Path) -> dict[str, Leaks]:
    """What stage `teach` found: near-copies among its own queries and texts were dropped."""
    path = folder / FOUND
    tree = read_json(path) if path.exists() else {}
    leaks: dict[str, Leaks] = {}
    for kind, report in tree.items():
        copies, templates = report.get("copies", 0), report.get("templates", 0)
        count = report.get("checked", 0)
        if kind in DROPPED:
            leaks[DROPPED[kind]] = Leaks(count, copies, 0, templates)
        else:
            examples = tuple(map(tuple, report.get("copy_examples", ())))
            leaks[kind] = Leaks(count, 0, copies, templates, examples)
    return leaks


def taught_leaks(stages: Path, method: str) -> list[dict[str, Leaks]]:
    """What the stages `teach` and `train` of a run or a round found."""
    return [teaching_leaks(stages / "teach"), read_leaks(stages / "train").get(method, {})]


def leaks_of(stages: Path, taught: Sequence[str], rounds: bool) -> dict[str, dict[str, Leaks]]:
    """All that is known of a run's methods; a round of several has its teaching with it already."""
    found = read_leaks(stages / "edit")
    for method in taught:
        found[method] = (
            read_leaks(stages / "train").get(method, {})
            if rounds
            else together(taught_leaks(stages, method))
        )
    return found


DROPPED = {
    "queries": "teacher's queries",
    "free_text": "free text",
    "behind": "questions behind a text",
    "told": "teacher's own texts",
}
"""The texts among which stage `teach` leaves near-copies out."""


def together(parts: Iterable[Mapping[str, Leaks]]) -> dict[str, Leaks]:
    """The same kinds added up."""
    whole: dict[str, Leaks] = {}
    for part in parts:
        for kind, own in part.items():
            whole[kind] = whole.get(kind, Leaks()).plus(own)
    return whole


def leak_rows(leaks: Mapping[str, Mapping[str, Leaks]], dataset: str, seed: int) -> list[TableRow]:
    """The rows of `leakage.csv`: a line over all kinds for every method, then one a kind."""
    rows: list[TableRow] = []
    for method, own in leaks.items():
        whole = functools.reduce(Leaks.plus, own.values(), Leaks())
        for kind, one in [("all", whole), *own.items()]:
            counts = _counts(one)
            rows.append({"method": method, "dataset": dataset, "kind": kind, "seed": seed} | counts)
    return rows


def _counts(one: Leaks) -> dict[str, int]:
    """The counts alone."""
    return {name: value for name, value in one._asdict().items() if name != "examples"}
