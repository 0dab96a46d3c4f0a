"""What backends share: the tokenizer, and how ids and rows of probabilities become answers."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence

from transformers import AutoTokenizer, PreTrainedConfig
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from ske.backends.render import Renderer
from ske.config import ModelConfig, found
from ske.lm import Reply, Sampling, Scored
from ske.types import TooLong, UserError


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """The tokenizer of the edited model.

    Raises:
        UserError: there is none, or it cannot be loaded.
    """
    path = found(config.path)
    try:
        return AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise UserError(unloadable(config, error)) from error


def see_folder(config: ModelConfig) -> None:
    """Raises UserError if the model's path is a folder, but none of a model."""
    path = found(config.path)
    if path.exists() and not (path / "config.json").exists():
        raise UserError(
            f"model.path = {config.path!r}: no config.json in this folder; give a folder "
            "that AutoModelForCausalLM loads, or a hub id"
        )


def unloadable(config: ModelConfig, error: Exception) -> str:
    """Why a model or its tokenizer is not to be had, in a line."""
    where = "" if found(config.path).is_dir() else "not a folder here, and as a hub id it "
    first = (str(error).splitlines() or [type(error).__name__])[0]
    return f"model.path = {config.path!r}: {where}cannot be loaded ({first})"


def window_of(config: PreTrainedConfig) -> int | None:
    """The most tokens a model can read; None if its configuration sets no limit."""
    # Models without positions (state space models) have no such entry.
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def refuse_beyond(window: int | None, sizes: Iterable[tuple[int, int]], whose: str) -> None:
    """See that questions and their answers, in tokens, fit into a context window.

    Raises:
        TooLong: one does not.
    """
    for question, answer in sizes:
        if window is not None and question + answer > window:
            raise TooLong(
                f"{whose}: a question of {question} tokens and {answer} for its answer are more "
                f"than the model's context window of {window}; use shorter or fewer facts, or a "
                "model that reads more"
            )


def reply_of(
    renderer: Renderer,
    prompt: Sequence[int],
    ids: Sequence[int],
    ends: Collection[int],
    sampling: Sampling,
) -> Reply:
    """What was said, from generated ids: up to an end token or a stop text."""
    said = list(itertools.takewhile(lambda token: token not in ends, ids))
    text, cut = before_stop(renderer.decode(said), sampling.stop)
    return Reply(text, len(prompt), len(said), cut or len(said) < len(ids))


def before_stop(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """A reply without what follows a stop text, and whether it had one."""
    cut = False
    for mark in stop:
        if mark in text:
            text, cut = text.split(mark)[0].strip(), True
    return text, cut


def scored_of(answer: Sequence[int], rows: Sequence[Mapping[int, float]], top_k: int) -> Scored:
    """An answer's scores from one {token: log-probability} a position.

    Each row holds the answer's own token and at least the `top_k` most likely ones (and the most
    likely one in any case).
    """
    best = [sorted(row.items(), key=lambda entry: -entry[1]) for row in rows]
    return Scored(
        list(answer),
        [row[token] for row, token in zip(rows, answer, strict=True)],
        [entries[0][0] for entries in best],
        [[token for token, _ in entries[:top_k]] for entries in best],
        [[value for _, value in entries[:top_k]] for entries in best],
    )


def seed_of(seed: int, number: int) -> int:
    """A seed of its own for each question of a call: one chat asked twice is answered twice.

    Hashed, so that calls with neighbouring seeds have no question's seed in common.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}-{number}".encode()).digest()[:4]) >> 1
