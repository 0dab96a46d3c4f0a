"""PROMPT packed: like PROMPT, but the facts lie in packs, and each question gets one of them.

The pack is the one that holds the fact most similar to the question; nobody tells it which fact is
asked about, and no question is left without a pack. Facts with one subject stay together.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field

from methods.base import HasWeights, Workshop, options_of
from methods.context import ContextLM, question_of, refuse_too_long, under, weights_behind
from methods.demonstrations import statement
from methods.prompt import PromptOptions
from methods.retrievers import Kind, nearest, retriever
from prompts.layouts import system_prompt, view
from ske.io import write_json
from ske.lm import LM, Chat, ask
from ske.types import Fact, Frozen, UserError

NAME = "prompt_packed"
SMALLER = f"set options.{NAME}.facts_per_prompt or tokens_per_prompt lower"


class PackedOptions(PromptOptions):
    """How large a pack is, and how it is found."""

    facts_per_prompt: int = Field(default=16, ge=1)
    tokens_per_prompt: int | None = Field(default=None, ge=1)
    """The most tokens of a pack's system message; needs a local model."""
    retriever: Kind = "auto"


class Pack(Frozen):
    """A system message, and what its facts are found by."""

    system: str
    sentences: tuple[str, ...]


class Contents(Frozen):
    """What a packed prompt consists of, as saved."""

    form: str = NAME
    retriever: str
    packs: tuple[Pack, ...]


class PackedEdit:
    """System messages, one of which stands before each question."""

    def __init__(self, contents: Contents) -> None:
        """Indexes the facts of all packs."""
        self.contents = contents
        self._pack = [n for n, pack in enumerate(contents.packs) for _ in pack.sentences]
        sentences = [sentence for pack in contents.packs for sentence in pack.sentences]
        self._scorer = retriever(contents.retriever, sentences).index(sentences)

    @contextmanager
    def applied(self, lm: LM) -> Iterator[LM]:
        """The same model, prompted."""
        yield ContextLM(lm, self._rewrite, NAME, SMALLER)

    def save(self, folder: Path) -> None:
        """Write `edit.json`."""
        write_json(folder / "edit.json", self.contents.model_dump())

    @staticmethod
    def load(folder: Path) -> PackedEdit:
        """Read what `save` wrote."""
        saved = json.loads((folder / "edit.json").read_text(encoding="utf-8"))
        return PackedEdit(Contents.model_validate(saved))

    def _rewrite(self, lm: LM, chats: Sequence[Chat]) -> list[Chat]:
        found = nearest(self._scorer, [question_of(chat) for chat in chats], 1)
        return [
            under(self.contents.packs[self._pack[hits[0].place]].system, chat)
            for chat, hits in zip(chats, found, strict=True)
        ]


class Packed:
    """The packed PROMPT editor."""

    def __init__(self, options: dict[str, Any], workshop: Workshop) -> None:
        """Raises UserError on unknown options."""
        self.options: PackedOptions = options_of(PackedOptions, options, NAME)
        self.workshop = workshop

    def edit(self, lm: LM, facts: Sequence[Fact]) -> PackedEdit:
        """Split the facts and write them down.

        Raises:
            UserError: `tokens_per_prompt` is set and there is no local model to count them, or one
                fact is longer; or a pack does not fit into the context window.
        """
        holder = weights_behind(lm)
        if holder is None and self.options.tokens_per_prompt is not None:
            raise UserError(
                f"options.{NAME}.tokens_per_prompt = {self.options.tokens_per_prompt}: "
                f"{type(lm).__name__} has no tokens to count; use facts_per_prompt"
            )
        packs = split(facts, lambda some: self._small_enough(some, holder))
        self._check(lm, holder, packs)
        known = retriever(self.options.retriever, [statement(fact) for fact in facts])
        made = tuple(
            Pack(system=self._system(pack), sentences=tuple(statement(fact) for fact in pack))
            for pack in packs
        )
        self.workshop.used("prompts", (pack.system for pack in made))
        return PackedEdit(Contents(retriever=known.name, packs=made))

    def _system(self, facts: Sequence[Fact]) -> str:
        options = self.options
        views = [view(fact) for fact in facts]
        return system_prompt(views, options.layout, options.header, options.footer)

    def _small_enough(self, facts: Sequence[Fact], holder: HasWeights | None) -> bool:
        if len(facts) > self.options.facts_per_prompt:
            return False
        most = self.options.tokens_per_prompt
        if most is None or holder is None:
            return True
        return self._size(facts, holder) <= most

    def _size(self, facts: Sequence[Fact], holder: HasWeights, question: str = "") -> int:
        return len(holder.renderer.prompt_ids(ask(question, self._system(facts))))

    def _check(self, lm: LM, holder: HasWeights | None, packs: Sequence[Sequence[Fact]]) -> None:
        most = self.options.tokens_per_prompt
        if holder is not None and most is not None:
            for pack in packs:
                if (size := self._size(pack, holder)) > most:
                    raise UserError(
                        f"options.{NAME}.tokens_per_prompt = {most}: fact {pack[0].id!r} alone "
                        f"takes {size} tokens; set it higher"
                    )
        refuse_too_long(lm, NAME, [(self._system(pack), pack) for pack in packs], SMALLER)


def split(
    facts: Sequence[Fact], small_enough: Callable[[Sequence[Fact]], bool]
) -> list[list[Fact]]:
    """Facts in packs, those with one subject side by side, each as full as `small_enough` allows.

    A subject's facts begin a new pack if they would not fit whole into what is left of the last
    one, and are split only if no pack can hold them.
    """
    subjects: dict[str, list[Fact]] = {}
    for fact in facts:
        subjects.setdefault(fact.subject, []).append(fact)
    packs: list[list[Fact]] = []
    for group in subjects.values():
        if packs and small_enough([*packs[-1], *group]):
            packs[-1] += group
            continue
        packs.append([])
        for fact in group:
            if packs[-1] and not small_enough([*packs[-1], fact]):
                packs.append([])
            packs[-1].append(fact)
    return packs
