"""Who answers in a run: transformers, vLLM in this process or a server, and who teaches.

What tells each one's answers from those of others is here, too.
"""

from __future__ import annotations

from pipeline.stage import weights_key
from ske.config import Config, ModelConfig


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
