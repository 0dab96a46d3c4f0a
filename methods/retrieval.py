"""SCR: selective contextual reasoning (He et al. 2025, arXiv 2503.05212): retrieve, confirm, ask.

The facts lie in an index. A question that is about some of them gets these into its prompt; every
other question reaches the model as it came. The ceiling for methods that change weights. Questions
are compared with the facts' prompts, without the targets: a question about a target (what continent
is Iceland in?) is not about the fact, and a new value must not draw facts to it.

As in the paper, a question's facts are first retrieved by similarity and then confirmed. `confirm`
"model" lets the model itself say yes or no to each retrieved fact, as the paper does (in words of
our own). "threshold", the default, takes those from a similarity on, since small models say yes or
no badly; the similarity is the one that separates practice questions best.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from methods.base import Practice, Workshop, options_of
from methods.context import ContextLM, question_of, under
from methods.demonstrations import apart_from, statement
from methods.retrievers import Kind, Retriever, nearest, retriever
from prompts.layouts import system_prompt, view
from prompts.loader import render
from ske.io import write_json
from ske.lm import LM, Chat, Pair, ask
from ske.types import Fact, Frozen

FEWER = "set options.retrieval.top_k lower"
MOST_PRACTICE = 512
"""Practice facts that the threshold is tuned on, and that say which words are common."""


class ScrOptions(Frozen):
    """How facts are found, confirmed and written down."""

    retriever: Kind = "auto"
    top_k: int = Field(default=4, ge=1)
    """The most facts put before a question."""
    confirm: Literal["threshold", "model"] = "threshold"
    threshold: float | None = Field(default=None, ge=-1, le=1)
    """Least similarity; null is tuned on practice examples, or the retriever's own without."""
    layout: str = "new_fact"
    header: str = "acknowledge"
    footer: str = "none"


class Contents(Frozen):
    """What an SCR edit consists of, as saved."""

    form: str = "retrieval"
    options: ScrOptions
    retriever: str
    threshold: float
    facts: tuple[Fact, ...]
    background: tuple[str, ...]
    """Sentences that say which words are common."""


class ScrEdit:
    """Facts in an index."""

    def __init__(self, contents: Contents) -> None:
        """Indexes the facts."""
        self.contents = contents
        self._sentences = [fact.prompt for fact in contents.facts]
        known = retriever(contents.retriever, [*self._sentences, *contents.background])
        self._scorer = known.index(self._sentences)

    @contextmanager
    def applied(self, lm: LM) -> Iterator[LM]:
        """The same model, told the facts a question is about."""
        confirmed: dict[tuple[str, int], bool] = {}  # scoring asks again what was generated

        def rewrite(inner: LM, chats: Sequence[Chat]) -> list[Chat]:
            found = self.found(inner, [question_of(chat) for chat in chats], confirmed)
            return [
                under(self._system(places), chat) if places else chat
                for chat, places in zip(chats, found, strict=True)
            ]

        yield ContextLM(lm, rewrite, "retrieval", FEWER)

    def save(self, folder: Path) -> None:
        """Write `edit.json`."""
        write_json(folder / "edit.json", self.contents.model_dump())

    @staticmethod
    def load(folder: Path) -> ScrEdit:
        """Read what `save` wrote."""
        saved = json.loads((folder / "edit.json").read_text(encoding="utf-8"))
        return ScrEdit(Contents.model_validate(saved))

    def found(
        self, lm: LM, questions: Sequence[str], confirmed: dict[tuple[str, int], bool]
    ) -> list[list[int]]:
        """For each question the places of its facts, in the order of the batch; maybe none."""
        options = self.contents.options
        hits = nearest(self._scorer, questions, options.top_k)
        if options.confirm == "threshold":
            least = self.contents.threshold
            return [sorted(hit.place for hit in row if hit.score >= least) for row in hits]
        pairs = [
            (question, hit.place)
            for question, row in zip(questions, hits, strict=True)
            for hit in row
        ]
        self._confirm(
            lm, [pair for pair in dict.fromkeys(pairs) if pair not in confirmed], confirmed
        )
        return [
            sorted(hit.place for hit in row if confirmed[question, hit.place])
            for question, row in zip(questions, hits, strict=True)
        ]

    def _confirm(
        self, lm: LM, pairs: Sequence[tuple[str, int]], confirmed: dict[tuple[str, int], bool]
    ) -> None:
        """Ask the model for each (question, fact); yes must be likelier than no."""
        chats = [
            ask(
                render(
                    "methods/retrieval/confirm",
                    fact=statement(self.contents.facts[place]),
                    question=question,
                ).text
            )
            for question, place in pairs
        ]
        asked = [Pair(chat, answer) for chat in chats for answer in ("yes", "no")]
        said = [sum(scored.logprobs) for scored in lm.logprobs(asked)] if asked else []
        for number, pair in enumerate(pairs):
            confirmed[pair] = said[2 * number] > said[2 * number + 1]

    def _system(self, places: Sequence[int]) -> str:
        options = self.contents.options
        views = [view(self.contents.facts[place]) for place in places]
        return system_prompt(views, options.layout, options.header, options.footer)


class Scr:
    """The SCR editor."""

    def __init__(self, options: dict[str, Any], workshop: Workshop) -> None:
        """Raises UserError on unknown options."""
        self.options: ScrOptions = options_of(ScrOptions, options, "retrieval")
        self.workshop = workshop

    def edit(self, lm: LM, facts: Sequence[Fact]) -> ScrEdit:
        """Write the facts down, and find the threshold."""
        given = self.workshop.practice
        practice = apart_from(given(), facts)[:MOST_PRACTICE] if given else []
        background = [example.fact.prompt for example in practice]
        sentences = [fact.prompt for fact in facts]
        known = retriever(self.options.retriever, [*sentences, *background])
        threshold = self.options.threshold
        if threshold is None:
            threshold = tuned_threshold(known, practice)
        return ScrEdit(
            Contents(
                options=self.options,
                retriever=known.name,
                threshold=threshold,
                facts=tuple(fact.model_copy(update={"ground_truth": None}) for fact in facts),
                background=tuple(background),
            )
        )


def tuned_threshold(known: Retriever, practice: Sequence[Practice]) -> float:
    """The similarity from which practice questions are about a practice fact.

    Questions about a fact are its own prompt and paraphrases, by their similarity to it; questions
    about none are the unrelated ones that leave its subject out, by their greatest similarity.
    Those that keep the subject are no help: the model has to tell them apart, with the fact before
    it. Without examples of both kinds, the retriever's own.
    """
    sentences = [example.fact.prompt for example in practice]
    inside = [
        (question, place)
        for place, example in enumerate(practice)
        for question in (example.fact.prompt, *example.paraphrases)
    ]
    outside = [
        prompt
        for example in practice
        for prompt, _ in example.unrelated
        if not any(other.fact.subject in prompt for other in practice)
    ]
    if not inside or not outside:
        return known.threshold
    scorer = known.index(sentences)
    near = scorer([question for question, _ in inside])
    positive = near[np.arange(len(inside)), [place for _, place in inside]]
    return best_split(positive, scorer(outside).max(axis=1))


def best_split(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> float:
    """The threshold with the largest share of positives at or above it and negatives below.

    Halfway between two neighbouring values; of equally good ones, the lowest.
    """
    values = np.unique(np.concatenate([positive, negative]))
    cuts = np.concatenate([values[:1], (values[1:] + values[:-1]) / 2])
    kept = 1 - np.searchsorted(np.sort(positive), cuts) / len(positive)
    passed = 1 - np.searchsorted(np.sort(negative), cuts) / len(negative)
    return float(cuts[np.argmax(kept - passed)])
