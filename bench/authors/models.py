"""The small models that both sides are measured on: a GPT-2 and a Llama with random weights."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from bench.facts import facts_of
from ske.backends.local import LocalLM
from ske.config import ModelConfig, found
from ske.types import Fact

WIDTH, INNER, LAYERS, HEADS, LENGTH = 64, 256, 6, 2, 1024
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": LENGTH},
    "llama": {
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "max_position_embeddings": LENGTH,
        "tie_word_embeddings": True,
    },
}
BLOCKS = {"gpt2": "transformer.h.{}", "llama": "model.layers.{}"}
DOWN = {"gpt2": "mlp.c_proj", "llama": "mlp.down_proj"}
EMBEDDINGS = {"gpt2": "transformer.wte", "llama": "model.embed_tokens"}
"""Tied to the output layer."""
NORM = {"gpt2": "transformer.ln_f", "llama": "model.norm"}


def toy(kind: str) -> LocalLM:
    """A model of one of `SHAPES`; it reads plain text, as the authors' codes have it."""
    tokenizer = AutoTokenizer.from_pretrained(found(ModelConfig().path))
    tokenizer.chat_template = None
    tokenizer.padding_side = "right"
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    end = tokenizer.eos_token_id
    config = AutoConfig.for_model(
        kind, **SHAPES[kind], vocab_size=len(tokenizer), eos_token_id=end, bos_token_id=None
    )
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        # So that a change at a subject's last token can reach the answer.
        for name, weight in model.named_parameters():
            if ".attn." in name or "self_attn" in name:
                weight.mul_(8)
    # Names that only GPT-2's configuration has; the authors' codes read them of any model.
    model.config.n_embd = WIDTH
    return LocalLM(model, tokenizer, name=kind)


def corrections(count: int) -> list[Fact]:
    """Facts whose prompts hold their subject once."""
    return facts_of(count)


def requests(facts: list[Fact]) -> list[dict[str, Any]]:
    """The same in the shape that the authors' codes take."""
    return [
        {
            "case_id": fact.id,
            "prompt": fact.prompt.replace(fact.subject, "{}"),
            "subject": fact.subject,
            "target_new": {"str": f" {fact.target_new}"},
        }
        for fact in facts
    ]
