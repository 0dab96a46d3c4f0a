"""Texts to token ids; where many begin alike, what they share is read once.

A PROMPT of a thousand tokens before thousands of questions is more work for a tokenizer than all
the questions. Tokenizers split at the end of a line, so texts can be cut there; whether this one
does is tried on some of the texts before it is relied upon.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

_HEAD = 64
"""Characters that texts have in common if they are taken to begin alike."""
_WORTH = 20_000
"""Characters that are read again and again; fewer are not worth the trouble."""
_TRIED = 3


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], special: bool
) -> list[list[int]]:
    """The ids of each text; `special` adds the tokens that the tokenizer puts around a text."""
    alike: dict[str, list[int]] = {}
    for number, text in enumerate(texts):
        alike.setdefault(text[:_HEAD], []).append(number)
    found: list[list[int]] = [[] for _ in texts]
    rest: list[int] = []
    for members in alike.values():
        ids = _cut(tokenizer, [texts[n] for n in members], special)
        if ids is None:
            rest += members
        for number, own in zip(members, ids or [], strict=False):
            found[number] = own
    for number, own in zip(rest, _whole(tokenizer, [texts[n] for n in rest], special), strict=True):
        found[number] = own
    return found


def alike(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many items two texts, or two rows of ids, begin with alike."""
    same = zip(one, other, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], same))


def _cut(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], special: bool
) -> list[list[int]] | None:
    """The same, by halves; None if there is nothing to gain, or the halves are not the whole."""
    end = _end(texts)
    if end * (len(texts) - 1) < _WORTH:
        return None
    (head,) = _whole(tokenizer, [texts[0][:end]], special)
    found = [[*head, *own] for own in _whole(tokenizer, [text[end:] for text in texts], False)]
    some = range(0, len(texts), max(1, len(texts) // _TRIED))
    tried = _whole(tokenizer, [texts[n] for n in some], special)
    return found if tried == [found[n] for n in some] else None


def _end(texts: Sequence[str]) -> int:
    """Where to cut: the last end of a line in what all begin with; no blank may follow it."""
    end = alike(min(texts), max(texts))
    while end := texts[0].rfind("\n", 0, end) + 1:
        if not any(text[end : end + 1].isspace() for text in texts):
            return end
        end -= 1
    return 0


def _whole(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], special: bool
) -> list[list[int]]:
    if not texts:
        return []
    ids: Any = tokenizer(list(texts), add_special_tokens=special).input_ids
    return ids
