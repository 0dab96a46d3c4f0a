"""A larger model of the embedded world, as a teacher: its base model, grown by layers.

Each new layer is a copy of the one below it whose outputs are first multiplied by 0, so that it
changes nothing (a network morphism, as in Chen et al. 2016, "Net2Net"); then all layers are trained
on documents with long contexts, drawn anew.

    python -m bench.larger --out worlds/larger    # hours on a core; goes on if stopped
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen3ForCausalLM

from ske.config import found
from ske.io import locked
from world.batches import Stage
from world.build import load_world
from world.train import fit, log_to, publish

LAYERS = 10
"""Twice the base model's."""
STAGES = (
    Stage(32, 640, 1, 400_000, 0.61),
    Stage(64, 1152, 1, 900_000, 0.68),
    Stage(128, 2048, 1, 600_000, 0.72),
    Stage(128, 2048, 1, 200_000, 0.95),
)
PEAK_RATE, SAVE_EVERY, LOG_EVERY = 1e-3, 200, 100


def main() -> None:
    """Grow the base model, train it and write it."""
    options = argparse.ArgumentParser(
        "python -m bench.larger",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--world", type=Path, default=Path("world"))
    chosen = options.parse_args()
    grow(found(str(chosen.world)), chosen.out)


def grow(
    folder: Path,
    out: Path,
    stages: tuple[Stage, ...] = STAGES,
    layers: int = LAYERS,
    save_every: int = SAVE_EVERY,
) -> None:
    """The larger model of a world's folder lands in `out`; nothing is done if one is there.

    Raises:
        UserError: the folder holds no world, or another process works in `out`.
    """
    world, work = load_world(folder), out / ".work"
    with locked(out):
        if (out / "config.json").exists():
            return
        work.mkdir(parents=True, exist_ok=True)
        base = Qwen3ForCausalLM.from_pretrained(folder / "model", dtype=torch.float32)
        tokens = AutoTokenizer.from_pretrained(folder / "model")
        assert isinstance(tokens, PreTrainedTokenizerFast)
        model, log = deeper(base, layers), log_to(out / "log.jsonl", LOG_EVERY)
        fit(model, tokens, world, work, log, stages, save_every, PEAK_RATE, "larger-")
        publish(model, tokens, out)
        shutil.rmtree(work)


def deeper(base: Qwen3ForCausalLM, layers: int) -> Qwen3ForCausalLM:
    """A model of that many layers that says exactly what the base says."""
    config = base.config.__class__.from_dict(
        {**base.config.to_dict(), "num_hidden_layers": layers, "layer_types": None}
    )
    model: Any = Qwen3ForCausalLM(config)
    old: int = base.config.num_hidden_layers
    weights = {key: value for key, value in base.state_dict().items() if ".layers." not in key}
    model.load_state_dict(weights, strict=False)
    for number in range(layers):
        source = number * old // layers
        layer = model.model.layers[number]
        layer.load_state_dict(base.model.layers[source].state_dict())
        if number and source == (number - 1) * old // layers:
            for output in (layer.self_attn.o_proj, layer.mlp.down_proj):
                torch.nn.init.zeros_(output.weight)
    return model


if __name__ == "__main__":
    main()
