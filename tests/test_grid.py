"""Grids: which runs there are, and that Ray and Slurm's array tasks make them."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from pipeline.grid import cell, cells
from ske.types import UserError

ROOT = Path(__file__).parent.parent
SMALL = (
    "edits.limit=2", "eval.capability=0", "eval.max_probes=1", "eval.fluency_tokens=0",
    "eval.max_new_tokens=4",
)  # fmt: skip


def grid(folder: Path, **more: object) -> Path:
    """Runs that take seconds: prompts alone, nothing is trained."""
    tree = {
        "config": "configs/demo.yaml",
        "out": str(folder / "out"),
        "methods": ["prompt"],
        "datasets": {
            "counterfact": ["data.name=world_counterfact"],
            "recent": ["data.name=world_recent"],
        },
        "overrides": list(SMALL),
        **more,
    }
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_every_combination_is_a_run_of_its_own(tmp_path: Path) -> None:
    path = grid(tmp_path, methods=["prompt", "lora, ske"], seeds=[0, 7])
    found = cells(path)
    assert len({one.folder for one in found}) == len(found) == 8
    configs = [one.run().config for one in found]
    assert {c.methods for c in configs} == {("base", "prompt"), ("base", "lora", "ske")}
    assert {c.data.name for c in configs} == {"world_counterfact", "world_recent"}
    assert all(c.seed == c.edits.seed for c in configs)
    assert {c.seed for c in configs} == {0, 7}
    assert all(c.edits.limit == 2 for c in configs)
    last = found[-1]
    assert last.folder.parts[-3:] == ("recent", "lora+ske", "seed-7")
    assert last.command()[:2] == ["ske", "run"]
    assert last.command()[-1] == str(last.folder)


def test_runs_of_a_grid_take_from_each_other_what_is_the_same(tmp_path: Path) -> None:
    first, second = cells(grid(tmp_path))
    assert first.run().others == () and "--from" not in first.command()
    (second.folder / "stages").mkdir(parents=True)
    assert first.run().others == (second.folder,)
    assert first.command()[-4:-2] == ["--from", str(tmp_path / "out")]


def test_the_shipped_grid_is_one() -> None:
    runs = cells(ROOT / "configs" / "grids" / "world.yaml")
    assert len(runs) == 10
    assert all("ske" in one.run().config.methods for one in runs)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"seeds": ["x"]}, r"seeds\.0 = 'x'"),
        ({"methods": []}, "methods"),
        ({"metods": ["lora"]}, "metods.*a grid has: config"),
    ],
)
def test_bad_grids(tmp_path: Path, more: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        cells(grid(tmp_path, **more))


def test_a_number_out_of_range_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="2 runs, from 0 to 1"):
        cell(grid(tmp_path), 2)
    with pytest.raises(UserError, match="cannot be read"):
        cells(tmp_path / "none.yaml")


def test_the_command_line_lists_runs(ske, tmp_path: Path) -> None:
    said = ske("grid", grid(tmp_path))
    assert said.code == 0
    assert "0 of 5 stages" in said.out
    assert ske("grid", grid(tmp_path), "--number", "5").code == 2


def started(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths, **environment}
    return subprocess.run(
        list(map(str, command)), cwd=ROOT, env=env, capture_output=True, text=True, timeout=900
    )


@pytest.mark.slow
def test_a_slurm_array_task_makes_its_run_and_resumes(tmp_path: Path) -> None:
    path = grid(tmp_path)
    script = ROOT / "docs" / "examples" / "grid_slurm.sh"
    task = {"SLURM_ARRAY_TASK_ID": "1", "PYTHON": sys.executable}
    first = started("bash", script, path, **task)
    assert first.returncode == 0, first.stderr
    made = [one.folder for one in cells(path) if (one.folder / "results.csv").exists()]
    assert made == [cells(path)[1].folder]
    again = started("bash", script, path, **task)
    assert "Nothing to do" in again.stdout


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_ray_makes_all_runs_with_two_workers(tmp_path: Path) -> None:
    path = grid(tmp_path)
    example = ROOT / "docs" / "examples" / "grid_ray.py"
    result = started(sys.executable, example, path, "--workers", "2")
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("done:") == 2
    assert all((one.folder / "results.csv").exists() for one in cells(path))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_ray_says_which_run_failed_and_makes_the_others(tmp_path: Path) -> None:
    bad = {"bad": ["data.path=no-such-file.json"], "good": ["data.name=world_recent"]}
    path = grid(tmp_path, datasets=bad)
    example = ROOT / "docs" / "examples" / "grid_ray.py"
    result = started(sys.executable, example, path, "--workers", "2")
    assert result.returncode == 1
    assert f"failed: {cells(path)[0].folder}" in result.stdout
    assert (cells(path)[1].folder / "results.csv").exists()


def test_a_folder_without_runs_is_not_named_as_one_to_take_from(tmp_path: Path) -> None:
    one = cell(grid(tmp_path, out=str(tmp_path / "out")), 0)
    (tmp_path / "out").mkdir()
    assert "--from" not in one.command() and one.run().others == ()
    (tmp_path / "out" / "other" / "stages").mkdir(parents=True)
    assert "--from" in one.command() and one.run().others == (tmp_path / "out" / "other",)
