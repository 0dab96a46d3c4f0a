"""From a model's words to a decision: finds the JSON object in a reply and checks it. Pure."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import ValidationError

from agents.brain import Decision

MOST_PROBLEMS = 5
LONGEST_VALUE = 80
_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
"""Reasoning models think aloud first, now and then in JSON."""


class Unusable(ValueError):
    """A reply that is no decision; the message says why, for the model to read."""


def parsed(reply: str, schema: type[Decision]) -> Decision:
    """The decision in a reply; fences and words around its one JSON object are passed over.

    Raises:
        Unusable: There is no object, or more than one, or it is not of this schema.
    """
    found = objects(_THOUGHT.sub("", reply))
    if not found:
        cut = " that is complete" if "{" in reply else ""
        raise Unusable(f"there is no JSON object{cut} in it: it begins {_short(reply)}")
    if len(found) > 1:
        raise Unusable(f"there are {len(found)} JSON objects in it; exactly one is wanted")
    try:
        json.dumps(found[0], ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Unusable("there is half a surrogate pair in it, which is no character") from error
    try:
        return schema.model_validate(found[0])
    except ValidationError as error:
        raise Unusable(_problems(error)) from error


def objects(text: str) -> list[dict[str, Any]]:
    """Every JSON object that is not inside another one, in order; none if one is cut short."""
    decoder = json.JSONDecoder()
    found: list[dict[str, Any]] = []
    at = text.find("{")
    while at != -1:
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            # A brace between words is none; in an object cut short, its parts must not count.
            if _opens(text, at):
                return []
            end = at + 1
        else:
            found.append(value)
        at = text.find("{", end)
    return found


def _opens(text: str, at: int) -> bool:
    """Whether a brace is followed by a key, as only an object's is."""
    return re.match(r'\{\s*"(?:[^"\\]|\\.)*"\s*:', text[at : at + 300]) is not None


def _problems(error: ValidationError) -> str:
    problems = [
        f"{'.'.join(map(str, e['loc'])) or 'the object'}: {e['msg']} (found {_short(e['input'])})"
        for e in error.errors(include_url=False)
    ]
    more = len(problems) - MOST_PROBLEMS
    tail = [f"and {more} more"] if more > 0 else []
    return "; ".join([*problems[:MOST_PROBLEMS], *tail])


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    shown = text if len(text) <= LONGEST_VALUE else text[:LONGEST_VALUE] + "..."
    return repr(shown)
