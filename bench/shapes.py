"""Models of known shapes with random weights: the embedded world's tokenizer, nothing downloaded.

The numbers are those of the published `config.json` files. What is measured on such a model takes
as long, and as much memory, as on the trained one; what it says is noise.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ske.backends.local import LocalLM
from ske.config import ModelConfig, found

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "tiny": (
        "llama",
        {
            "vocab_size": 2304,
            "hidden_size": 64,
            "intermediate_size": 192,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": True,
        },
    ),
    "middle": (
        "llama",
        {
            "vocab_size": 2304,
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 4,
            "num_attention_heads": 12,
            "num_key_value_heads": 4,
            "max_position_embeddings": 4096,
            "tie_word_embeddings": True,
        },
    ),
    "Qwen2.5-0.5B": (
        "qwen2",
        {
            "vocab_size": 151936,
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "max_position_embeddings": 32768,
            "tie_word_embeddings": True,
        },
    ),
    "Llama-3.2-1B": (
        "llama",
        {
            "vocab_size": 128256,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "tie_word_embeddings": True,
        },
    ),
    "Llama-3.1-8B": (
        "llama",
        {
            "vocab_size": 128256,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "tie_word_embeddings": False,
        },
    ),
}
"""Name -> transformers' model type, and its configuration."""


def random_model(
    shape: str, device: str = "cpu", dtype: torch.dtype = torch.float32, **changes: Any
) -> LocalLM:
    """A model of a shape in `SHAPES`, the same weights every time; `changes` to its numbers."""
    kind, numbers = SHAPES[shape]
    tokenizer = AutoTokenizer.from_pretrained(found(ModelConfig().path))
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = AutoConfig.for_model(kind, **{**numbers, **ends, "bos_token_id": None, **changes})
    torch.manual_seed(0)
    with torch.device(device):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return LocalLM(model, tokenizer, name=shape)
