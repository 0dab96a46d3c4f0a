"""IKE: in-context editing by demonstrations (Zheng et al. 2023, arXiv 2305.12740, section 3).

Before each question stand 32 demonstrations of how new facts are used, copy, update and retain as
1 : 3 : 4, the most similar to the new fact last; then the fact's own copy, the new fact, the
question. Weights stay as they are.

Beyond the paper, which edits one fact at a time and asks only about it: a batch has no oracle of
which fact a question is about. The `facts_in_prompt` facts most similar to the question are its new
facts; the demonstrations and the copy are the nearest one's. Every question gets some, as every
probe of a single edit does. With a batch of one this is the published form. The paper compares the
probabilities of two answers; here the model answers. Similarity is between facts, where the
authors' code compares whole demonstrations.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field

from methods.base import Practice, Workshop, options_of
from methods.context import (
    ContextLM,
    added_tokens,
    fits_in,
    question_of,
    reworded,
    under,
    weights_behind,
    window_of,
)
from methods.demonstrations import (
    Demonstration,
    apart_from,
    choose,
    copy_of,
    require_kinds,
    statement,
)
from methods.retrievers import Kind, nearest, retriever
from prompts.loader import render
from ske.io import write_json
from ske.lm import LM, Chat, ask
from ske.types import Fact, Frozen, UserError

FEWER = "set options.ike.demonstrations or options.ike.facts_in_prompt lower"

NEXT = ("\nNew Fact:",)
"""A plain model goes on with a demonstration of its own; the answer ends before it."""


class IkeOptions(Frozen):
    """What is shown before a question."""

    demonstrations: int = Field(default=32, ge=0)
    """Beside the new fact's own copy; fewer where the context window or the practice ends."""
    facts_in_prompt: int | None = Field(default=4, ge=1)
    """New facts before a question, those most similar to it; null for all of the batch. More than
    one, since a question about one subject does not always tell which of its facts is meant."""
    retriever: Kind = "auto"
    form: str = "published"
    """A folder of `prompts/methods/ike`: how demonstrations and questions are written. "facts" is
    for models that know facts before a question, and no "New Fact:" and "Prompt:" there."""
    room: int = Field(default=128, ge=1)
    """Tokens kept free in the context window for the question and its answer."""


class Contents(Frozen):
    """What an IKE edit consists of, as saved."""

    form: str = "ike"
    wording: str
    retriever: str
    facts_in_prompt: int
    facts: tuple[Demonstration, ...]
    """Each new fact as its own copy."""
    wanted: int
    """Demonstrations asked for; fewer are shown where the context window or the practice ends."""
    shown: dict[str, int]
    """Demonstrations of each kind over all facts."""
    examples: tuple[Demonstration, ...]
    chosen: tuple[tuple[int, ...], ...]
    """For each fact, places in `examples`, the most similar last."""


class IkeEdit:
    """New facts and their demonstrations."""

    def __init__(self, contents: Contents) -> None:
        """Indexes the facts; the retriever is the one of the edit."""
        self.contents = contents
        sentences = [copy.fact for copy in contents.facts]
        background = [*sentences, *dict.fromkeys(example.fact for example in contents.examples)]
        self._scorer = retriever(contents.retriever, background).index(sentences)
        self._systems: dict[int, str] = {}

    @contextmanager
    def applied(self, lm: LM) -> Iterator[LM]:
        """The same model, shown how to use the new facts."""
        yield ContextLM(lm, self._rewrite, "ike", FEWER, stop=NEXT)

    def save(self, folder: Path) -> None:
        """Write `edit.json`."""
        write_json(folder / "edit.json", self.contents.model_dump())

    @staticmethod
    def load(folder: Path) -> IkeEdit:
        """Read what `save` wrote."""
        saved = json.loads((folder / "edit.json").read_text(encoding="utf-8"))
        return IkeEdit(Contents.model_validate(saved))

    def _rewrite(self, lm: LM, chats: Sequence[Chat]) -> list[Chat]:
        asked = [question_of(chat) for chat in chats]
        found = nearest(self._scorer, asked, self.contents.facts_in_prompt)
        return [
            framed(self.contents, self._system(hits[0].place), chat, [hit.place for hit in hits])
            for chat, hits in zip(chats, found, strict=True)
        ]

    def _system(self, place: int) -> str:
        if place not in self._systems:
            self._systems[place] = system_of_fact(self.contents, place)
        return self._systems[place]


def system_of_fact(contents: Contents, place: int) -> str:
    """A fact's demonstrations and its own copy, as one message."""
    shown = [contents.examples[number] for number in contents.chosen[place]]
    template = f"methods/ike/{contents.wording}/system"
    return render(template, demonstrations=[*shown, contents.facts[place]]).text


def framed(contents: Contents, system: str, chat: Chat, places: Sequence[int]) -> Chat:
    """A chat under its demonstrations; `places` are its new facts, the nearest first."""
    facts = [contents.facts[place].fact for place in reversed(places)]
    template = f"methods/ike/{contents.wording}/question"
    asked = reworded(chat, lambda text: render(template, facts=facts, question=text).text)
    return under(system, asked)


class Ike:
    """The IKE editor."""

    def __init__(self, options: dict[str, Any], workshop: Workshop) -> None:
        """Raises UserError on unknown options."""
        self.options: IkeOptions = options_of(IkeOptions, options, "ike")
        self.workshop = workshop

    def edit(self, lm: LM, facts: Sequence[Fact]) -> IkeEdit:
        """Find the demonstrations of each fact.

        Raises:
            UserError: there are no practice examples, or not even the new facts fit into the
                context window.
        """
        practice = self._practice(facts)
        known = [statement(example.fact) for example in practice]
        sentences = [statement(fact) for fact in facts]
        found = retriever(self.options.retriever, [*sentences, *known])
        ranked = [
            [hit.place for hit in hits]
            for hits in nearest(found.index(known), sentences, len(known))
        ]

        def made(total: int) -> Contents:
            return self._contents(facts, practice, ranked, total, found.name)

        return IkeEdit(made(self._fitting(lm, facts, made)))

    def check_practice(self, practice: Sequence[Practice]) -> None:
        """Raises UserError if not all kinds of demonstrations can be shown with these."""
        if self.options.demonstrations:
            require_kinds(practice)

    def _practice(self, facts: Sequence[Fact]) -> list[Practice]:
        if self.options.demonstrations == 0:
            return []
        if self.workshop.practice is None:
            raise UserError(
                "method 'ike' shows solved examples and has none; give some (option `practice`: "
                "facts with paraphrases and unrelated questions, about other subjects), or set "
                "options.ike.demonstrations: 0"
            )
        practice = apart_from(self.workshop.practice(), facts)
        require_kinds(practice)
        return practice

    def _contents(
        self,
        facts: Sequence[Fact],
        practice: Sequence[Practice],
        ranked: Sequence[Sequence[int]],
        total: int,
        name: str,
    ) -> Contents:
        examples: dict[Demonstration, int] = {}
        chosen = [
            tuple(
                examples.setdefault(shown, len(examples))
                for shown in choose(practice, places, total, f"{self.workshop.seed} {fact.prompt}")
            )
            for fact, places in zip(facts, ranked, strict=True)
        ]
        kinds = [example.kind for example in examples]
        most = self.options.facts_in_prompt or len(facts)
        return Contents(
            wording=self.options.form,
            retriever=name,
            facts_in_prompt=min(most, len(facts)),
            facts=tuple(copy_of(fact) for fact in facts),
            wanted=self.options.demonstrations,
            shown=dict(Counter(kinds[place] for places in chosen for place in places)),
            examples=tuple(examples),
            chosen=tuple(chosen),
        )

    def _fitting(self, lm: LM, facts: Sequence[Fact], made: Callable[[int], Contents]) -> int:
        """The largest number of demonstrations with which each fact's own question fits."""
        wanted = self.options.demonstrations
        holder = weights_behind(lm)
        window = window_of(holder) if holder else None
        if holder is None or window is None:
            return wanted
        chats = [ask(fact.prompt) for fact in facts]
        free = window - self.options.room - added_tokens(lm, holder, chats[:16])

        def fits(total: int) -> bool:
            contents = made(total)
            others = range(1, contents.facts_in_prompt)
            return all(
                fits_in(
                    framed(contents, system_of_fact(contents, place), chat, [place, *others]),
                    holder,
                    free,
                )
                for place, chat in enumerate(chats)
            )

        if fits(wanted):
            return wanted
        low, high = -1, wanted
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        if low < 0:
            raise UserError(
                f"method 'ike': the new facts alone do not fit into the {free} tokens that the "
                f"context window of {window} leaves; {FEWER}"
            )
        return low
