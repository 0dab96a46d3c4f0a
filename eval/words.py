"""Where words are in scripts that put no blanks between them."""

from __future__ import annotations

import re

_UNSPACED = re.compile(
    "(["
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Myanmar, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"  # kana and marks of repetition
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
    "])"
)


def spaced(text: str) -> str:
    """The text with blanks around each character of such a script: every one counts as a word.

    So a name within a sentence is found, as a run of words, and so are parts of it.
    """
    return _UNSPACED.sub(r" \1 ", text)
