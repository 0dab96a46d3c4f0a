"""Other methods' edits and answers, made by a process beside the student's training."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from pipeline import asking, edits, meanwhile
from pipeline.run import Run
from ske.config import parse, resolved
from ske.io import read_rows, write_text

FACTS = [
    {"subject": name, "prompt": f"The capital of {name} is", "target_new": target}
    for name, target in (("Ruria", "London"), ("Velland", "Vell"))
]


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine with two threads, whose numbers are noted instead of used."""
    used: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    return used


def run_of(folder: Path, model: Path, **how: Any) -> Run:
    path = folder / "facts.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, FACTS)), encoding="utf-8")
    tree: dict[str, Any] = {
        "data": {"path": str(path)},
        "model": {"path": str(model), "style": "plain"},
        "edits": {"limit": None},
        "methods": ["base", "prompt", "ft_m", "ske"],
        "options": {"ft_m": {"epochs": 2, "layers": [0]}},
        "design": {"max_repairs": 0, "max_trials": 1, "layouts": ["prose"]},
        "teach": {"neighbours": 2, "free_texts": 2, "free_tokens": 4, "exceptions": 0},
        "train": {"rank": 2, "min_steps": 2, "epochs": 0.1},
        "eval": {"capability": 0, "max_new_tokens": 4, "fluency_tokens": 4},
        **how,
    }
    return Run(parse(tree, "test"), folder / "run", Console(quiet=True))


def said(run: Run) -> list[dict[str, Any]]:
    return list(read_rows(run.stage("ask") / "rows.jsonl"))


def test_the_other_methods_are_edited_and_asked_elsewhere_with_the_same_results(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, threads: list[int]
) -> None:
    alone = run_of(tmp_path / "alone", model_folder)
    alone.execute("ask")
    asked, ask = [], asking._ask

    def counted(*arguments: Any) -> Any:
        asked.append(len(arguments[1]))
        return ask(*arguments)

    monkeypatch.setattr(asking, "_ask", counted)
    monkeypatch.setattr(edits, "run", lambda run, folder: pytest.fail("edited here"))
    shared = run_of(tmp_path / "shared", model_folder, meanwhile=True)
    shared.execute("ask")
    assert said(shared) == said(alone)
    assert len(asked) == 1  # SKE
    assert (threads[0], threads[-1]) == (1, 2) and not shared.watchers
    told = [json.loads((run.stage("train") / "costs.json").read_text()) for run in (alone, shared)]
    assert ["meanwhile" in costs for costs in told] == [False, True]


def test_what_the_other_process_leaves_undone_is_done_afterwards(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, threads: list[int]
) -> None:
    def failing(folder: Path, threads: int) -> subprocess.Popen[bytes]:
        assert threads == 1
        return subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"])

    monkeypatch.setattr(meanwhile, "_start", failing)
    run = run_of(tmp_path, model_folder, meanwhile=True)
    run.execute("ask")
    # Taken back while the student is trained, at its reports, and in any case afterwards.
    assert threads[0] == 1 and len(threads) > 2 and set(threads[1:]) == {2}
    assert {row["method"] for row in said(run)} == {"base", "prompt", "ft_m", "ske"}


def test_it_ends_with_a_failed_training(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch, threads: list[int]
) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def sleeping(folder: Path, threads: int) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]))
        return started[0]

    def breaking(run: Run, folder: Path) -> None:
        assert threads == [1]
        raise RuntimeError("out of memory")

    monkeypatch.setattr(meanwhile, "_start", sleeping)
    monkeypatch.setattr(edits, "train_edit", breaking)
    with pytest.raises(RuntimeError, match="out of memory"):
        edits.train(run_of(tmp_path, model_folder, meanwhile=True), tmp_path / "train")
    assert started[0].poll() is not None
    assert threads == [1, 2]


def test_it_ends_with_the_run_that_started_it(tmp_path: Path, model_folder: Path) -> None:
    run = run_of(tmp_path, model_folder)
    write_text(run.folder / "config.yaml", resolved(run.config))
    other = meanwhile._start(run.folder, 1)
    assert other.stdin is not None
    other.stdin.close()  # as the system does when the run is killed
    assert other.wait(timeout=60) == 1
    assert not (run.folder / "stages").exists()


def test_one_thread_is_not_shared(tmp_path: Path, model_folder: Path) -> None:
    assert torch.get_num_threads() == 1
    with meanwhile.meanwhile(run_of(tmp_path, model_folder, meanwhile=True)) as shared:
        assert not shared
