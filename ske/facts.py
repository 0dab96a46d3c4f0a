"""Reads a user's corrections: a facts file, `.jsonl` (one object a line) or `.json` (a list).

Every mistake in the file is found before anything is loaded, and all are listed in one message.
Blanks around a text are removed. Writes nothing.
"""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ske.types import Fact, UserError

NEEDED = ("prompt", "subject", "target_new")
OPTIONAL = ("id", "ground_truth", "relation")
EXAMPLE = '{"prompt": "The capital of Ruria is", "subject": "Ruria", "target_new": "Vell"}'
KEYS_AND_BRACES = re.compile(r'(?P<key>"(?:[^"\\]|\\.)*")\s*:|"(?:[^"\\]|\\.)*"|[{}]')
"""What tells which keys an object has; texts are passed over as a whole."""
MOST_LISTED = 20
MOST_QUOTED = 80


@dataclass
class Problems:
    """Mistakes found so far, so that a user reads them together and not one a run."""

    found: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """Note one mistake: where, which value, what to do."""
        self.found.append(text)

    def raise_any(self) -> None:
        """End here if there were mistakes.

        Raises:
            UserError: the first 20 mistakes, one a line, and the number of the others.
        """
        if self.found:
            raise UserError("\n".join(shortened(self.found)))


def shortened(lines: Sequence[str]) -> list[str]:
    """The first 20 lines, and the number of the others."""
    more = len(lines) - MOST_LISTED
    return [*lines[:MOST_LISTED], *([f"and {more} more"] if more > 0 else [])]


class Conflict(NamedTuple):
    """Two facts that complete one prompt differently."""

    first: Fact
    later: Fact


def conflicts(facts: Iterable[Fact]) -> list[Conflict]:
    """Facts whose prompt an earlier fact completes with another target, with that earlier fact.

    Leaving out every `later` makes the facts consistent: of each prompt the first target stays.
    """
    first: dict[str, Fact] = {}
    found = []
    for fact in facts:
        earlier = first.setdefault(same_text(fact.prompt), fact)
        if same_text(earlier.target_new) != same_text(fact.target_new):
            found.append(Conflict(earlier, fact))
    return found


def same_text(text: str) -> str:
    """The text with single blanks: two texts that differ only in blanks are one."""
    return " ".join(text.split())


def quoted(value: Any) -> str:
    """The value as it stands in a message, cut if it is long."""
    text = repr(value)
    return text if len(text) <= MOST_QUOTED else text[: MOST_QUOTED - 4] + "..." + text[-1]


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte-order mark.

    Raises:
        UserError: the file is missing, a folder, empty, unreadable, or not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; check the path") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; name a file in it") from None
    except UnicodeDecodeError as error:
        place = f"byte {error.start} is {error.object[error.start]:#04x}"
        raise UserError(f"{path} is not UTF-8 ({place}); save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    if not text.strip():
        raise UserError(f"{path} is empty; it needs at least one fact, such as {EXAMPLE}")
    return text


def parse_json(text: str, place: str) -> Any:
    """The value that a JSON text holds; `place` opens the message if it is broken.

    Raises:
        UserError: the text is not JSON, or an object has a key twice, of which JSON would keep the
            last; line and column are named where they are known.
    """
    try:
        return json.loads(text, object_pairs_hook=_with_each_key_once)
    except _RepeatedKeyError as error:
        number, key = _repeated_key(text) or (1, str(error))
        line = f" line {number}" if "\n" in text else ""
        raise UserError(
            f"{place}{line}, key {quoted(key)}: stands twice in one object; keep one of the two"
        ) from None
    except json.JSONDecodeError as error:
        # A one-line text is a line of a .jsonl file, whose number is already in `place`.
        line = f" line {error.lineno}" if "\n" in text else ""
        near = quoted(text[max(0, error.pos - 20) : error.pos + 20])
        where = f"{place}{line}, column {error.colno}: not JSON"
        raise UserError(f"{where} ({error.msg}) near {near}; mend the text there") from None
    except RecursionError:
        raise UserError(
            f"{place}: brackets stand in brackets too many levels deep to be read; expected a list "
            f"of objects, such as [{EXAMPLE}, ...]"
        ) from None
    except ValueError as error:
        raise UserError(f"{place}: not readable JSON ({error})") from None


class _RepeatedKeyError(Exception):
    """An object of a JSON text has a key twice."""


def _with_each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKeyError(max(keys, key=keys.count))
    return found


def _repeated_key(text: str) -> tuple[int, str] | None:
    """Line and name of the first key of a valid JSON text that its object has already."""
    open_objects: list[set[str]] = []
    for token in KEYS_AND_BRACES.finditer(text):
        if token[0] == "{":
            open_objects.append(set())
        elif token[0] == "}":
            open_objects.pop()
        elif token["key"]:
            key = json.loads(token["key"])
            if key in open_objects[-1]:
                return text.count("\n", 0, token.start()) + 1, key
            open_objects[-1].add(key)
    return None


def text_problem(value: Any) -> str | None:
    """What keeps a value from being a usable text, or None."""
    if not isinstance(value, str):
        return f"{quoted(value)} is not a text; write it in double quotes"
    if not value.strip():
        return f"{quoted(value)} is empty; write a text"
    try:
        value.encode()
    except UnicodeEncodeError:
        return f"{quoted(value)} holds half of a character pair; write the whole character"
    return None


def read_facts(path: Path) -> list[Fact]:
    r"""Read a facts file; ids default to `<file name>-0001` and on, by position in the file.

    Raises:
        UserError: the file cannot be read, or facts in it are wrong; up to 20 are listed.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".jsonl", ".json") and not path.is_dir():
        raise UserError(f"{path} is neither .jsonl (one fact a line) nor .json (a list of facts)")
    text = read_text(path)
    problems = Problems()
    rows = _lines(path, text, problems) if suffix == ".jsonl" else _records(path, text)
    placed: list[tuple[str, Fact]] = []
    for number, (place, row) in enumerate(rows, start=1):
        fact = _fact(row, place, f"{path.stem}-{number:04d}", problems)
        if fact is not None:
            placed.append((place, fact))
    _find_repeats(placed, path.name, problems)
    problems.raise_any()
    return [fact for _, fact in placed]


def _lines(path: Path, text: str, problems: Problems) -> list[tuple[str, Any]]:
    """(place, value) of each line that is not blank; None stands for a line already reported."""
    if text.lstrip().startswith("["):
        raise UserError(
            f"{path.name} line 1: this is a JSON list, but a .jsonl file holds one object a line; "
            f"rename it to {path.stem}.json"
        )
    rows: list[tuple[str, Any]] = []
    # Not splitlines(): JSON texts may hold characters that it takes for line ends.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path.name} line {number}"
        try:
            value = parse_json(line.rstrip("\r"), place)
        except UserError as error:
            problems.add(str(error))
            rows.append((place, None))
            continue
        if not isinstance(value, dict):
            problems.add(f"{place}: {quoted(value)} is not an object; write {EXAMPLE}")
        rows.append((place, value if isinstance(value, dict) else None))
    return rows


def _records(path: Path, text: str) -> list[tuple[str, Any]]:
    """(place, value) of each element of a `.json` list; records count from 1, as ids do."""
    value = parse_json(text, path.name)
    if not isinstance(value, list) or not value:
        raise UserError(
            f"{path.name}: {quoted(value)} is not a list of facts; write [{EXAMPLE}, ...]"
        )
    for number, row in enumerate(value, start=1):
        if not isinstance(row, dict):
            raise UserError(
                f"{path.name} record {number}: {quoted(row)} is not an object; write {EXAMPLE}"
            )
    return [(f"{path.name} record {number}", row) for number, row in enumerate(value, start=1)]


def _fact(row: dict[str, Any] | None, place: str, number: str, problems: Problems) -> Fact | None:
    """The fact of one row; None if the row has a mistake, which is noted."""
    if row is None:
        return None
    found = [*_key_problems(row, place), *_value_problems(row, place)]
    for text in found:
        problems.add(text)
    if found:
        return None
    values = {key: value.strip() for key, value in row.items() if value is not None}
    if values["subject"] not in values["prompt"]:
        problems.add(f'{place}, key "subject": {_elsewhere(values["subject"], values["prompt"])}')
        return None
    return Fact(**({"id": number} | values))


def _elsewhere(subject: str, prompt: str) -> str:
    """Why a subject is not found in its prompt, and what to do."""
    said = f"{quoted(subject)} does not occur in the prompt {quoted(prompt)}"
    if unicodedata.normalize("NFC", subject) in unicodedata.normalize("NFC", prompt):
        return (
            f"{said}: it looks the same there, but is made of other Unicode characters (a letter "
            "and its accent as one character, NFC, or as two, NFD); write both in one form, best "
            "in NFC"
        )
    return f"{said}; write the subject as it stands in the prompt"


def _key_problems(row: dict[str, Any], place: str) -> list[str]:
    known = [*NEEDED, *OPTIONAL]
    found = [
        f'{place}, key "{key}": missing; a fact needs {", ".join(NEEDED)}'
        for key in NEEDED
        if key not in row
    ]
    for key in row:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1)
            advice = f'did you mean "{nearest[0]}"?' if nearest else f"known: {', '.join(known)}"
            found.append(f"{place}, key {quoted(key)}: unknown key; {advice}")
    return found


def _value_problems(row: dict[str, Any], place: str) -> list[str]:
    checked = [key for key in NEEDED if key in row]
    checked += [key for key in OPTIONAL if row.get(key) is not None]
    return [
        f'{place}, key "{key}": {problem}'
        for key in checked
        if (problem := text_problem(row[key])) is not None
    ]


def _find_repeats(placed: Sequence[tuple[str, Fact]], file: str, problems: Problems) -> None:
    """Note ids that are used twice, and prompts that stand twice, whatever their targets."""
    by_id: dict[str, str] = {}
    by_prompt: dict[str, tuple[str, Fact]] = {}
    for place, fact in placed:
        other = by_id.setdefault(fact.id, place)
        if other != place:
            other = other.removeprefix(f"{file} ")
            problems.add(f'{place}, key "id": {quoted(fact.id)} is also the id of {other}')
        other, first = by_prompt.setdefault(same_text(fact.prompt), (place, fact))
        if other == place:
            continue
        other = other.removeprefix(f"{file} ")
        said = f'{place}, key "prompt": {quoted(fact.prompt)} stands also on {other}, '
        if same_text(first.target_new) == same_text(fact.target_new):
            problems.add(f"{said}with the same target; delete one of the two")
        else:
            targets = f"{quoted(first.target_new)} there, {quoted(fact.target_new)} here"
            problems.add(f"{said}with another target ({targets}); keep one of the two")
