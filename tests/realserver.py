"""A real server of the world's model as a process of its own, and a design that it decides.

The model is too small to decide anything, so this shows the protocol: replies that cannot be used
are asked for again with the reason, then the rules decide, and the finished design needs no server.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from agents.records import Design
from ske.io import read_rows

ROOT = Path(__file__).parent.parent
MODEL = ROOT / "world" / "model"
LONGEST_START = 600
"""Seconds that a server may take to load."""
OFFLINE = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"}
SHORT = (
    "edits.limit=2", "design.max_trials=1", "design.max_repairs=0", "design.layouts=[triples]",
    "teach.free_tokens=4", "design.brain=model",
)  # fmt: skip


class Made(NamedTuple):
    """What a design left."""

    design: Design
    prompts: list[str]
    calls: list[dict[str, Any]]


@contextmanager
def serving(command: Callable[[int], Sequence[str]], folder: Path) -> Iterator[str]:
    """The URL of the server that `command` starts on a port; `folder` gets its log."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "server.log"
    with log.open("w") as file:
        env = {**os.environ, **OFFLINE, "HF_HOME": str(folder / "hub")}
        server = subprocess.Popen(command(port), stdout=file, stderr=subprocess.STDOUT, env=env)
    try:
        _wait(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + LONGEST_START
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(1)
    raise AssertionError(log.read_text()[-3000:])


def design(out: Path, url: str, model: str) -> subprocess.CompletedProcess[str]:
    """`ske run --stage design` with a small design, decided by the model at `url`."""
    place = f"{{base_url: {url}, model: {model}, max_tokens: 32, retries: 1}}"
    sets = [part for key in (*SHORT, f"design.endpoint={place}") for part in ("--set", key)]
    command = ["run", "configs/demo.yaml", "--stage", "design", "--out", str(out), *sets]
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *command],
        cwd=ROOT,
        env={**os.environ, **OFFLINE},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def made(out: Path) -> Made:
    """A finished design, which has to be sound whoever decided."""
    folder = out / "stages" / "design"
    found = Design.model_validate_json((folder / "design.json").read_text(encoding="utf-8"))
    facts = read_rows(out / "stages" / "facts" / "facts.jsonl")
    prompts = [path.read_text("utf-8") for path in sorted((folder / "prompts").iterdir())]
    assert sorted(i for pack in found.packs for i in pack.fact_ids) == sorted(
        f["id"] for f in facts
    )
    assert all(fact["target_new"] in "".join(prompts) for fact in facts)
    calls = read_rows(folder / "items" / "calls.jsonl")
    assert calls
    events = [row for row in read_rows(folder / "trace.jsonl") if row["attempts"]]
    fallen = [row for row in events if row["brain"] == "rules"]
    assert found.turns.asked == len(events)
    assert sum(found.turns.by_rules.values()) == len(fallen)
    assert all("the rules decided" in row["notes"][-1] for row in fallen)
    return Made(found, prompts, calls)


def asked_again(calls: Sequence[dict[str, Any]]) -> list[str]:
    """The questions that say what was wrong with the last reply."""
    texts = [call["messages"][-1]["content"] for call in calls]
    return [text for text in texts if "Your last reply, attempt 1 of 2, could not be used" in text]


def replays(first: Path, other: Path, url: str, model: str) -> None:
    """Where the server is gone: a new design is told so, and one with all replies needs none."""
    alone = design(other, url, model)
    assert (alone.returncode, "Traceback" in alone.stderr) == (2, False), alone.stderr
    for part in (url, "cannot be reached", "tried 2 times", "design.brain=rules"):
        assert part in " ".join(alone.stderr.split())
    items = Path("stages", "design", "items")
    shutil.copytree(first / items, other / items, dirs_exist_ok=True)
    again = design(other, url, model)
    assert again.returncode == 0, again.stderr
    assert made(other) == made(first)
    trace = read_rows(other / "stages" / "design" / "trace.jsonl")
    assert all(row["cached"] for row in trace if row["attempts"])
