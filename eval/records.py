"""What a data set's records become (`Probe`, `Case`), and the reading that all forms share.

`Source` reads single values of one file's records; it notes mistakes, and everything that is not
used, so that nothing disappears unseen. Reads no files itself and writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from ske.facts import Problems, quoted, text_problem
from ske.types import Fact, Frozen

GROUPS = (
    "Reasoning",
    "Subject_Aliasing",
    "Logical_Generalization",
    "Relation_Specificity",
    "Forgetfulness",
)
"""Group names that data sets also write in other cases; every other name is kept as it is."""

FACT_KEYS = {"prompt": "prompt", "subject": "subject", "target_new": "target_new"}

Answers = tuple[tuple[str, ...], ...]
Kind = Literal["probe", "record", "text", "key"]


class Probe(Frozen):
    """One question about an edit."""

    prompt: str
    answers: Answers
    """Outer: acceptable answers; inner: aliases of one answer. Any alias of any answer counts.

    Empty if a locality probe has none: agreement with the unedited model needs no answer.
    """


class Case(Frozen):
    """A fact and its probes, by the data set's own group names."""

    fact: Fact
    paraphrase: tuple[Probe, ...] = ()
    portability: dict[str, tuple[Probe, ...]] = Field(default_factory=dict)
    locality: dict[str, tuple[Probe, ...]] = Field(default_factory=dict)
    hard: dict[str, tuple[Probe, ...]] = Field(default_factory=dict)
    """Counted apart: what the embedded world writes, or what `eval.hard` makes of the fact."""
    opinions: dict[str, tuple[Probe, ...]] = Field(default_factory=dict)
    """ConvSent: what people say for and against the topic, by side (`eval.sentiment`)."""
    data: str
    """The data set's name."""


class Skipped(Frozen):
    """Something in a file that is not used, and why."""

    file: str
    where: str
    reason: str
    kind: Kind
    count: int = 1
    """How many things of this kind; more than 1 only in a row that sums up a whole file."""


class Loaded(NamedTuple):
    """The cases of one file. Records count from 0, as the numbers in ids do."""

    cases: list[Case]
    skipped: list[Skipped]
    name: str


def answers(value: Any) -> Answers:
    """Acceptable answers, each with its aliases, from any of the shapes that data sets use.

    A text or number is one answer; each text of a list is an answer of its own; a list in a list
    is one answer with its aliases. Empty texts, empty lists and null are left out, so the result
    may be empty.

    Raises:
        TypeError: there is something else than texts, numbers and lists in it.
    """
    if isinstance(value, (list, tuple)):
        each = [tuple(_texts(item)) for item in value]
    else:
        each = [tuple(_texts(value))]
    return tuple(aliases for aliases in each if aliases)


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        if value.strip():
            yield value.strip()
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield str(value)
    elif value is not None:
        raise TypeError(f"{quoted(value)} is not a text, a number or a list of them")


@dataclass
class Source:
    """One file while it is read: its name, its mistakes, and what in it is not used."""

    path: Path
    name: str
    problems: Problems = field(default_factory=Problems)
    skipped: list[Skipped] = field(default_factory=list)
    _sums: Counter[tuple[Kind, str, str]] = field(default_factory=Counter)
    _ids: dict[str, str] = field(default_factory=dict)

    def wrong(self, where: str, key: str, problem: str) -> None:
        """Note a mistake at a key of a record."""
        self.problems.add(f'{self.path.name} {where}, key "{key}": {problem}')

    def skip(self, kind: Kind, where: str, reason: str) -> None:
        """Note one probe or record that is not used."""
        self.skipped.append(Skipped(file=self.path.name, where=where, reason=reason, kind=kind))

    def skip_all(self, kind: Kind, where: str, reason: str, count: int) -> None:
        """Add to the one row that sums up things that are never used, wherever they stand."""
        self._sums[kind, where, reason] += count

    def finish(self, cases: list[Case]) -> Loaded:
        """What was read.

        Raises:
            UserError: there were mistakes.
        """
        self.problems.raise_any()
        sums = [
            Skipped(file=self.path.name, where=where, reason=reason, kind=kind, count=count)
            for (kind, where, reason), count in self._sums.items()
            if count
        ]
        return Loaded(cases, [*self.skipped, *sums], self.name)

    def unread_keys(self, record: dict[str, Any], known: Iterable[str]) -> None:
        """Note keys of a record that no reader looks at: a misspelt key must not pass unseen."""
        for key in sorted(set(record) - set(known)):
            self.skip_all("key", f"key {quoted(key)}", "this key is not read", 1)

    def object(self, value: Any, where: str, key: str | None = None) -> dict[str, Any] | None:
        """The value if it is a JSON object; else a mistake is noted."""
        if isinstance(value, dict):
            return value
        place = f'{where}, key "{key}"' if key else where
        self.problems.add(f"{self.path.name} {place}: {quoted(value)} is not an object")
        return None

    def items(self, record: dict[str, Any], key: str, where: str) -> list[Any]:
        """The list at a key; nothing if the key is missing or null."""
        value = record.get(key)
        if value is None:
            return []
        if isinstance(value, list):
            return value
        self.wrong(where, key, f"{quoted(value)} is not a list; write it in [ ]")
        return []

    def listed(self, record: dict[str, Any], key: str, where: str) -> list[Any]:
        """The list at a key that every record has: missing or null is a mistake, empty is not."""
        if record.get(key) is None:
            keys = ", ".join(map(str, record)) or "none"
            missing = "null" if key in record else f"missing (keys there: {keys})"
            self.wrong(where, key, f"{missing}; write a list in [ ]")
        return self.items(record, key, where)

    def filled(self, record: dict[str, Any], key: str, where: str) -> list[Any]:
        """The list at a key that every record has; it is noted if it is empty."""
        found = self.listed(record, key, where)
        if record.get(key) == []:
            self.skip("key", f"{where}, {key}", "the list is empty: no probe is made of it")
        return found

    def text(self, record: dict[str, Any], key: str, where: str) -> str | None:
        """The text at a key, "" if it is empty; None if it is missing or wrong, which is noted."""
        if key not in record:
            keys = ", ".join(map(str, record)) or "none"
            self.wrong(where, key, f"missing (keys there: {keys}); add it or mend its name")
            return None
        value = record[key]
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return str(value)
        text = value.strip() if isinstance(value, str) else None
        problem = text_problem(value) if text != "" else None
        if problem is not None:
            self.wrong(where, key, problem)
            return None
        return text

    def answers(self, record: dict[str, Any], key: str, where: str) -> Answers | None:
        """The answers at a key; None if the key is missing or wrong, which is noted."""
        value = record.get(key)
        if isinstance(value, (str, int, float)) or key not in record:
            text = self.text(record, key, where)
            return None if text is None else answers(text)
        try:
            found = answers(value)
            "".join(alias for each in found for alias in each).encode()
        except TypeError as error:
            self.wrong(where, key, f"{error}; write a text or a list of texts")
            return None
        except UnicodeEncodeError:
            self.wrong(where, key, f"{quoted(value)} holds half of a character pair")
            return None
        return found

    def names(self, record: dict[str, Any], key: str, where: str) -> tuple[str, ...] | None:
        """The texts of the list at a key that every record has; None if one is wrong."""
        found = self.answers({key: self.listed(record, key, where)}, key, where)
        return None if found is None else tuple(text for each in found for text in each)

    def fact(
        self, record: dict[str, Any], where: str, number: int, keys: dict[str, str] = FACT_KEYS
    ) -> Fact | None:
        """The fact of a record; `keys` says under which key the record has each field.

        None if a text is wrong (a mistake is noted) or empty (the record is skipped).
        """
        texts = {field: self.text(record, key, where) for field, key in keys.items()}
        old = self.answers(record, "ground_truth", where) if record.get("ground_truth") else ()
        relation = self.text(record, "relation", where) if record.get("relation") else None
        given = "id" if record.get("id") is not None else "case_id"
        named = self.text(record, given, where) if record.get(given) is not None else ""
        if None in texts.values() or old is None or named is None:
            return None
        empty = [key for field, key in keys.items() if not texts[field]]
        if empty:
            prompt = f", its prompt is {quoted(texts['prompt'])}" if texts["prompt"] else ""
            self.skip("record", where, f'the record is not used: key "{empty[0]}" is empty{prompt}')
            return None
        if isinstance(record.get(given), int) or not named:
            named = f"{self.name}-{int(named or number):04d}"
        other = self._ids.setdefault(named, where)
        if other != where:
            self.wrong(where, given, f"{quoted(named)} is also the id of {other}; change one")
        first = old[0][0] if old else None
        return Fact.model_validate(
            {**texts, "id": named, "ground_truth": first, "relation": relation}
        )

    def probe(self, prompt: str | None, found: Answers | None, where: str) -> Probe | None:
        """The probe, or None: a None was noted already, an empty prompt or answer is skipped."""
        if prompt is None or found is None:
            return None
        if not prompt or not found:
            missing = "prompt" if not prompt else "list of answers"
            self.skip("probe", where, f"the probe is not used: its {missing} is empty")
            return None
        return Probe(prompt=prompt, answers=found)

    def pair(
        self, record: dict[str, Any], prompt: str, answer: str, where: str
    ) -> tuple[Probe, ...]:
        """The probe whose prompt and answers stand at two keys, or nothing if it is not usable."""
        found = self.answers(record, answer, where)
        probe = self.probe(self.text(record, prompt, where), found, f"{where}, {prompt}")
        return (probe,) if probe else ()

    def probes(
        self, items: Sequence[Any], where: str, found: Answers | None = None
    ) -> tuple[Probe, ...]:
        """Probes from {prompt, ground_truth} objects or, if `found` answers them all, texts."""
        kept = []
        for number, item in enumerate(items):
            place = f"{where} probe {number}"
            if isinstance(item, str) and found is not None:
                probe = self.probe(self.text({"prompt": item}, "prompt", place), found, place)
            elif (record := self.object(item, place)) is not None:
                self.unread_keys(record, ("prompt", "ground_truth"))
                prompt = self.text(record, "prompt", place)
                probe = self.probe(prompt, self.answers(record, "ground_truth", place), place)
            else:
                continue
            if probe is not None:
                kept.append(probe)
        return tuple(kept)

    def groups(self, record: dict[str, Any], key: str, where: str) -> dict[str, tuple[Probe, ...]]:
        """The named groups of probes at a key; a group without a usable probe is left out."""
        if record.get(key) is None:
            return {}
        kept: dict[str, tuple[Probe, ...]] = {}
        for name in self.object(record[key], where, key) or {}:
            place = f'{where}, {key} "{name}"'
            found = self.probes(self.items(record[key], name, f"{where}, {key}"), place)
            name = next((group for group in GROUPS if group.lower() == name.lower()), name)
            if found:
                kept[name] = kept.get(name, ()) + found
        return kept
