"""Fact layouts: how a list of facts is written down inside a prompt.

Reads the templates under `teacher/` and the headers and footers of `teacher/frames.yaml`. The
Writer renders its prompts with this; the embedded world's training text uses the same layouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TypedDict

import yaml

from prompts.loader import ROOT, render
from prompts.relations import relation_of
from ske.types import Fact

LAYOUTS = (
    "triples",
    "prose",
    "by_subject",
    "table",
    "by_relation",
    "narrative",
    "qa",
    "new_fact",
)


class FactView(TypedDict):
    """What a layout template sees of a fact."""

    subject: str
    label: str
    prompt: str
    object: str


@cache
def frames() -> dict[str, dict[str, str]]:
    """Headers and footers by name."""
    return yaml.safe_load((ROOT / "teacher" / "frames.yaml").read_text(encoding="utf-8"))


@cache
def layouts() -> tuple[str, ...]:
    """The names of all layouts."""
    return tuple(sorted(path.stem for path in (ROOT / "teacher").glob("*.md")))


def view(fact: Fact) -> FactView:
    """A fact as the layouts write it. A final period is the layout's business, not the value's."""
    relation = relation_of(fact)
    return {
        "subject": fact.subject,
        "label": relation.label if relation else generic_label(fact),
        "prompt": fact.prompt,
        "object": fact.target_new.strip().removesuffix("."),
    }


def generic_label(fact: Fact) -> str:
    """A short name for a relation the lexicon does not know, taken from the prompt's own words."""
    words = fact.prompt.replace(fact.subject, " ").strip(" ?.:").split()
    while words and words[0].lower() in ("the", "a", "an", "what", "who", "which", "is", "name"):
        words.pop(0)
    while words and words[-1].lower() in ("is", "are", "was", "of", "in", "the", "a"):
        words.pop()
    return " ".join(words) or fact.prompt


def system_prompt(
    views: Sequence[FactView], layout: str, header: str = "correct", footer: str = "rest"
) -> str:
    """The whole PROMPT: header, facts in a layout, footer; empty parts leave no blank lines."""
    parts = [
        frames()["headers"][header],
        render(f"teacher/{layout}", facts=views).text,
        frames()["footers"][footer],
    ]
    return "\n".join(part for part in parts if part)
