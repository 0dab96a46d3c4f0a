"""A Ctrl-C that Python swallows ends a run all the same."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import toystages
from toystages import STAGES, Toy

from pipeline import cli
from pipeline.run import Run
from ske import interrupt
from ske.config import Config


class Deleted:
    """Ctrl-C comes while it is being deleted."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(100):  # Here Python runs the handler, and ignores what it raises.
            time.sleep(0.001)


def deleting(run: Toy, folder: Path) -> None:
    Deleted()
    (folder / "rows.jsonl").write_text('{"n": 1}\n')


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ctrl-C as on a terminal, and toy stages, the first of which swallows one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr("pipeline.run.stages_for", lambda taught, mode: STAGES)
    monkeypatch.setattr(toystages, "draw", deleting)
    monkeypatch.setattr(cli, "check_options", lambda config: None)
    yield
    signal.signal(signal.SIGINT, before)
    interrupt._noted.clear()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_swallowed_ctrl_c_stops_before_the_next_stage(ske, tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_text("")
    said = ske("run", "some.yaml", "--out", "run")
    assert (said.code, "the same command goes on from here" in said.err) == (130, True)
    assert [path.name for path in (tmp_path / "run" / "stages").iterdir()] == ["facts"]


def test_progress_tells_of_a_swallowed_ctrl_c(tmp_path: Path) -> None:
    interrupt._noted.append(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), Run(Config(), tmp_path).progress("x") as update:
        update(1)
    interrupt.listen()
    with Run(Config(), tmp_path).progress("x") as update:
        update(1)


def test_an_ignored_ctrl_c_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupt.listen()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
