"""Two processes that train together learn what one alone learns, and one of them writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import together
import torch
from together import learn

from methods.delta import DeltaEdit, LowRank
from methods.sft import batch_share
from pipeline.run import Run
from ske import processes
from ske.config import Config
from ske.types import UserError

HERE = Path(__file__).parent


def torchrun(*arguments: str, count: int = 2, folder: Path = HERE.parent) -> str:
    """Start processes as a user does; returns what they say on the terminal."""
    paths = os.pathsep.join([str(HERE), str(HERE.parent)])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    result = subprocess.run(
        [*launcher, f"--nproc-per-node={count}", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pair")
    torchrun(together.__file__, str(out))
    return out


def dense(edit: DeltaEdit) -> dict[str, torch.Tensor]:
    return {n: d.dense() if isinstance(d, LowRank) else d for n, d in edit.deltas.items()}


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(pair: Path) -> None:
    losses, edit = learn(None)
    found = json.loads((pair / "losses.json").read_text())["losses"]
    assert len(losses) > 4
    assert losses[-1] < losses[0]
    assert found == pytest.approx(losses, rel=1e-4)
    two = dense(DeltaEdit.load(pair / "edit"))
    for name, one in dense(edit).items():
        assert torch.allclose(two[name], one, atol=1e-4), name
    assert max(d.abs().max() for d in two.values()) > 1e-2  # far above the tolerance


@pytest.mark.slow
def test_only_the_first_writes(pair: Path) -> None:
    assert list((pair / "process-0" / "work").glob("checkpoint-*/adapter_model.safetensors"))
    written = [path for path in (pair / "process-1").rglob("*") if path.is_file()]
    # A checkpoint needs the random state of everybody.
    assert {path.name for path in written} == {"rng_state_1.pth"}


@pytest.mark.slow
def test_adapters_of_a_cut_up_model_are_read_whole(pair: Path) -> None:
    assert json.loads((pair / "losses.json").read_text())["sharded"] is True


def test_a_step_that_cannot_be_shared_out_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert batch_share(32) == 8
    with pytest.raises(UserError, match=r"30 lessons .* 4 processes; set train\.batch_size"):
        batch_share(30)


def test_alone_is_the_first_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert (processes.count(), processes.first(), processes.local_number()) == (1, True, 0)


def test_several_processes_are_refused_what_one_must_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for stage in (None, "teach", "train"):  # nothing was taught yet
        with pytest.raises(UserError, match="2 processes were started"):
            Run(Config(), tmp_path).execute(stage)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_run_trains_under_torchrun(tmp_path: Path) -> None:
    small = (
        "edits.limit=4", "design.max_trials=2", "teach.free_texts=16", "teach.neighbours=4",
        "train.epochs=2", "train.min_steps=0", "eval.capability=0", "methods=[base, ske]",
    )  # fmt: skip
    common = [part for key in small for part in ("--set", key)]
    arguments = ["pipeline.cli", "run", "configs/demo.yaml", *common]
    alone, both = tmp_path / "alone", tmp_path / "both"
    for out, stage in ((alone, "train"), (both, "teach")):
        torchrun("-m", *arguments, "--out", str(out), "--stage", stage, count=1)
    torchrun("-m", *arguments, "--out", str(both), "--stage", "train")

    def files(folder: Path) -> list[str]:
        return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())

    assert files(both) == files(alone)
    edits = [dense(DeltaEdit.load(out / "stages" / "train" / "edit")) for out in (alone, both)]
    one, two = [torch.cat([edit[n].flatten() for n in sorted(edit)]) for edit in edits]
    # Not equal: two processes fill up the last batch of a pass, here one batch of very few.
    assert torch.nn.functional.cosine_similarity(one, two, dim=0) > 0.9
    ran = torchrun("-m", *arguments, "--out", str(both), "--stage", "train")
    assert "Nothing to do" in ran


@pytest.mark.parametrize("together", [True, False])
def test_one_of_several_ends_without_pythons_clean_up(tmp_path: Path, together: bool) -> None:
    """Where gloo's threads may end it with SIGABRT."""
    store = f'"gloo", init_method="file://{tmp_path}/store", rank=0, world_size=1'
    code = (
        "import atexit, torch.distributed\n"
        "from ske import processes\n"
        f"if {together}: torch.distributed.init_process_group({store})\n"
        "atexit.register(print, 'cleaned up')\n"
        "print('done, ', end='')\n"
        "processes.leave(3)\n"
    )
    left = subprocess.run(
        [sys.executable, "-c", code], cwd=HERE.parent, capture_output=True, text=True, check=False
    )
    assert (left.returncode, left.stdout.strip()) == (
        3,
        "done," if together else "done, cleaned up",
    )


def test_threads_wait_briefly_unless_the_user_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    for set_by_user in ({"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "7"}, {}):
        monkeypatch.setattr(os, "environ", dict(set_by_user))
        processes.yielding()
        assert os.environ == (set_by_user or {"GOMP_SPINCOUNT": processes.SPINS})


def test_the_command_says_so_before_torch_is_there() -> None:
    """libgomp reads it when it is loaded, and no more after that."""
    code = (
        "import sys; sys.argv = ['ske', '--help']\n"
        "from pipeline import cli\n"
        "from ske import processes\n"
        "loaded = []\n"
        "processes.yielding = lambda: loaded.append('torch' in sys.modules)\n"
        "try: cli.main()\n"
        "except SystemExit: print('loaded', loaded)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=HERE.parent, capture_output=True, text=True, check=True
    )
    assert "loaded [False]" in said.stdout


def test_the_collector_passes_by_libraries_and_by_nothing_that_comes_later() -> None:
    import gc

    gc.unfreeze()
    processes.spare_libraries.cache_clear()
    processes.spare_libraries()
    spared = gc.get_freeze_count()
    assert spared > 10_000
    later: list[object] = [[] for _ in range(1000)]
    processes.spare_libraries()  # as a run's second model does
    assert gc.get_freeze_count() <= spared
    del later


def test_libraries_are_spared_before_a_run_s_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(processes, "spare_libraries", lambda: done.append("spared"))
    monkeypatch.setattr("ske.backends.local.load", lambda model: done.append("loaded"))
    _ = Run(Config(), tmp_path).lm
    assert done == ["spared", "loaded"]
