"""Fluency of what a model writes freely: the n-gram entropy of ROME's authors, and its share.

Meng et al. (2022, arXiv 2202.05262) let a model go on behind the edit's prompt, drawing among the
5 most likely tokens, and take (2/3 H2 + 4/3 H3) / 2, where Hn is the entropy in bits of the text's
n-grams of words. A model that an edit has broken says the same words again and again.

- `fluency_entropy` is that number times 100, as EasyEdit writes it. It grows with the length.
- `fluency` is its share in percent of what a text of so many words can reach, all n-grams
  different; so it has no unit, and hardly depends on the length.

More is not always better: noise repeats nothing. Read either beside the base model's. Pure.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from eval.words import spaced
from ske.lm import Sampling

FLUENCY, ENTROPY = "fluency", "fluency_entropy"
WEIGHTS = {2: 2 / 3, 3: 4 / 3}
"""n -> the weight of its entropy."""
_TOP_K = 5
_SEED = 20_202
_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*|[^\w\s]")
"""Words and marks. nltk's `word_tokenize`, which the authors use, also cuts "isn't" in two."""


class Fluency(NamedTuple):
    """Of one text."""

    entropy: float
    """In hundredths of a bit, from 0."""
    share: float
    """In percent; 0 for a text with no two trigrams to compare."""


def sampling(tokens: int) -> Sampling:
    """How a text is drawn: as ROME's authors do, its end held back until it is long enough."""
    return Sampling(
        max_new_tokens=tokens, min_new_tokens=tokens, temperature=1.0, top_k=_TOP_K, seed=_SEED
    )


def fluency(text: str) -> Fluency:
    """Both numbers of a text."""
    words = _WORD.findall(spaced(text))
    grams = {n: [tuple(words[i : i + n]) for i in range(len(words) - n + 1)] for n in WEIGHTS}
    found = _weighted({n: _entropy(own) for n, own in grams.items()})
    most = _weighted({n: math.log2(max(len(own), 1)) for n, own in grams.items()})
    return Fluency(100 * found, 100 * min(found / most, 1.0) if most else 0.0)


def _weighted(bits: dict[int, float]) -> float:
    return math.fsum(WEIGHTS[n] * value for n, value in bits.items()) / len(bits)


def _entropy(grams: Sequence[tuple[str, ...]]) -> float:
    """In bits."""
    shares = [count / len(grams) for count in Counter(grams).values()]
    return -math.fsum(share * math.log2(share) for share in shares) + 0.0
