"""Who answers in a run: transformers, vLLM in this process or a server, and who teaches.

One engine answers for all methods of a run. Engines differ in the last digits, and what differs
between methods in a table must be the methods.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipeline.stage import weights_key
from ske.config import Config, ModelConfig
from ske.lm import LM
from ske.types import NeedsWeights

if TYPE_CHECKING:
    from pipeline.run import Run


class Asked(NamedTuple):
    """Who is asked the probes."""

    lm: Callable[[], LM]
    """Loads it when there is something to ask."""
    key: str
    """What tells its answers from those of others."""


def ready(model: ModelConfig) -> None:
    """See that the backend can be had, before anything is loaded.

    Raises:
        UserError: something is not installed, or a key is missing.
    """
    if model.backend == "vllm":
        from ske.backends import vllm

        vllm.ready()
    if model.server is not None and model.backend == "openai":
        from ske.backends import server

        server.ready(model.server)


def base_key(model: ModelConfig) -> str:
    """What tells the base model's answers, by its backend, from those of others."""
    own = weights_key(model)
    return f"{own} by vllm {model.engine}" if model.backend == "vllm" else own


def other_teacher(config: Config) -> ModelConfig | None:
    """The model of this process that teaches instead of the edited one; None if none does."""
    if config.teach.model is None:
        return None
    own = {"path": config.teach.model, "backend": "transformers", "engine": {}}
    return config.model.model_copy(update=own)


def tells(config: Config) -> bool:
    """Whether the teacher's distribution can surely be had, over the edited model's tokens."""
    from ske.backends.common import load_tokenizer

    if config.model.backend == "openai":
        return False  # Not every server has one to tell.
    if (other := other_teacher(config)) is None:
        return True
    return load_tokenizer(other).get_vocab() == load_tokenizer(config.model).get_vocab()


def teacher_key(config: Config) -> str:
    """The same of the teacher, who may be another model, or on a server."""
    model = other_teacher(config) or config.model
    if model.backend != "openai" or model.server is None:
        return base_key(model)
    return f"{model.server.model} at {model.server.base_url}"


def asked(run: Run, edits: Sequence[Path]) -> Asked:
    """Who is asked in a run with these edits: the backend, if it can take every one of them."""
    model = run.config.model
    by_weights = Asked(lambda: run.lm, weights_key(model))
    if model.backend != "vllm":
        return by_weights
    from methods.table import load_edit

    try:
        for folder in edits:
            with load_edit(folder).applied(run.base):
                pass
    except NeedsWeights as error:
        run.console.print(f"  transformers answers for all methods: {error}", highlight=False)
        return by_weights
    return Asked(lambda: run.base, base_key(model))
