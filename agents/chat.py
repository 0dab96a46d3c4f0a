"""What a model brain needs of a model: say something to a list of messages. And the local one."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from pydantic import BaseModel

from ske.lm import LM, Message, Sampling

LOCAL_RETRIES = 2
LOCAL_SAMPLING = Sampling(max_new_tokens=1024)
"""A local model answers greedily; a decision about a hundred facts is about as long as this."""

REPLY_SHARE = 4
"""At most one part in so many of a small model's context window is for its reply."""


class Said(NamedTuple):
    """A reply."""

    text: str
    tokens: int = 0
    """Of question and reply together, as far as the model counts them."""
    finished: bool = True


class Refused(Exception):
    """The model will not answer this one question (too long, filtered); it may answer others."""


class ChatModel(Protocol):
    """A model that can be talked to."""

    @property
    def name(self) -> str:
        """What traces call it."""
        ...

    @property
    def identity(self) -> str:
        """What tells it from other models: stored replies are kept by it."""
        ...

    @property
    def sampling(self) -> dict[str, Any]:
        """How it answers; part of a stored reply's key."""
        ...

    @property
    def retries(self) -> int:
        """How often a question may be repeated after a reply that cannot be used."""
        ...

    def say(self, messages: list[Message], schema: type[BaseModel], known: bool) -> Said:
        """Reply.

        Args:
            messages: The question.
            schema: What the reply should be; a model that cannot be held to it may ignore this.
            known: Whether the model has replied before, to anything.

        Raises:
            Refused: Not to this question.
            UserError: Not at all: the model cannot be reached, or refuses everything.
        """
        ...


class LocalChat:
    """An `LM` of this process."""

    name = "local model"
    retries = LOCAL_RETRIES

    def __init__(self, lm: LM, identity: str) -> None:
        """`identity`: what tells its weights from others."""
        self.lm = lm
        self.identity = f"local {identity}"
        self.sampling = LOCAL_SAMPLING.model_dump(mode="json")

    def say(self, messages: list[Message], schema: type[BaseModel], known: bool) -> Said:
        """Generate a reply, as far as question and reply fit into what the model can read."""
        from methods.context import fits_in, weights_behind, window_of  # torch: only when needed

        sampling = LOCAL_SAMPLING
        holder = weights_behind(self.lm)
        window = window_of(holder) if holder else None
        if holder and window:
            longest = min(sampling.max_new_tokens, window // REPLY_SHARE)
            if not fits_in(messages, holder, window - longest):
                raise Refused(f"question and reply do not fit into a window of {window} tokens")
            sampling = sampling.model_copy(update={"max_new_tokens": longest})
        (reply,) = self.lm.generate([messages], sampling)
        return Said(reply.text, reply.prompt_tokens + reply.reply_tokens, reply.finished)
