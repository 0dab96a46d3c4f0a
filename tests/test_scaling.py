"""Runs of several sizes as one table and figure, and what is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from test_seeds import asked
from typer.testing import CliRunner

from eval.seeds import by_size
from pipeline.cli import app
from pipeline.scaling import SCALE_COLUMNS, scale
from ske.types import UserError


def right(share: int, of: int) -> dict[str, str]:
    """Everybody answers the first `share` of the cases rightly, the base none."""
    marks = "1" * share + "0" * (of - share)
    return {"base": "0" * of, "lora": marks, "ske": "1" * of}


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [
        asked(tmp_path / "eight", right(2, 8), edits={"limit": 8}),
        asked(tmp_path / "two", right(2, 2), edits={"limit": 2}),
        asked(tmp_path / "four", right(2, 4), edits={"limit": 4}),
        asked(tmp_path / "four-too", right(4, 4), edits={"limit": 4}, seed=1),
    ]


def test_every_metric_by_number_of_edits(runs: list[Path], tmp_path: Path) -> None:
    text = scale(runs, tmp_path / "out")
    with (tmp_path / "out" / "scale.csv").open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows = [row for row in reader if (row["method"], row["metric"]) == ("lora", "edit_success")]
    assert tuple(reader.fieldnames or ()) == SCALE_COLUMNS
    found = {(row["edits"], row["seed"]): float(row["mean"]) for row in rows}
    assert found == {
        ("2", "0"): 100,
        ("4", "0"): 50,
        ("4", "1"): 100,
        ("4", "all"): 75,
        ("8", "0"): 25,
    }
    line = next(line for line in text.splitlines() if line.startswith("| LoRA | 100.0 ["))
    assert [cell.split()[0] for cell in line.split("|")[2:-1]] == ["100.0", "75.0", "25.0"]
    assert (tmp_path / "out" / "figures" / "scale-generate.png").stat().st_size > 1000


def test_runs_of_one_size_or_of_something_else_are_refused(runs: list[Path]) -> None:
    with pytest.raises(UserError, match=r"all of them make 4 edits.*edits\.limit.*ske combine"):
        by_size(runs[2:])
    other = asked(runs[0].parent / "x", right(1, 1), edits={"limit": 1}, train={"epochs": 1.0})
    with pytest.raises(UserError, match=r"differ in train\.epochs: 5\.0 and 1\.0"):
        by_size([runs[0], other])
    with pytest.raises(UserError, match="the same run twice"):
        by_size([*runs, runs[0]])


def test_the_command_refuses_with_2_and_writes_nothing(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["scale", str(runs[0]), "--out", str(out)])
    assert isinstance(done.exception, UserError) and not out.exists()
    assert CliRunner().invoke(app, ["scale", *map(str, runs), "--out", str(out)]).exit_code == 0
