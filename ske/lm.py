"""The one handle: everything that can be asked is an `LM`, whatever made it.

An edited model, a prompted model, an API endpoint and a script of canned replies all answer the
same two calls, so nothing above this floor asks which method or which server is behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, runtime_checkable

from typing_extensions import TypedDict  # pydantic refuses typing's own before Python 3.12

from ske.types import Frozen

if TYPE_CHECKING:
    import torch  # seconds; nobody here calls it


class Message(TypedDict):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


Chat = list[Message]


class Sampling(Frozen):
    """How to generate. Greedy by default, so that the same question gives the same answer."""

    max_new_tokens: int = 32
    temperature: float = 0.0
    """0 is greedy."""
    top_k: int = 0
    """Draw among so many most likely tokens only; 0: among all."""
    min_new_tokens: int = 0
    """The end token is held back until so many tokens are said."""
    seed: int = 0
    stop: tuple[str, ...] = ()
    """Texts at which a reply is cut (the text itself is left out); the end token always stops."""


class Reply(NamedTuple):
    """What a model said."""

    text: str
    prompt_tokens: int
    reply_tokens: int
    finished: bool
    """True if the model stopped by itself, False if `max_new_tokens` cut it."""


class Scored(NamedTuple):
    """One (chat, answer) pair under teacher forcing; every list has one entry per answer token."""

    tokens: list[int]
    logprobs: list[float]
    """log p(token | chat, earlier answer tokens), natural logarithm."""
    argmax: list[int]
    """The token the model would have said at each position."""
    top_ids: list[list[int]]
    """The k most likely tokens at each position; empty lists if `top_k` was 0."""
    top_logprobs: list[list[float]]


class Pair(NamedTuple):
    """A chat and the answer to score after it."""

    chat: Chat
    answer: str
    end: bool = False
    """Whether the token that ends a reply is scored as part of the answer."""


@runtime_checkable
class LM(Protocol):
    """Anything that answers. Both calls keep the order and the length of their input."""

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Reply]:
        """Continue each chat with the assistant's reply."""
        ...

    def logprobs(self, pairs: Sequence[Pair], top_k: int = 0) -> list[Scored]:
        """Score each answer, token by token, as the assistant's reply to its chat."""
        ...


Factors = tuple["torch.Tensor", "torch.Tensor"]
"""(up [out, rank], down [rank, in]): the difference `up @ down` of a weight [out, in]."""


@runtime_checkable
class TakesAdapters(Protocol):
    """An `LM` that can be asked under low-rank edits though its weights are out of reach."""

    def laid(self, factors: Mapping[str, Factors]) -> AbstractContextManager[None]:
        """Answer with differences by parameter name, on top of those that are laid already.

        Raises:
            NeedsWeights: it cannot take them.
        """
        ...


def ask(question: str, system: str | None = None) -> Chat:
    """The chat that puts one question, under a system message if there is one."""
    turns: Chat = [{"role": "system", "content": system}] if system else []
    return [*turns, {"role": "user", "content": question}]
