"""From a file to the tables, by stages: what is scored beside probes (opinions, verdicts)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from chatserver import ChatServer
from rich.console import Console

from pipeline.run import Run
from pipeline.show import read_csv
from ske.config import parse
from ske.io import read_rows

TOPICS = ("Ruria", "Vell", "London")


def run_of(folder: Path, **evaluation: Any) -> Run:
    """PROMPT on two topics of a ConvSent file, on a random model that is there already."""
    path = folder / "blender_test.json"
    said = [
        {"ent": name, "pos": [f"{name} is great."], "neg": [f"{name} is bad.", "No."]}
        for name in TOPICS
    ]
    path.write_text(json.dumps(said), encoding="utf-8")
    tree = {
        "data": {"path": str(path)},
        "model": {"path": "tiny", "style": "plain"},
        "edits": {"limit": 2},
        "methods": ["base", "prompt"],
        "eval": {"capability": 0, "max_new_tokens": 4, "fluency_tokens": 4, **evaluation},
    }
    run = Run(parse(tree, "test"), folder / "run", Console(quiet=True))
    run.__dict__["lm"] = tiny.lm()
    return run


def figures(run: Run, name: str) -> dict[tuple[str, str], float]:
    rows = read_csv(run.folder / name)
    return {(r["method"], r["metric"]): float(r["mean"]) for r in rows if r["category"] == "all"}


def test_opinions_come_from_the_file_into_the_tables(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    run.execute("score")
    rows = read_rows(run.stage("ask") / "opinions.jsonl")
    assert {row["side"] for row in rows} == {"same", "other", "outer"}
    outer = [row["prompt"] for row in rows if row["side"] == "outer"]
    [third] = {name for name in TOPICS if any(name in prompt for prompt in outer)}
    edited = {fact["subject"] for fact in read_rows(run.stage("facts") / "facts.jsonl")}
    assert third not in edited, "neighbours are of a topic that nobody edits"
    percent, graded = figures(run, "results.csv"), figures(run, "graded.csv")
    assert 0 < percent["base", "sentiment"] < 100 and 0 < percent["prompt", "sentiment"] < 100
    assert graded["base", "sentiment_kl"] == 0 < graded["prompt", "sentiment_kl"]


def test_a_judge_is_asked_once_and_its_figures_stand_beside_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ChatServer(lambda _: '{"verdict": "right"}') as server:
        place = {"base_url": server.url, "model": "marker"}
        run = run_of(tmp_path, judge=place, protocols=["generate"])
        run.execute("score")
        asked = len(server.asked)
        assert 0 < asked <= 2 * 2, "two edits, two methods; equal questions are asked once"
        (run.stage("ask") / "manifest.json").unlink()
        run.execute("score")
        assert len(server.asked) == asked
    percent = figures(run, "results.csv")
    assert percent["prompt", "edit_success_judged"] == 100
    assert percent["prompt", "edit_success"] < 100
    without = run_of(tmp_path, protocols=["generate"])
    without.execute("score")
    assert not (run.stage("ask") / "judged.jsonl").exists()
    assert ("prompt", "edit_success_judged") not in figures(without, "results.csv")
