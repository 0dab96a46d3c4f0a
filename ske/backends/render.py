"""Chats and answers -> token ids, for models with a chat template and for plain ones.

A plain model reads a chat as a text to complete: the system message, a blank line, the question;
the answer follows after a space. A chat model reads its own template.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from ske.lm import Chat

_MARK = "\u2042"
"""Stands for an answer while the template's text around it is read; occurs in no template."""


class Renderer:
    """Turns chats into ids for one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, style: str = "auto") -> None:
        """`style` is "chat", "plain" or "auto" (the chat template, if the tokenizer has one)."""
        self.tokenizer = tokenizer
        self.chat = tokenizer.chat_template is not None if style == "auto" else style == "chat"
        self.joiner = self._joiner() if self.chat else " "
        ends: Any = tokenizer.eos_token_id
        self.end_id: int | None = ends[0] if isinstance(ends, list) else ends

    def text(self, chat: Chat) -> str:
        """The text that the answer follows."""
        if self.chat:
            text = self.tokenizer.apply_chat_template(
                _plain(chat), tokenize=False, add_generation_prompt=True
            )
            assert isinstance(text, str)
            return text
        system = [m["content"] for m in chat if m["role"] == "system"]
        return "\n\n".join([*system, *(m["content"] for m in chat if m["role"] != "system")])

    def prompt_ids(self, chat: Chat) -> list[int]:
        """The ids of a chat; never empty: an empty text starts from the end (or begin) token."""
        ids = self._encode(self.text(chat))
        if ids:
            return ids
        begin = self.tokenizer.bos_token_id
        start = begin if isinstance(begin, int) else self.end_id
        return [start] if start is not None else [0]

    def answer_ids(self, chat: Chat, answer: str, end: bool = False) -> list[int]:
        """The ids that follow `prompt_ids(chat)` when the answer is given.

        Tokenised together with the prompt where the prompt's own tokens stay the same (so that a
        word keeps its usual tokens), separately otherwise. `end` appends the end token.
        """
        text = self.text(chat)
        joiner = self.joiner if text and answer else ""
        prompt = self._encode(text)
        whole = self._encode(text + joiner + answer)
        if prompt and whole[: len(prompt)] == prompt and len(whole) > len(prompt):
            ids = whole[len(prompt) :]
        else:
            ids = self.tokenizer(joiner + answer, add_special_tokens=False).input_ids
        return [*ids, self.end_id] if end and self.end_id is not None else ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a reply, without special tokens and without blanks around it."""
        text = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        assert isinstance(text, str)
        return text.strip()

    def _encode(self, text: str) -> list[int]:
        # A chat template writes its own special tokens; plain text gets the tokenizer's.
        return self.tokenizer(text, add_special_tokens=not self.chat).input_ids

    def _joiner(self) -> str:
        """What a template puts between the end of the prompt and an answer, usually nothing."""
        chat: Chat = [{"role": "user", "content": "?"}]
        before = self.text(chat)
        answered: Chat = [*chat, {"role": "assistant", "content": _MARK}]
        whole = self.tokenizer.apply_chat_template(_plain(answered), tokenize=False)
        assert isinstance(whole, str)
        if not whole.startswith(before) or _MARK not in whole[len(before) :]:
            return ""
        return whole[len(before) :].split(_MARK)[0]


def _plain(chat: Chat) -> list[dict[str, str]]:
    return [{"role": message["role"], "content": message["content"]} for message in chat]
