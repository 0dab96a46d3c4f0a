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
from prompts.layouts import system_prompt, view
from ske.io import write_json
from ske.lm import LM, Chat, Pair, Reply, Sampling, Scored
from ske.types import Fact, Frozen


class PromptOptions(Frozen):
    """How the facts are written down."""

    layout: str = "new_fact"
    header: str = "acknowledge"
    footer: str = "none"


class PromptedLM:
    """An `LM` that puts a system message before every chat."""

    def __init__(self, lm: LM, system: str) -> None:
        """`system` comes before whatever system message a chat has already."""
        self.inner, self.system = lm, system

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Reply]:
        """Continue each chat under the prompt."""
        return self.inner.generate([self._under(chat) for chat in chats], sampling)

    def logprobs(self, pairs: Sequence[Pair], top_k: int = 0) -> list[Scored]:
        """Score each answer under the prompt."""
        return self.inner.logprobs([p._replace(chat=self._under(p.chat)) for p in pairs], top_k)

    def _under(self, chat: Chat) -> Chat:
        rest: Chat = [message for message in chat if message["role"] != "system"]
        system = [self.system, *(m["content"] for m in chat if m["role"] == "system")]
        return [{"role": "system", "content": "\n\n".join(system)}, *rest]


class PromptEdit:
    """A system message."""

    def __init__(self, system: str) -> None:
        """The whole message."""
        self.system = system

    @contextmanager
    def applied(self, lm: LM) -> Iterator[LM]:
        """The same model, prompted; nested prompts stand one after the other."""
        yield PromptedLM(lm, self.system)

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
        self.options: PromptOptions = options_of(PromptOptions, options, "prompt")
        self.workshop = workshop

    def edit(self, lm: LM, facts: Sequence[Fact]) -> PromptEdit:
        """Write the facts down."""
        views = [view(fact) for fact in facts]
        options = self.options
        system = system_prompt(views, options.layout, options.header, options.footer)
        self.workshop.used("prompts", [system])
        return PromptEdit(system)
