"""Documents with measured figures between marks."""

from __future__ import annotations

import re

FIGURES = "figures"


def filled(text: str, figures: str, name: str = FIGURES) -> str:
    """A document with the figures between the marks of that name; others stay as they are.

    Raises:
        ValueError: there are no such marks.
    """
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    marks = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not marks.search(text):
        raise ValueError(f"no place for {name!r}: write {begin} and {end} into the document")
    return marks.sub(lambda _: f"{begin}\n{figures.rstrip()}\n{end}", text)
