"""The whole way on the shipped world, small: every stage, and resume after kills."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from wholerun import ROOT, command, ske

from eval.further import LEAST
from eval.sentiment import DRAWDOWN


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    result = ske(command(out))
    assert result.returncode == 0, result.stderr
    return out


def test_a_run_leaves_everything_a_user_needs(finished: Path) -> None:
    for name in (
        "config.yaml",
        "results.csv",
        "comparisons.csv",
        "report.md",
        "report.html",
        "student/config.json",
        "student/model.safetensors",
    ):
        assert (finished / name).exists(), name
    with (finished / "results.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "method",
        "dataset",
        "protocol",
        "metric",
        "category",
        "n",
        "mean",
        "ci_low",
        "ci_high",
        "seed",
    ]
    assert {row["method"] for row in rows} == {"base", "prompt", "lora", "ske"}
    assert {row["protocol"] for row in rows} == {"teacher_forced", "generate"}
    for row in rows:
        assert 0 <= float(row["ci_low"]) <= float(row["mean"]) <= float(row["ci_high"]) <= 100
    assert {row["metric"] for row in rows} >= {"hard", "self_refutation", "fluency", "forgotten"}
    with (finished / "graded.csv").open(encoding="utf-8") as file:
        assert {row["metric"] for row in csv.DictReader(file)} == set(LEAST) - {DRAWDOWN}
    skills = {row["category"] for row in rows if row["metric"] == "capability"}
    assert skills >= {"copying", "held_out", "in_context"}
    base = {
        row["metric"]: float(row["mean"])
        for row in rows
        if row["method"] == "base" and row["protocol"] == "generate" and row["category"] == "all"
    }
    assert base["locality"] == 100 and base["edit_success"] < 20


def test_the_student_is_a_plain_checkpoint(finished: Path) -> None:
    code = (
        "import sys; from transformers import AutoModelForCausalLM as M, AutoTokenizer as T\n"
        f"m, t = M.from_pretrained({str(finished / 'student')!r}), T.from_pretrained("
        f"{str(finished / 'student')!r})\n"
        "ids = t('The sum of 2 and 3 is', return_tensors='pt')\n"
        "print(t.decode(m.generate(**ids, max_new_tokens=4)[0]))\n"
        "assert not {'ske', 'methods', 'pipeline'} & set(sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=finished, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_a_second_run_does_nothing_and_needs_no_torch(finished: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*.jsonl")}
    code = (
        "import sys; from pipeline.cli import main\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules"
    )
    result = ske([sys.executable, "-c", code, *command(finished)[3:]])
    assert result.returncode == 0, result.stderr
    assert "Nothing to do" in result.stdout
    assert before == {p: p.stat().st_mtime_ns for p in finished.rglob("*.jsonl")}


def test_a_changed_key_runs_only_what_depends_on_it(finished: Path) -> None:
    listing = ske(
        [sys.executable, "-m", "pipeline.cli", "status", str(finished), "--set", "train.epochs=3"]
    )
    states = {
        line.split("│")[1].strip(): line.split("│")[2].strip()
        for line in listing.stdout.splitlines()
        if line.startswith("│ ") and "│" in line[2:]
    }
    assert states["design"] == states["teach"] == states["edit"] == "done"
    assert states["train"] == states["ask"] == "stale"
    assert "train.epochs" in listing.stdout


KILLS = {"design": 0.7, "teach": 0.4, "train": 1.5, "edit": 0.5, "ask": 0.6}
"""Stage -> seconds after its beginning."""


@pytest.mark.slow
def test_killed_in_every_stage_it_ends_in_the_same_results(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    for stage, after in KILLS.items():
        process = subprocess.Popen(
            command(out), cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        mark = out / "stages" / stage / "key"
        deadline = time.monotonic() + 120
        while not mark.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
        process.wait()
    result = ske(command(out))
    assert result.returncode == 0, result.stderr
    for name in ("results.csv", "comparisons.csv"):
        assert (out / name).read_bytes() == (finished / name).read_bytes(), name


def test_two_runs_on_one_folder_are_refused(finished: Path) -> None:
    import fcntl

    with (finished / ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = ske(command(finished, "--set", "seed=5"))
    assert result.returncode == 2
    assert "in use by another run" in result.stderr


def test_report_is_rebuilt_from_rows_alone(finished: Path) -> None:
    before = (finished / "results.csv").read_bytes()
    (finished / "report.md").unlink()
    result = ske([sys.executable, "-m", "pipeline.cli", "report", str(finished)])
    assert result.returncode == 0, result.stderr
    assert (finished / "report.md").exists()
    assert (finished / "results.csv").read_bytes() == before
