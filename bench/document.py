"""Documents with measured figures between two marks."""

from __future__ import annotations

import re

BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"


def filled(text: str, figures: str) -> str:
    """A document with the figures between its marks."""
    marks = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    return marks.sub(lambda _: f"{BEGIN}\n{figures}{END}", text)
