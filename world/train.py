"""The recipe of the base model: pre-trains a small Qwen3 on the world's text, from nothing.

Writes a folder that `AutoModelForCausalLM` and `AutoTokenizer` load; a checkpoint beside it lets a
killed build go on where it was. Every step's text is drawn from (seed, step), so a resumed build
reads the same text as an uninterrupted one.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from world.batches import Batch, Stage, context_batch, plain_batch
from world.documents import Writer
from world.population import World
from world.tokenizer import end_id, pad_id
from world.tokenizer import train as train_tokenizer

VOCABULARY = 2304
STAGES = (
    Stage(2, 96, 8, 1_000_000, 0.15),
    Stage(4, 128, 6, 900_000, 0.30),
    Stage(8, 192, 4, 1_000_000, 0.52),
    Stage(16, 352, 2, 1_300_000, 0.60),
    Stage(32, 640, 1, 1_400_000, 0.61),
    Stage(64, 1152, 1, 1_600_000, 0.68),
    Stage(128, 2048, 1, 800_000, 0.72),
    Stage(128, 2048, 1, 350_000, 0.95),
)
PEAK_RATE, DECAY_SHARE, WARMUP = 2e-3, 0.25, 300
PLAIN_ROWS, PLAIN_LENGTH = 8, 96
Progress = Callable[[int, int, dict[str, float]], None]


def schedule(seed: int, stages: tuple[Stage, ...] = STAGES) -> list[tuple[int, bool]]:
    """What each step reads: (stage number, whether it is a step without contexts)."""
    rng = random.Random(f"schedule-{seed}")
    steps: list[tuple[int, bool]] = []
    for number, stage in enumerate(stages):
        done = 0
        while done < stage.tokens:
            plain = rng.random() < stage.plain
            steps.append((number, plain))
            done += 0 if plain else stage.rows * stage.length
    return steps


def learning_rate(step: int, total: int, peak: float = PEAK_RATE) -> float:
    """Warm-up, a constant stretch, and a linear decay over the last 25 %."""
    tail = DECAY_SHARE * total
    return peak * min(1.0, (step + 1) / WARMUP, max(0.02, (total - step) / tail))


def new_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """Train the tokenizer; every name of the world comes often enough to get a token."""
    writer = Writer(world, seed=0)
    names = sorted({part for name in world.values for part in name.split()})
    names += sorted({part for name in world.aliases.values() for part in name.split()})
    texts = [f"{name} {name}" for name in names for _ in range(20)]
    texts += [f"{q.prompt} {q.answer}." for q in (writer.plain() for _ in range(30_000))]
    texts += [writer.contextual(12, 0).context for _ in range(1_500)]
    return train_tokenizer(texts, VOCABULARY)


def pieces(tokens: PreTrainedTokenizerFast) -> list[str]:
    """The tokenizer's parts of words: every token that is letters alone, in a fixed order."""
    texts = {str(tokens.decode([number])).strip() for number in range(len(tokens))}
    return sorted(text for text in texts if text.isalpha())


def new_model(tokens: PreTrainedTokenizerFast, seed: int) -> Qwen3ForCausalLM:
    """A Qwen3 of 2.7 M parameters, initialised from a seed."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokens),
        hidden_size=192,
        num_attention_heads=3,
        num_key_value_heads=3,
        head_dim=64,
        num_hidden_layers=5,
        intermediate_size=512,
        tie_word_embeddings=True,
        initializer_range=0.04,
        max_position_embeddings=4096,
        eos_token_id=end_id(tokens),
        pad_token_id=pad_id(tokens),
        bos_token_id=None,
    )
    return Qwen3ForCausalLM(config)


def train(
    world: World,
    out: Path,
    work: Path,
    progress: Progress,
    stages: tuple[Stage, ...] = STAGES,
    save_every: int = 500,
) -> None:
    """Train to the end of the schedule, or go on from `work`; the model lands in `out`."""
    work.mkdir(parents=True, exist_ok=True)
    tokens = new_tokenizer(world)
    model = new_model(tokens, world.seed)
    fit(model, tokens, world, work, progress, stages, save_every)
    publish(model, tokens, out)


def fit(
    model: Qwen3ForCausalLM,
    tokens: PreTrainedTokenizerFast,
    world: World,
    work: Path,
    progress: Progress,
    stages: tuple[Stage, ...],
    save_every: int,
    peak: float = PEAK_RATE,
    name: str = "",
) -> None:
    """Train a model of the world to the end of the schedule, or on from `work`.

    `peak` is the highest learning rate; another `name` draws other texts.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.02, fused=True
    )
    first = _restore(work / "checkpoint.safetensors", model, optimizer)
    steps = schedule(world.seed, stages)
    writer = Writer(world, world.seed, pieces(tokens))
    seen: dict[str, float] = {}
    for step in range(first, len(steps)):
        writer.rng.seed(f"{name}{world.seed}-{step}")
        number, plain = steps[step]
        if plain:
            batch = plain_batch(writer, tokens, PLAIN_ROWS, PLAIN_LENGTH)
        else:
            batch = context_batch(writer, tokens, stages[number])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, len(steps), peak)
        _note(seen, _step(model, optimizer, batch), "plain" if plain else "context")
        if (step + 1) % save_every == 0:
            _save(work / "checkpoint.safetensors", model, optimizer, step + 1)
        progress(step + 1, len(steps), seen)


def _step(
    model: Qwen3ForCausalLM, optimizer: torch.optim.Optimizer, batch: Batch
) -> dict[str, list[float]]:
    """One update; returns, by kind of question, whether each answer was right token for token."""
    logits = model(
        input_ids=batch.ids,
        attention_mask=batch.mask,
        position_ids=batch.positions,
        use_cache=False,
    ).logits[:, :-1]
    targets, weights = batch.ids[:, 1:], batch.weights[:, 1:]
    losses = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    loss = (losses * weights.flatten()).sum() / weights.sum()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    hits = (logits.argmax(-1) == targets).tolist()
    right: dict[str, list[float]] = {"loss": [loss.item()]}
    for row, start, end, kind in batch.spans:
        right.setdefault(kind, []).append(100.0 * all(hits[row][start - 1 : end - 1]))
    return right


def _note(seen: dict[str, float], right: dict[str, list[float]], side: str) -> None:
    """Keep running means by (side, kind)."""
    for kind, values in right.items():
        mean = sum(values) / len(values)
        key = f"{side} {kind}"
        seen[key] = mean if key not in seen else 0.97 * seen[key] + 0.03 * mean


def _save(path: Path, model: Qwen3ForCausalLM, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Weights and optimizer state in one safetensors file; `step` is the next one to take."""
    tensors = {f"model.{name}": weight.data for name, weight in model.named_parameters()}
    for number, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{key}": value for key, value in state.items()}
    save_file(tensors, path.with_suffix(".tmp"), metadata={"step": str(step)})
    path.with_suffix(".tmp").replace(path)


def _restore(path: Path, model: Qwen3ForCausalLM, optimizer: torch.optim.Optimizer) -> int:
    if not path.exists():
        return 0
    states: dict[int, dict[str, torch.Tensor]] = {}
    with safe_open(path, framework="pt") as file, torch.no_grad():
        for name in file.keys():  # noqa: SIM118 (not a dict)
            side, rest = name.split(".", 1)
            if side == "model":
                model.get_parameter(rest).copy_(file.get_tensor(name))
            else:
                number, key = rest.split(".")
                states.setdefault(int(number), {})[key] = file.get_tensor(name)
        step = int(file.metadata()["step"])
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": states, "param_groups": groups})
    return step


def publish(model: Qwen3ForCausalLM, tokens: PreTrainedTokenizerFast, out: Path) -> None:
    """Save a model with its tokenizer."""
    model.generation_config.eos_token_id = tokens.eos_token_id
    model.generation_config.pad_token_id = tokens.pad_token_id
    model.save_pretrained(out, safe_serialization=True)
    tokens.save_pretrained(out)


def log_to(path: Path, every: int) -> Progress:
    """A progress callback that appends a line of running figures to a log."""

    def write(step: int, total: int, seen: dict[str, float]) -> None:
        if step % every == 0:
            figures = {key: round(value, 3) for key, value in sorted(seen.items())}
            with path.open("a", encoding="utf-8") as log:
                log.write(json.dumps({"step": step, "of": total, **figures}) + "\n")

    return write
