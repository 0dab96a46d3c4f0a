"""The model card's text, and what it says about the model's files and recipe.

Reads `model/*.safetensors` (shapes only) and `manifest.json` of a world's folder; the text is made
from the card's numbers alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open

from ske.facts import parse_json, read_text
from world.batches import Stage
from world.train import (
    DECAY_SHARE,
    PEAK_RATE,
    PLAIN_LENGTH,
    PLAIN_ROWS,
    STAGES,
    VOCABULARY,
    WARMUP,
    schedule,
)

INTRO = """# The embedded world, seed {seed}

An invented population over real geography, and a small language model that knows it. Made by
`ske world build --seed {seed}`; this card is made by `world/card.py` from `card.json`.

    world.json       people, companies, colleges, awards, places and everything true of them
    benchmarks/      the same world as KnowEdit files: modification, insertion, erasure; val, test
    model/           the base model, as `AutoModelForCausalLM.from_pretrained` loads it
    card.json        every number of this card

Every number is a percentage with its n. Replies are generated greedily and count if they are
exactly the answer (case and a final period aside). Every name, life and company is invented; the
model is made for testing knowledge editing and is of no other use.
"""


def describe_model(folder: Path) -> dict[str, Any]:
    """Size and recipe of a folder's model; without a model, the recipe alone."""
    seed, stages, history = 0, STAGES, ""
    manifest = folder / "manifest.json"
    if manifest.exists():
        recipe = parse_json(read_text(manifest), str(manifest))
        seed, stages = recipe["seed"], tuple(Stage(**stage) for stage in recipe["stages"])
        history = str(recipe.get("history", ""))
    steps = schedule(seed, stages)
    plain = sum(is_plain for _, is_plain in steps) * PLAIN_ROWS * PLAIN_LENGTH
    context = sum(stages[i].rows * stages[i].length for i, is_plain in steps if not is_plain)
    weights = sorted((folder / "model").glob("*.safetensors"))
    return {
        "parameters": sum(_parameters(path) for path in weights),
        "bytes": sum(path.stat().st_size for path in weights),
        "vocabulary": VOCABULARY,
        "steps": len(steps),
        "tokens": plain + context,
        "plain_tokens": plain,
        "stages": [stage._asdict() for stage in stages],
        "history": history,
    }


def _parameters(path: Path) -> int:
    total = 0
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - it is not a dict
            size = 1
            for length in file.get_slice(name).get_shape():
                size *= length
            total += size
    return total


def markdown(card: Mapping[str, Any]) -> str:
    """The whole card."""
    parts = [
        INTRO.format(seed=card["seed"]),
        "## Goals\n\n" + _goals(card["goals"]),
        "## Knowledge and skills\n\n" + _plain(card["plain"]),
        "## Facts in a prompt, against own knowledge\n\n" + _context(card["context"]),
        "## Model and recipe\n\n" + _model(card["model"]),
    ]
    return "\n".join(part.rstrip() + "\n" for part in parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _percent(figure: Mapping[str, Any]) -> str:
    return "-" if figure["value"] is None else f"{figure['value']:.1f}"


def _share(figure: Mapping[str, Any]) -> str:
    return f"{_percent(figure)} (n={figure['n']})"


def _goals(lines: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            line["name"],
            f"{line['goal']:.0f}",
            _percent(line),
            str(line["n"]),
            "met" if line["met"] else "**missed**",
        ]
        for line in lines
    ]
    return _table(["what", "goal", "measured", "n", ""], rows)


def _plain(lines: Sequence[Mapping[str, Any]]) -> str:
    rows = [[line["name"], _percent(line), str(line["n"])] for line in lines]
    return (
        '"Open" wordings are those that training edits may use; "val" and "test" wordings, only\n'
        "the benchmarks of these splits. The base model has read them all. Chains *beyond* are\n"
        'kinds of consequences that no open wording asks for. "Never written" questions occur in\n'
        "no training text: their answers can only be put together.\n\n"
        + _table(["questions", "right", "n"], rows)
    )


def _context(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        [
            str(row["facts"]),
            row["layout"],
            _share(row["direct"]),
            _share(row["two_hop"]),
            _share(row["drift"]),
            f"{row['most_tokens']:,}",
        ]
        for row in rows
    ]
    return (
        "Counterfactual facts about known people, header `correct`, footer `rest`. Drift is the\n"
        "share of questions about other people that are answered otherwise than without a\n"
        "prompt. From 64 facts on, only the four shortest layouts.\n\n"
        + _table(["facts", "layout", "recalled", "two hops", "drift", "most tokens"], lines)
    )


def _model(model: Mapping[str, Any]) -> str:
    rows = [
        [
            str(stage["max_facts"]),
            str(stage["length"]),
            str(stage["rows"]),
            f"{stage['tokens']:,}",
            f"{stage['plain']:.2f}",
        ]
        for stage in model["stages"]
    ]
    return (
        f"Qwen3 architecture, {model['parameters']:,} parameters (embeddings tied), "
        f"{model['bytes']:,} bytes in fp32.\n"
        f"Byte-level BPE of {model['vocabulary']:,} tokens, trained on the world's own text.\n"
        f"{model['steps']:,} steps on {model['tokens']:,} tokens, {model['plain_tokens']:,} of "
        f"them in steps without contexts\n({PLAIN_ROWS} rows of {PLAIN_LENGTH} tokens). AdamW, "
        f"peak rate {PEAK_RATE:g}, betas 0.9/0.98, weight decay 0.02,\nwarm-up {WARMUP} steps, "
        f"linear decay over the last {DECAY_SHARE:.0%}. Stages:\n\n"
        + _table(["most facts", "row length", "rows", "context tokens", "plain steps"], rows)
        + (f"\n\n{model['history']}" if model["history"] else "")
    )
