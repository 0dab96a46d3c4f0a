"""The larger teacher: a grown model begins as the base model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Qwen3ForCausalLM

from bench.larger import deeper, grow
from world.build import quick_stages

WORLD = Path(__file__).parent.parent / "world"


def test_new_layers_change_nothing_at_first() -> None:
    base = Qwen3ForCausalLM.from_pretrained(WORLD / "model", dtype=torch.float32)
    larger: Any = deeper(base, 8)
    ids = torch.arange(40).reshape(2, 20) + 100
    with torch.no_grad():
        assert torch.equal(base(ids).logits, larger(ids).logits)
    assert len(larger.model.layers) == larger.config.num_hidden_layers == 8
    new = sum(not layer.mlp.down_proj.weight.any() for layer in larger.model.layers)
    assert new == 8 - base.config.num_hidden_layers


def test_a_grown_model_is_trained_and_saved(tmp_path: Path) -> None:
    grow(WORLD, tmp_path / "larger", quick_stages(), layers=6, save_every=1)
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "larger")
    assert len(model.model.layers) == 6
    assert all(layer.mlp.down_proj.weight.any() for layer in model.model.layers)
    assert not (tmp_path / "larger" / ".work").exists()
    before = (tmp_path / "larger" / "model.safetensors").stat().st_mtime_ns
    grow(WORLD, tmp_path / "larger")
    assert (tmp_path / "larger" / "model.safetensors").stat().st_mtime_ns == before
