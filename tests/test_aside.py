"""A mistake that a stage itself finds loses nothing that was finished before; nor does a kill."""

import shutil
from pathlib import Path

import pytest
import toystages
from toystages import STAGES, Toy, outputs, run_all, states, toy

from pipeline import aside
from ske.types import UserError, Waits

NAMES = [stage.name for stage in STAGES]


class Killed(BaseException):
    """Nothing of ours catches it."""


def failing(error: BaseException):
    """Stage `teach`, which writes one row and ends."""

    def teach(run: Toy, folder: Path) -> None:
        (folder / "trace.jsonl").open("a").write("begun\n")
        raise error

    return teach


def attempt(run: Toy, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(toystages, "slow", failing(error))
        with pytest.raises(type(error)):
            run_all(run)


def other(run: Toy, top_k: int = 3) -> Toy:
    return toy(run.folder, teach={"top_k": top_k})


@pytest.fixture
def run(tmp_path: Path) -> Toy:
    run = toy(tmp_path)
    run_all(run)
    return run


def state(run: Toy) -> list[str]:
    return [plan.state for plan in states(run).values()]


def hidden(run: Toy) -> list[str]:
    return [path.name for path in (run.folder / "stages").iterdir() if path.name[0] == "."]


def test_after_a_mistake_what_was_finished_is_back(
    run: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = outputs(run)
    for top_k in (3, 3, 4):
        attempt(other(run, top_k), UserError("no"), monkeypatch)
        assert states(other(run, top_k))["teach"].reasons == (f"teach.top_k: 20 -> {top_k}",)
        assert state(run) == ["done"] * 4
    kept = {name: data for name, data in outputs(run).items() if "/." not in name}
    assert kept == before
    assert run_all(run) == []
    assert run_all(other(run)) == NAMES[1:]
    assert not hidden(run)


def test_after_a_mistake_the_same_attempt_goes_on(
    run: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt(other(run), UserError("the server is gone"), monkeypatch)
    run_all(other(run))
    trace = run.folder / "stages" / "teach" / "trace.jsonl"
    assert trace.read_text() == "begun\nfrom 0\n"


def test_what_waits_for_a_person_stays_where_it_is(
    run: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt(other(run), Waits("read the prompts"), monkeypatch)
    assert (run.folder / "stages" / "teach" / "trace.jsonl").read_text() == "begun\n"


def test_after_a_kill_the_old_configuration_is_done_at_once(
    run: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = outputs(run)
    attempt(other(run), Killed(), monkeypatch)
    run_all(run)
    assert outputs(run) == before
    assert state(run) == ["done"] * 4
    assert not hidden(run)


def test_after_a_kill_the_new_configuration_goes_on_and_a_third_begins(
    run: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt(other(run), Killed(), monkeypatch)
    third = other(run, 5)
    attempt(third, UserError("no"), monkeypatch)
    assert state(run) == ["done"] * 4
    attempt(other(run), Killed(), monkeypatch)
    assert run_all(other(run)) == NAMES[1:]
    trace = run.folder / "stages" / "teach" / "trace.jsonl"
    assert trace.read_text() == "begun\nfrom 0\n"
    assert not hidden(run)


@pytest.mark.parametrize("moment", range(40))
def test_a_kill_at_any_moment_of_changing_places_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """The finished folder is whole somewhere, or gone for a key that is finished."""
    folder = tmp_path / "ask"
    for name, text in (("key", "old"), ("manifest.json", "{}"), ("sum.txt", "1")):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "items").mkdir()
    (folder / "items" / "1.json").write_text("1")
    left = moment

    def counted(what):
        def call(*arguments, **options):
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return what(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for owner, name in (
            (Path, "rename"),
            (Path, "mkdir"),
            (Path, "unlink"),
            (shutil, "rmtree"),
        ):
            patch.setattr(owner, name, counted(getattr(owner, name)))
        try:
            for key in ("new", "newer", "new"):
                aside.make_way(folder, key)
                (folder / "key").write_text(key)
                aside.swap(folder)
        except Killed:
            pass
    aside.make_way(folder, "old")
    assert (folder / "sum.txt").read_text() == "1"
    assert (folder / "manifest.json").exists()
    assert (folder / "items" / "1.json").read_text() == "1"
