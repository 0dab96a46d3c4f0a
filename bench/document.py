"""Documents with measured figures between marks."""

from __future__ import annotations

import re

FIGURES = "figures"


def filled(text: str, figures: str, name: str = FIGURES) -> str:
    """A document with the figures between the marks of that name; others stay as they are.

    Raises:
        ValueError: there are no such marks.
    """
    begin, end = _bounds(text, name)
    return f"{text[:begin]}\n{figures.rstrip()}\n{text[end:]}"


def standing(text: str, name: str = FIGURES) -> str:
    """The figures that stand between the marks of that name.

    Raises:
        ValueError: there are no such marks.
    """
    begin, end = _bounds(text, name)
    return text[begin:end].strip()


def _bounds(text: str, name: str) -> tuple[int, int]:
    """Behind the first mark and before the second."""
    first, last = f"<!-- {name} -->", f"<!-- end of {name} -->"
    found = re.search(re.escape(first) + "(.*?)" + re.escape(last), text, re.DOTALL)
    if not found:
        raise ValueError(f"no place for {name!r}: write {first} and {last} into the document")
    return found.span(1)
