"""Several z, each an expert for one kind of question, and an `LM` that asks the right one.

Transformer-squared's two passes (Sun, Cetin and Tang 2025, arXiv 2501.06252, section 3.2): the
first says which expert a question needs, the second answers with it. The model says so itself, or
under one more z that is trained to. Different: the names are compared by their probability instead
of read from a free reply, each question gets its own expert, and one that fits none is answered by
the model as it is. Mixtures of experts need no first pass: see `methods.svf`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file

from methods.base import weights_of
from methods.svf_edit import FILE, Laying, Using, Z, opened
from prompts.loader import render
from prompts.relations import lexicon, relation_of
from ske.io import write_json
from ske.lm import LM, Chat, Pair, Reply, Sampling, Scored, ask
from ske.types import Fact

T = TypeVar("T")
OTHER = "something else"
"""The name under which the model as it is can be chosen."""
NO_RELATION = "general facts"


def kind_of(fact: Fact) -> str:
    """The expert that a fact belongs to: its relation's label, or a name that it brings itself."""
    if fact.relation is not None and fact.relation not in lexicon():
        return fact.relation
    relation = relation_of(fact)
    return relation.label if relation else NO_RELATION


def question_about(chat: Chat, names: Sequence[str]) -> Chat:
    """The first pass' chat about the last user message of a chat."""
    said = [message["content"] for message in chat if message["role"] == "user"]
    question = said[-1] if said else ""
    return ask(render("svf/classify", names=[*names, OTHER], question=question).text)


class ExpertsLM:
    """An `LM` that answers each chat with the expert it needs."""

    def __init__(
        self, lm: LM, using: Using, experts: Mapping[str, Z], classifier: Z | None
    ) -> None:
        """`using` lays a z on the model behind `lm`."""
        self.inner = lm
        self.using, self.experts, self.classifier = using, experts, classifier

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Reply]:
        """Continue each chat under its expert."""
        return self._answered(
            chats, lambda places: self.inner.generate([chats[i] for i in places], sampling)
        )

    def logprobs(self, pairs: Sequence[Pair], top_k: int = 0) -> list[Scored]:
        """Score each answer under its chat's expert."""
        return self._answered(
            [pair.chat for pair in pairs],
            lambda places: self.inner.logprobs([pairs[i] for i in places], top_k),
        )

    def choose(self, chats: Sequence[Chat]) -> list[str]:
        """The first pass: a name of an expert, or `OTHER`, for each chat.

        A name's score is log p of the whole reply that consists of it.
        """
        names = [*self.experts, OTHER]
        pairs = [
            Pair(question_about(chat, list(self.experts)), name, end=True)
            for chat in chats
            for name in names
        ]
        with self._under(self.classifier):
            scored = self.inner.logprobs(pairs)
        sure = torch.tensor([sum(one.logprobs) for one in scored]).reshape(len(chats), len(names))
        return [names[i] for i in sure.argmax(1).tolist()]

    def _answered(self, chats: Sequence[Chat], answer: Callable[[list[int]], list[T]]) -> list[T]:
        """The second pass: the chats of one expert together, the answers in the old order."""
        groups: dict[str, list[int]] = {}
        for place, name in enumerate(self.choose(chats) if chats else []):
            groups.setdefault(name, []).append(place)
        answers: dict[int, T] = {}
        for name, places in groups.items():
            with self._under(self.experts.get(name)):
                answers.update(zip(places, answer(places), strict=True))
        return [answers[place] for place in range(len(chats))]

    def _under(self, z: Z | None) -> AbstractContextManager[None]:
        return nullcontext() if z is None else self.using(z)


class ExpertsEdit:
    """One z for each kind of question."""

    def __init__(
        self,
        experts: Mapping[str, Z],
        classifier: Z | None,
        laying: Laying,
        facts: Mapping[str, Any] | None = None,
        cache: Path | None = None,
    ) -> None:
        """`classifier` is a z under which the model names experts, if one was trained."""
        self.experts, self.classifier, self.laying = experts, classifier, laying
        self.facts = dict(facts or {})
        self.cache = cache

    @contextmanager
    def applied(self, lm: LM) -> Iterator[LM]:
        """An `LM` that chooses; the weights only change while it answers."""
        model = weights_of(lm, "svf").model
        names = next(iter(self.experts.values()))
        with opened(model, names, self.laying, self.cache) as using:
            yield ExpertsLM(lm, using, self.experts, self.classifier)

    def save(self, folder: Path) -> None:
        """Write `edit.safetensors` (every z) and `edit.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        everyone = [*self.experts.values(), *([self.classifier] if self.classifier else [])]
        tensors = {
            f"{number}::{name}": value.contiguous()
            for number, z in enumerate(everyone)
            for name, value in z.items()
        }
        save_file(tensors, folder / FILE)
        about = {
            "form": "svf_experts",
            "method": "svf",
            "experts": list(self.experts),
            "laying": self.laying.model_dump(),
            **self.facts,
        }
        write_json(folder / "edit.json", about)

    @staticmethod
    def load(folder: Path) -> ExpertsEdit:
        """Read what `save` wrote."""
        about = json.loads((folder / "edit.json").read_text(encoding="utf-8"))
        zs: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in load_file(folder / FILE).items():
            number, name = key.split("::")
            zs.setdefault(int(number), {})[name] = value
        names = about["experts"]
        known = ("form", "method", "experts", "laying")
        return ExpertsEdit(
            {name: zs[number] for number, name in enumerate(names)},
            zs.get(len(names)),
            Laying(**about["laying"]),
            {key: about[key] for key in about if key not in known},
        )
