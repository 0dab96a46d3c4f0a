"""What a method is: an `Editor` that makes an `Edit`, which yields an edited `LM` while applied.

Evaluators only ever see an `LM`; no code asks which method made it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pydantic import ValidationError
from transformers.modeling_utils import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from ske.backends.render import Renderer
from ske.explaining import booleans, reason
from ske.lm import LM, Chat, Scored
from ske.types import Fact, Frozen, NeedsWeights, UserError


@runtime_checkable
class HasWeights(Protocol):
    """An `LM` whose weights can be read and changed; API models are none."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    renderer: Renderer

    def score(
        self, prompts: Sequence[list[int]], answers: Sequence[list[int]], top_k: int = 0
    ) -> list[Scored]:
        """Teacher forcing on token ids."""
        ...


@runtime_checkable
class Wraps(Protocol):
    """An `LM` that stands before another one, as a prompted model does."""

    inner: LM


class Edit(Protocol):
    """A finished edit: something that can be applied, taken back and saved."""

    def applied(self, lm: LM) -> AbstractContextManager[LM]:
        """The edited `LM`, for the length of a `with` block.

        On exit, also after an exception, the base is back bit for bit. Nested blocks apply edits
        one after the other.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write the edit; `methods.table.load_edit` reads it."""
        ...


class Editor(Protocol):
    """Makes an edit and leaves the model as it found it."""

    def edit(self, lm: LM, facts: Sequence[Fact]) -> Edit:
        """Work out an edit that makes all `facts` true at once."""
        ...


Used = Callable[[str, Iterable[str]], None]
"""Told of texts that an edit is made of: (what they are for, texts)."""


@runtime_checkable
class EditsAlone(Protocol):
    """An editor that makes the edits of many facts at a time, each as if it were the only one."""

    def alone(self, lm: LM, facts: Sequence[Fact], used: Sequence[Used]) -> Sequence[Edit]:
        """One edit a fact, of the untouched model; `used` is told of each fact's texts."""
        ...


@runtime_checkable
class Practises(Protocol):
    """An editor that cannot do without solved examples."""

    def check_practice(self, practice: Sequence[Practice]) -> None:
        """Raises UserError if these are of no use to it."""
        ...


REHEARSED = "rehearsed"
"""The kind of lessons that earlier rounds of a sequential run had, too."""


TOLD = "told"
"""The kind of lessons that a teacher made up itself."""
ABOUT_FACTS = ("fact", "paraphrase", "consequence", TOLD)
"""The kinds of lessons that say what an edit is about."""


class Lesson(Frozen):
    """One thing a student is to learn: how to complete a chat.

    With `top_ids`, the completion's tokens are `ids`, and the student is held to the stored
    distribution (rows of the `top_k` most likely tokens): the base model's where something is to
    stay as it was, a teacher's where that was wanted of what is new.
    """

    chat: Chat
    completion: str = ""
    kind: str = "fact"
    """fact, paraphrase, consequence, told, neighbour, free or rehearsed."""
    fact: str | None = None
    pack: str | None = None
    ids: tuple[int, ...] = ()
    """The completion as tokens, where the text alone would not give them back."""
    top_ids: tuple[tuple[int, ...], ...] = ()
    """[len(ids), k]"""
    top_logprobs: tuple[tuple[float, ...], ...] = ()
    """[len(ids), k], natural logarithms."""
    spoken: bool = True
    """Whether the completion is learned by cross-entropy, too; sampled text is only held to."""

    @property
    def is_new(self) -> bool:
        """Whether it says what the base model would not, or may not, have said by itself."""
        return self.kind in ABOUT_FACTS or not self.top_ids

    @property
    def texts(self) -> tuple[str, ...]:
        """All that is said in it."""
        return (*(message["content"] for message in self.chat), self.completion)


def stored(scored: Scored, most: int | None = None) -> dict[str, Any]:
    """A scored answer's distribution as a lesson holds it, of its first `most` tokens."""
    return {
        "ids": tuple(scored.tokens[:most]),
        "top_ids": tuple(map(tuple, scored.top_ids[:most])),
        "top_logprobs": tuple(
            tuple(round(p, 5) for p in row) for row in scored.top_logprobs[:most]
        ),
    }


class Practice(Frozen):
    """A solved example for methods that learn to edit, or that show how it is done.

    Never one of the facts to be edited, and none of its wordings is a probe.
    """

    fact: Fact
    paraphrases: tuple[str, ...] = ()
    """Other wordings that the new target answers."""
    unrelated: tuple[tuple[str, str], ...] = ()
    """(prompt, answer) pairs that the edit must leave as they are."""


@dataclass(frozen=True)
class Workshop:
    """What a method may use beside its own options."""

    seed: int = 0
    folder: Path | None = None
    """For checkpoints; a killed edit goes on from here."""
    lessons: Callable[[], Sequence[Lesson]] | None = None
    """The teacher's lessons, for methods that learn from a teacher."""
    practice: Callable[[], Sequence[Practice]] | None = None
    """Solved examples, for methods that need some."""
    texts: Callable[[], Sequence[str]] | None = None
    """General text, for statistics of what the model usually sees; else it is sampled from it."""
    cache: Path | None = None
    """For what depends on the model and not on the facts; its files are named by their content."""
    used: Used = field(default=lambda kind, texts: None)
    """To be told of every text that an edit is made of beside what the workshop hands out, before
    it is used: (what it is for, texts). They are checked against all probes afterwards."""
    progress: Callable[[int, int, float], None] = field(default=lambda step, total, loss: None)
    """Called with (step, steps, loss)."""


def innermost(lm: LM) -> LM:
    """The model behind an `LM` that wraps another (a prompted model), or itself."""
    while isinstance(lm, Wraps):
        lm = lm.inner
    return lm


def weights_of(lm: LM, method: str) -> HasWeights:
    """The weights behind an `LM`, also behind one that wraps another.

    Raises:
        NeedsWeights: there are none to be had (an API model).
    """
    holder = innermost(lm)
    if not isinstance(holder, HasWeights):
        raise NeedsWeights(
            f"method {method!r} changes weights, and {type(holder).__name__} has none to change; "
            "use a local model (model.path)"
        )
    return holder


def options_of(schema: type[Frozen], options: dict[str, Any], method: str) -> Any:
    """Check a method's options; unknown keys and bad values are the user's mistakes."""
    if wrong := list(booleans(schema, options)):
        told = (f"options.{method}.{key} = {v}: Input should be a number" for key, v in wrong)
        raise UserError("\n".join(told))
    try:
        return schema.model_validate(options)
    except ValidationError as error:
        lines = [
            f"options.{method}.{'.'.join(map(str, e['loc']))} = {e['input']!r}: {reason(e)}; "
            f"known options: {', '.join(schema.model_fields)}"
            for e in error.errors()
        ]
        raise UserError("\n".join(lines)) from error
