"""PROMPT: all facts of the batch in one system message; nobody tells it which one is asked about.

The wording is EasyEdit's PROMPT.md form (`new_fact` under the `acknowledge` header) by default; the
weights stay as they are, and every question pays for the whole prompt.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from methods.base import Workshop, options_of
from methods.context import ContextLM, refuse_too_long, under
from prompts.layouts import system_prompt, view
from ske.io import write_json
from ske.lm import LM, Chat
from ske.types import Fact, Frozen

NAME = "prompt"
FEWER = (
    "edit fewer facts at once (edits.limit), or take prompt_packed or retrieval instead of prompt"
)


class PromptOptions(Frozen):
    """How the facts are written down."""

    layout: str = "new_fact"
    header: str = "acknowledge"
    footer: str = "none"


class PromptEdit:
    """A system message."""

    def __init__(self, system: str) -> None:
        """The whole message."""
        self.system = system

    @contextmanager
    def applied(self, lm: LM) -> Iterator[LM]:
        """The same model, prompted; nested prompts stand one after the other."""

        def rewrite(inner: LM, chats: Sequence[Chat]) -> list[Chat]:
            return [under(self.system, chat) for chat in chats]

        yield ContextLM(lm, rewrite, NAME, FEWER)

    def save(self, folder: Path) -> None:
        """Write `edit.json`."""
        write_json(folder / "edit.json", {"form": "prompt", "system": self.system})

    @staticmethod
    def load(folder: Path) -> PromptEdit:
        """Read what `save` wrote."""
        return PromptEdit(json.loads((folder / "edit.json").read_text(encoding="utf-8"))["system"])


class Prompt:
    """The PROMPT editor."""

    def __init__(self, options: dict[str, Any], workshop: Workshop) -> None:
        """Raises UserError on unknown options."""
        self.options: PromptOptions = options_of(PromptOptions, options, NAME)
        self.workshop = workshop

    def edit(self, lm: LM, facts: Sequence[Fact]) -> PromptEdit:
        """Write the facts down.

        Raises:
            UserError: they do not fit into the model's context window.
        """
        views = [view(fact) for fact in facts]
        options = self.options
        system = system_prompt(views, options.layout, options.header, options.footer)
        refuse_too_long(lm, NAME, [(system, facts)], FEWER)
        self.workshop.used("prompts", [system])
        return PromptEdit(system)
