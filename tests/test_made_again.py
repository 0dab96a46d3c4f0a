"""What a run left and somebody deleted or cut: which stage makes it again, and what is kept."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from test_rounds import run_of
from toystages import run_all, states, toy

from methods.table import load_edit
from pipeline.places import edit_folder
from pipeline.rounds import Mode


def test_what_a_stage_left_elsewhere_is_made_again_if_it_is_gone_or_cut(tmp_path: Path) -> None:
    run = toy(tmp_path)
    run_all(run)
    table, one = tmp_path / "table.csv", tmp_path / "figures" / "one.png"
    for damage, reason in (
        (lambda: table.write_text("garbage"), "table.csv is not as the stage wrote it"),
        (one.unlink, "figures/one.png is gone"),
        (lambda: shutil.rmtree(one.parent), "figures is gone"),
    ):
        damage()
        assert [plan.state for plan in states(run).values()] == [*["done"] * 3, "stale"]
        assert states(run)["report"].reasons == (reason,)
        assert run_all(run) == ["report"]
        assert table.read_text() != "garbage" and one.exists()


def test_a_manifest_of_before_says_nothing_of_what_lies_elsewhere(tmp_path: Path) -> None:
    run = toy(tmp_path)
    run_all(run)
    path = tmp_path / "stages" / "report" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["left"]
    path.write_text(json.dumps(manifest))
    shutil.rmtree(tmp_path / "figures")
    assert [plan.state for plan in states(run).values()] == ["done"] * 4


@pytest.mark.parametrize("mode", ["batch", "single"])
def test_an_edit_that_is_gone_or_cut_is_made_again(tmp_path: Path, mode: Mode) -> None:
    run = run_of(tmp_path, ("base", "ft_m"), mode=mode, limit=2)
    run.execute("edit")
    place, other = edit_folder(run, "ft_m", mode, 1), edit_folder(run, "base", mode, 1)
    kept, name = other.joinpath("key").stat().st_mtime_ns, place.relative_to(run.folder)
    for damage, reason in (
        (lambda: shutil.rmtree(place), f"{name} is gone"),
        ((place / "edit.json").unlink, f"{name}/edit.json is gone"),
        (lambda: (place / "costs.json").write_text('{"a'), f"{name}/costs.json is not as"),
    ):
        damage()
        (told,) = next(item for item in run.plan() if item.stage.name == "edit").reasons
        assert told.startswith(reason)
        assert run.execute("edit") == ["edit"]
        assert json.loads((place / "costs.json").read_text())["bytes"] and load_edit(place)
    assert other.joinpath("key").stat().st_mtime_ns == kept
    assert run.execute("edit") == []


def test_an_edit_of_before_sizes_were_written_counts_as_it_is_found(tmp_path: Path) -> None:
    run = run_of(tmp_path, ("base", "ft_m"), limit=2)
    run.execute("edit")
    place, manifest = edit_folder(run, "ft_m"), run.stage("edit") / "manifest.json"
    mark, saved = place / "key", (place / "edit.json").stat().st_mtime_ns
    text = mark.read_text()
    mark.write_text(text.split("\n")[0])
    manifest.unlink()
    assert run.execute("edit") == ["edit"]
    assert (place / "edit.json").stat().st_mtime_ns == saved and mark.read_text() == text


def test_answers_behind_a_broken_line_are_asked_again(tmp_path: Path) -> None:
    run = run_of(tmp_path, ("base", "prompt"), limit=2)
    run.execute("ask")
    rows, (path,) = run.stage("ask") / "rows.jsonl", run.stage("ask").glob("items/prompt-*.jsonl")
    before, lines = rows.read_bytes(), path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], b'{"item": ', *lines[2:]]))
    (run.stage("ask") / "manifest.json").unlink()
    assert run.execute("ask") == ["ask"]
    assert (rows.read_bytes(), path.read_bytes().split(b"\n")) == (before, lines)


def test_the_student_of_an_earlier_configuration_goes_and_that_is_said(tmp_path: Path) -> None:
    run = run_of(tmp_path, ("base", "prompt"), limit=2)
    student, trained = run.folder / "student", run.stage("train")
    for folder in (student, trained):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    told = io.StringIO()
    run.console = Console(file=told, width=400)
    run.execute("edit")
    assert not student.exists() and trained.exists()
    assert "student/ removed" in told.getvalue() and "base, prompt" in told.getvalue()
