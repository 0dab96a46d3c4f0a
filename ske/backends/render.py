"""Chats and answers -> token ids, for models with a chat template and for plain ones.

A plain model reads a chat as a text to complete: the system message, a blank line, the question;
the answer follows after a space. A chat model reads its own template.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from transformers import PreTrainedTokenizerBase

from ske.lm import Chat, Pair

_MARK = "\u2042"
"""Stands for an answer while the template's text around it is read; occurs in no template."""

_REMEMBERED = 4096
"""Texts of chats that are kept."""


class Renderer:
    """Turns chats into ids for one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, style: str = "auto") -> None:
        """`style` is "chat", "plain" or "auto" (the chat template, if the tokenizer has one)."""
        self.tokenizer = tokenizer
        self.chat = tokenizer.chat_template is not None if style == "auto" else style == "chat"
        # The same chats are rendered for a reply and for scores; a template costs more than a look.
        self._texts = lru_cache(maxsize=_REMEMBERED)(self._text)
        self.joiner = self._joiner() if self.chat else " "
        ends: Any = tokenizer.eos_token_id
        self.end_id: int | None = ends[0] if isinstance(ends, list) else ends

    def text(self, chat: Chat) -> str:
        """The text that the answer follows."""
        return self._texts(tuple((message["role"], message["content"]) for message in chat))

    def _text(self, turns: tuple[tuple[str, str], ...]) -> str:
        if self.chat:
            text = self.tokenizer.apply_chat_template(
                [{"role": role, "content": content} for role, content in turns],
                tokenize=False,
                add_generation_prompt=True,
            )
            assert isinstance(text, str)
            return text
        system = [content for role, content in turns if role == "system"]
        return "\n\n".join([*system, *(content for role, content in turns if role != "system")])

    def prompt_ids(self, chat: Chat) -> list[int]:
        """The ids of a chat; never empty: an empty text starts from the end (or begin) token."""
        return self.prompts_ids([chat])[0]

    def prompts_ids(self, chats: Sequence[Chat]) -> list[list[int]]:
        """`prompt_ids` of many chats, read side by side."""
        return [ids or [self._start()] for ids in self._encode(map(self.text, chats))]

    def answer_ids(self, chat: Chat, answer: str, end: bool = False) -> list[int]:
        """The ids that follow `prompt_ids(chat)` when the answer is given.

        Tokenised together with the prompt where the prompt's own tokens stay the same (so that a
        word keeps its usual tokens), separately otherwise. `end` appends the end token.
        """
        return self.pairs_ids([Pair(chat, answer, end)])[1][0]

    def pairs_ids(self, pairs: Sequence[Pair]) -> tuple[list[list[int]], list[list[int]]]:
        """`prompt_ids` and `answer_ids` of many pairs, read side by side."""
        texts = [self.text(pair.chat) for pair in pairs]
        answers = [
            (self.joiner if text and pair.answer else "") + pair.answer
            for text, pair in zip(texts, pairs, strict=True)
        ]
        prompts = self._encode(texts)
        wholes = self._encode(map(str.__add__, texts, answers))
        alone = self._encode(answers, special=False)
        ends = [[self.end_id] if pair.end and self.end_id is not None else [] for pair in pairs]
        follow = [
            whole[len(prompt) :] if _goes_on(prompt, whole) else own
            for prompt, whole, own in zip(prompts, wholes, alone, strict=True)
        ]
        return (
            [ids or [self._start()] for ids in prompts],
            [[*ids, *end] for ids, end in zip(follow, ends, strict=True)],
        )

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a reply, without special tokens and without blanks around it."""
        text = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        assert isinstance(text, str)
        return text.strip()

    def _encode(self, texts: Iterable[str], special: bool = True) -> list[list[int]]:
        # A chat template writes its own special tokens; plain text gets the tokenizer's.
        given = list(texts)
        if not given:
            return []
        ids: Any = self.tokenizer(given, add_special_tokens=special and not self.chat).input_ids
        return ids

    def _start(self) -> int:
        """What an empty text starts from."""
        begin = self.tokenizer.bos_token_id
        if isinstance(begin, int):
            return begin
        return self.end_id if self.end_id is not None else 0

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


def _goes_on(prompt: list[int], whole: list[int]) -> bool:
    """Whether a text's tokens begin with those of the prompt, and go on."""
    return bool(prompt) and whole[: len(prompt)] == prompt and len(whole) > len(prompt)


def _plain(chat: Chat) -> list[dict[str, str]]:
    return [{"role": message["role"], "content": message["content"]} for message in chat]
