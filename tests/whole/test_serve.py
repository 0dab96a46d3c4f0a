"""A design decided by `transformers serve`, which ignores JSON schemas; then without it."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from realserver import MODEL, asked_again, design, made, replays, serving

MISSING = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING),
        reason=f"transformers serve needs {' and '.join(MISSING)}: pip install -e '.[dev]'",
    ),
]


def command(port: int) -> Sequence[str]:
    place = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32"]
    run = "from transformers.cli.transformers import main; main()"
    return [sys.executable, "-c", run, "serve", str(MODEL), *place]


def test_a_design_by_transformers_serve_and_again_without_it(tmp_path: Path) -> None:
    first = tmp_path / "first"
    with serving(command, tmp_path) as url:
        said = design(first, url, str(MODEL))
        assert said.returncode == 0, said.stderr
    found = made(first)
    assert found.design.turns.brain == str(MODEL)
    assert found.design.turns.by_rules, "this model cannot decide anything"
    assert not any(call["refused"] for call in found.calls)
    assert all(call["tokens"] > 0 for call in found.calls)
    again = asked_again(found.calls)
    assert again and all("JSON object" in text for text in again)
    replays(first, tmp_path / "other", url, str(MODEL))
