"""Tables as data, and the Jinja templates in `pipeline/templates` that turn them into pages.

HTML is always autoescaped: what a model said is text, never markup. Reads templates only.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).parent / "templates"
# An underscore inside a word is no emphasis, and escaping it would make names hard to read.
_MARKDOWN = re.compile(r"([\\`*|\[\]#~]|(?<!\w)_|_(?!\w))")


class Cell(NamedTuple):
    """One cell: a text, smaller words behind it, and whether it is the best of its column."""

    text: str
    note: str = ""
    strong: bool = False


class Table(NamedTuple):
    """Columns, rows of texts or cells, and a line above them."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    caption: str = ""
    words: Sequence[int] = (0,)
    """Columns of words, set flush left; the others hold numbers."""


@cache
def _environment(html: bool) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=html,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["md"] = markdown_text
    environment.filters["cell"] = _cell
    return environment


def page(template: str, **values: Any) -> str:
    """Fill an HTML template; every value is escaped, the style sheet is put in."""
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    return _environment(True).get_template(template).render(style=style, **values)


def document(template: str, **values: Any) -> str:
    """Fill a Markdown template, in which single values go through the filter `md`."""
    text = _environment(False).get_template(template).render(**values)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def markdown_text(text: str) -> str:
    """A text as one line of Markdown that shows every character as it is."""
    line = " ".join(str(text).split())
    line = _MARKDOWN.sub(r"\\\1", line)
    return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def data_uri(path: Path) -> str:
    """A PNG as an address that lies in the page itself."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def shortened(text: str, most: int = 300) -> str:
    """The beginning of a text, and how much of it is left out."""
    if len(text) <= most:
        return text
    return f"{text[:most].rstrip()} [... {len(text) - most} more characters]"


def _cell(value: str | Cell) -> Cell:
    return value if isinstance(value, Cell) else Cell(str(value))
