"""A run of the shipped world as a user starts it, small enough for a test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
SMALL = [
    "--set", "edits.limit=4", "--set", "design.max_trials=2", "--set", "teach.free_texts=16",
    "--set", "train.epochs=2", "--set", "eval.capability=3", "--set", "options.lora.epochs=4",
    "--set", "train.min_steps=0", "--set", "options.lora.min_steps=0",
    "--set", "teach.neighbours=3", "--set", "eval.max_probes=2",
    "--set", "eval.fluency_tokens=8",
]  # fmt: skip


def command(out: Path, *more: str, config: str = "configs/demo.yaml") -> list[str]:
    """`ske run` into `out`, as arguments of a process."""
    return [sys.executable, "-m", "pipeline.cli", "run", config, "--out", str(out), *SMALL, *more]


def ske(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a process in the checkout, on one thread and without a network."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        list(arguments), cwd=ROOT, env=env, capture_output=True, text=True, timeout=280, check=False
    )
