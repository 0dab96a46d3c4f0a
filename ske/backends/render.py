"""Chats and answers -> token ids, for models with a chat template and for plain ones.

A plain model reads a chat as a text to complete: the system message, a blank line, the question;
the answer follows after a space. A chat model reads its own template; where that has no place for a
system message (Gemma's), its text stands before the first question.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from ske.backends.encoding import encode
from ske.lm import Chat, Pair
from ske.types import UserError

_MARK = "\u2042"
"""Stands for an answer while the template's text around it is read; occurs in no template."""

_REMEMBERED = 4096
"""Texts of chats that are kept."""


class Renderer:
    """Turns chats into ids for one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, style: str = "auto") -> None:
        """`style` is "chat", "plain" or "auto" (the chat template, if the tokenizer has one).

        Raises:
            UserError: There is no template to chat by, or it takes no question and answer.
        """
        self.tokenizer = tokenizer
        self.chat = tokenizer.chat_template is not None if style == "auto" else style == "chat"
        if self.chat and tokenizer.chat_template is None:
            raise UserError("model.style=chat: the tokenizer has no chat template; use plain")
        # The same chats are rendered for a reply and for scores; a template costs more than a look.
        self._texts = lru_cache(maxsize=_REMEMBERED)(self._text)
        self._has_system = not self.chat or self._shows_system()
        ends: Any = tokenizer.eos_token_id
        self.end_id: int | None = ends[0] if isinstance(ends, list) else ends
        """What ends a reply: of a chat template its end of turn, else the tokenizer's end."""
        self.joiner = " "
        if self.chat:
            self.joiner, after = self._around_answer()
            self.end_id = self._end_of_turn(after, self.end_id)

    def text(self, chat: Chat) -> str:
        """The text that the answer follows."""
        return self._texts(tuple((message["role"], message["content"]) for message in chat))

    def _text(self, turns: tuple[tuple[str, str], ...]) -> str:
        if self.chat:
            return self._templated(turns if self._has_system else _without_system(turns), True)
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
        return encode(self.tokenizer, list(texts), special and not self.chat)

    def _start(self) -> int:
        """What an empty text starts from."""
        begin = self.tokenizer.bos_token_id
        if isinstance(begin, int):
            return begin
        return self.end_id if self.end_id is not None else 0

    def _templated(self, turns: Sequence[tuple[str, str]], goes_on: bool) -> str:
        """The template's text; `goes_on` asks for the beginning of a reply.

        Raises:
            UserError: The template refuses the turns.
        """
        messages = [{"role": role, "content": content} for role, content in turns]
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=goes_on
            )
        except TemplateError as error:
            roles = ", ".join(role for role, _ in turns)
            raise UserError(
                f"the model's chat template does not take the turns {roles} ({error}); "
                "model.style=plain asks without it"
            ) from error
        assert isinstance(text, str)
        return text

    def _shows_system(self) -> bool:
        """Whether the template has a place for a system message; some refuse it, some drop it."""
        try:
            return _MARK in self._templated((("system", _MARK), ("user", "?")), True)
        except UserError:
            return False

    def _around_answer(self) -> tuple[str, str]:
        """What a template puts between prompt and answer, usually nothing, and after the answer."""
        question = ("user", "?")
        before = self._templated((question,), True)
        whole = self._templated((question, ("assistant", _MARK)), False)
        joiner, mark, after = whole[len(before) :].partition(_MARK)
        if not whole.startswith(before) or not mark:
            return "", whole.partition(_MARK)[2]
        return joiner, after

    def _end_of_turn(self, after: str, otherwise: int | None) -> int | None:
        """The special token that a template puts right behind an answer, if it does."""
        ids: Any = self.tokenizer(after, add_special_tokens=False).input_ids if after else []
        tokenizer: Any = self.tokenizer
        special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
        return ids[0] if ids and ids[0] in special else otherwise


def _without_system(turns: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The system messages' texts before the first user message's."""
    system = [content for role, content in turns if role == "system"]
    rest = [turn for turn in turns if turn[0] != "system"]
    first = next((i for i, (role, _) in enumerate(rest) if role == "user"), None)
    if not system or first is None:
        return [*(("user", text) for text in system), *rest]
    rest[first] = ("user", "\n\n".join([*system, rest[first][1]]))
    return rest


def _goes_on(prompt: list[int], whole: list[int]) -> bool:
    """Whether a text's tokens begin with those of the prompt, and go on."""
    return bool(prompt) and whole[: len(prompt)] == prompt and len(whole) > len(prompt)
