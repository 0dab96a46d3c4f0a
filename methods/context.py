"""What all methods share that choose a prompt for each question: the wrapping LM, and the window.

Questions under the same system message go to the model together, so that a local model reads that
message once. A prompt that the model's context window cannot hold is an error, never cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from methods.base import HasWeights, Wraps, innermost
from ske.backends import common
from ske.lm import LM, Chat, Message, Pair, Reply, Sampling, Scored, ask
from ske.types import Fact, TooLong, UserError

Rewrite = Callable[[LM, Sequence[Chat]], list[Chat]]
"""Chats as they come -> chats as the model reads them; an untouched one is the same object."""
Item = TypeVar("Item")
Answer = TypeVar("Answer")

ASKED = "\nPrompt: "
"""In-context demonstrations put the question after this mark; what stands before is not asked."""
_MARGIN = 256
"""More than a chat template adds of its own, in tokens."""


def system_of(chat: Chat) -> str:
    """All system messages of a chat, in order, a blank line between them."""
    return "\n\n".join(message["content"] for message in chat if message["role"] == "system")


def under(system: str, chat: Chat) -> Chat:
    """The chat under one more system message, which stands before those it has."""
    rest: Chat = [message for message in chat if message["role"] != "system"]
    own = system_of(chat)
    both = f"{system}\n\n{own}" if own else system
    return [{"role": "system", "content": both}, *rest]


def question_of(chat: Chat) -> str:
    """What is asked: the last user message, without the demonstrations another edit wrote in it."""
    said = [message["content"] for message in chat if message["role"] == "user"]
    return said[-1].rpartition(ASKED)[2] if said else ""


def reworded(chat: Chat, wording: Callable[[str], str]) -> Chat:
    """The chat with its last user message written anew."""
    last = max((i for i, m in enumerate(chat) if m["role"] == "user"), default=None)
    if last is None:
        return chat
    message: Message = {"role": "user", "content": wording(chat[last]["content"])}
    return [*chat[:last], message, *chat[last + 1 :]]


class ContextLM:
    """An `LM` that puts its own context before each question."""

    def __init__(
        self, lm: LM, rewrite: Rewrite, method: str, advice: str, stop: tuple[str, ...] = ()
    ) -> None:
        """`advice` says what to do when a prompt does not fit; replies are also cut at `stop`."""
        self.inner, self._rewrite, self._stop = lm, rewrite, stop
        self._method, self._advice = method, advice

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Reply]:
        """Continue each chat under its context."""
        rewritten = self._rewrite(self.inner, chats)
        self._check(rewritten, lambda place, holder: sampling.max_new_tokens)
        cut = sampling.model_copy(update={"stop": (*sampling.stop, *self._stop)})
        return _in_groups(rewritten, rewritten, lambda some: self.inner.generate(some, cut))

    def logprobs(self, pairs: Sequence[Pair], top_k: int = 0) -> list[Scored]:
        """Score each answer under its context."""
        chats = self._rewrite(self.inner, [pair.chat for pair in pairs])

        def length(place: int, holder: HasWeights) -> int:
            pair = pairs[place]
            return len(holder.renderer.answer_ids(chats[place], pair.answer, pair.end))

        # An answer has at most as many tokens as bytes.
        self._check(chats, length, [len(pair.answer.encode()) + 2 for pair in pairs])
        items = [pair._replace(chat=chat) for pair, chat in zip(pairs, chats, strict=True)]
        return _in_groups(chats, items, lambda some: self.inner.logprobs(some, top_k))

    def _check(
        self,
        chats: Sequence[Chat],
        length: Callable[[int, HasWeights], int],
        most: Sequence[int] | None = None,
    ) -> None:
        """Raises TooLong if a prompt and its answer are longer than the context window.

        `length` is an answer's, `most` no less and known without tokens.
        """
        holder = weights_behind(self.inner)
        window = window_of(holder) if holder else None
        if holder is None or window is None:
            return  # what a server can read is for the server to say
        for place, chat in enumerate(chats):
            if most and fits_in(chat, holder, window - most[place]):
                continue
            answer = length(place, holder)
            if not fits_in(chat, holder, window - answer):
                raise TooLong(
                    f"method {self._method!r}: a prompt of {len(holder.renderer.prompt_ids(chat))} "
                    f"tokens and {answer} for its answer are more than the model's context window "
                    f"of {window}; {self._advice}"
                )


def refuse_too_long(
    lm: LM, method: str, prompts: Sequence[tuple[str, Sequence[Fact]]], advice: str
) -> None:
    """See that system messages and the questions of their own facts fit into the window.

    Args:
        lm: The model, edits of others on it or not.
        method: Whose messages they are.
        prompts: Each message with the facts in it.
        advice: What to do about it.

    Raises:
        UserError: One does not fit.
    """
    holder = weights_behind(lm)
    window = window_of(holder) if holder else None
    if holder is None or window is None:
        return
    added = added_tokens(lm, holder, [ask(facts[0].prompt) for _, facts in prompts[:16] if facts])
    for system, facts in prompts:
        longest = max((fact.prompt for fact in facts), key=len, default="")
        size = len(holder.renderer.prompt_ids(ask(longest, system)))
        if size + added > window:
            raise UserError(
                f"method {method!r}: {len(facts)} facts and a question take {size} tokens, and "
                f"{window - added} of the context window of {window} are free; {advice}"
            )


def fits_in(chat: Chat, holder: HasWeights, tokens: int) -> bool:
    """Whether a chat has at most so many tokens."""
    # No text has more tokens than bytes, so that most need not be turned into tokens to know.
    if sum(len(message["content"].encode()) for message in chat) + _MARGIN <= tokens:
        return True
    return len(holder.renderer.prompt_ids(chat)) <= tokens


def weights_behind(lm: LM) -> HasWeights | None:
    """The local model behind an `LM`, None for a server or a script."""
    holder = innermost(lm)
    return holder if isinstance(holder, HasWeights) else None


def window_of(holder: HasWeights) -> int | None:
    """The most tokens the model can read; None if its configuration sets no limit."""
    return common.window_of(holder.model.config)


def added_tokens(lm: LM, holder: HasWeights, chats: Sequence[Chat]) -> int:
    """How many tokens the edits that already wrap a model put before these chats, at most."""
    if not isinstance(lm, Wraps):
        return 0
    replies = lm.generate(list(chats), Sampling(max_new_tokens=1))
    own = [len(holder.renderer.prompt_ids(chat)) for chat in chats]
    return max(
        (reply.prompt_tokens - size for reply, size in zip(replies, own, strict=True)), default=0
    )


def _in_groups(
    chats: Sequence[Chat], items: Sequence[Item], call: Callable[[list[Item]], list[Answer]]
) -> list[Answer]:
    """Call once for each shared system message, once for all others; answers in order."""
    answers: dict[int, Answer] = {}
    for group in _groups([system_of(chat) for chat in chats]):
        said = call([items[place] for place in group])
        answers.update(zip(group, said, strict=True))
    return [answers[place] for place in range(len(items))]


def _groups(systems: Sequence[str]) -> list[list[int]]:
    """Places by system message; those that stand alone under theirs go together.

    A local model shares what all chats of a call begin with, as far as their first tokens agree:
    two long messages with one header in a single call would share the header only.
    """
    places: dict[str, list[int]] = {}
    for place, system in enumerate(systems):
        places.setdefault(system, []).append(place)
    alone = [group[0] for system, group in places.items() if system and len(group) == 1]
    shared = [group for system, group in places.items() if not system or len(group) > 1]
    return [*shared, alone] if alone else shared
