"""Loads and renders message templates: one Jinja file a message, strict, recorded by hash.

`render("agents/writer", ...)` reads `prompts/agents/writer.md`. A variable that a template names
and the caller does not give is an error (StrictUndefined), never an empty string.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import (
    Environment,
    FileSystemLoader,
    StrictUndefined,
    TemplateNotFound,
    TemplateSyntaxError,
    UndefinedError,
)
from pydantic import BaseModel

from ske.types import UserError

ROOT = Path(__file__).parent


class Rendered(NamedTuple):
    """A message and which template, in which version, it came from."""

    text: str
    template: str
    hash: str


@cache
def _environment() -> Environment:
    # autoescape is for HTML; prompts are plain text for a model.
    environment = Environment(
        loader=FileSystemLoader(ROOT), undefined=StrictUndefined, autoescape=False, trim_blocks=True
    )
    environment.filters["groupby_first"] = groupby_first
    environment.filters["lower_first"] = lower_first
    environment.filters["data"] = quoted_data
    return environment


@cache
def schema_text(schema: type[BaseModel]) -> str:
    """A model's JSON schema, as templates show it to whom they ask for one."""
    return json.dumps(schema.model_json_schema(), ensure_ascii=False)


def groupby_first(items: Iterable[dict[str, Any]], key: str) -> list[tuple[str, list[Any]]]:
    """Group by a key in order of first appearance (Jinja's own groupby sorts)."""
    groups: dict[str, list[Any]] = {}
    for item in items:
        groups.setdefault(item[key], []).append(item)
    return list(groups.items())


def lower_first(text: str) -> str:
    """Write a leading article small: "The place" -> "the place"; a name in front stays as it is."""
    return text[0].lower() + text[1:] if text.split(" ", 1)[0] in ("The", "A", "An") else text


def quoted_data(value: Any) -> str:
    """A value as JSON between <data> and </data>: text that a model must not take for orders.

    Nothing inside can close it. Rows of a list get a line each.
    """
    if isinstance(value, list | tuple) and value:
        text = "[\n" + ",\n".join(_json(item) for item in value) + "\n]"
    else:
        text = _json(value)
    return f"<data>\n{text}\n</data>"


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=_not_given)
    # Both stand in JSON strings only, where the escape means the same.
    return text.replace("<", "\\u003c").replace(">", "\\u003e")


def _not_given(value: Any) -> str:
    """Raises for a variable that was not given, as it would anywhere else in a template."""
    str(value)
    raise TypeError(f"{type(value).__name__} is no data for a prompt: {value!r}")


def names() -> list[str]:
    """Every template, as `render` takes it."""
    return sorted(str(path.relative_to(ROOT).with_suffix("")) for path in ROOT.rglob("*.md"))


def render(template: str, **variables: Any) -> Rendered:
    """Fill a template.

    Raises:
        UserError: no such template, one that is not Jinja, or a variable that was not given.
    """
    try:
        text = _environment().get_template(f"{template}.md").render(**variables)
    except TemplateNotFound as error:
        raise UserError(
            f"no prompt template {template!r}; there are: {', '.join(names())}"
        ) from error
    except TemplateSyntaxError as error:
        raise UserError(f"prompts/{error.name}, line {error.lineno}: {error.message}") from error
    except UndefinedError as error:
        raise UserError(f"prompts/{template}.md: {error}") from error
    return Rendered(text.strip(), template, template_hash(template))


@cache
def template_hash(template: str) -> str:
    """The hash of a template's source: traces say which wording was in force."""
    return hashlib.sha256((ROOT / f"{template}.md").read_bytes()).hexdigest()[:12]
