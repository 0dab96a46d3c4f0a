"""`--from`: what a run takes over from others, and what it must make itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from toystages import STAGES, Toy, outputs, run_all, toy

from pipeline.adopting import adopt, runs_below
from pipeline.stage import Stage, plan, read_manifest
from ske.types import UserError

FACTS = STAGES[0]
TEACH = STAGES[1]._replace(keys=("model", "teach.top_k"))
ASK = STAGES[2]._replace(keys=("model", "eval.max_new_tokens"), leaves=("answer.txt",))
ALL = (FACTS, TEACH, ASK)


def done(folder: Path, **tree: object) -> Toy:
    """A run that is done, with what `ask` leaves in the run folder."""
    run = toy(folder, **tree)
    run_all(run, ALL)
    (folder / "answer.txt").write_text("42")
    return run


def with_facts(folder: Path, **tree: object) -> Toy:
    """A run that has its facts and nothing else."""
    run = toy(folder, **tree)
    run_all(run, (FACTS,))
    return run


def states(run: Toy) -> list[str]:
    return [item.state for item in plan(ALL, run.config, run.folder)]


def test_what_is_the_same_is_taken_with_all_that_belongs_to_it(tmp_path: Path) -> None:
    before, run = done(tmp_path / "a"), with_facts(tmp_path / "b")
    assert [adopt(stage, run, [before.folder]) for stage in (TEACH, ASK)] == [before.folder] * 2
    assert states(run) == ["done"] * 3
    assert outputs(run) == outputs(before)
    assert (run.folder / "answer.txt").read_text() == "42"
    assert read_manifest(run.folder, "ask") == read_manifest(before.folder, "ask")


def test_what_differs_is_not_taken_nor_what_follows_from_it(tmp_path: Path) -> None:
    before = done(tmp_path / "a")
    other = with_facts(tmp_path / "b", edits={"limit": 3})
    later = with_facts(tmp_path / "c", eval={"max_new_tokens": 3})
    assert adopt(TEACH, other, [before.folder]) is None
    assert adopt(TEACH, later, [before.folder]) == before.folder
    assert adopt(ASK, later, [before.folder]) is None
    assert states(other)[1:] == ["to do", "to do"]


def test_a_run_does_not_take_its_own_nor_what_needs_no_model(tmp_path: Path) -> None:
    before, run = done(tmp_path / "a"), toy(tmp_path / "b")
    assert adopt(FACTS, run, [before.folder]) is None
    assert adopt(TEACH, before, [tmp_path / "b" / ".." / "a"]) is None


@pytest.mark.parametrize("gone", ["stages/ask/sum.txt", "answer.txt", "stages/ask/manifest.json"])
def test_what_is_damaged_there_is_not_taken(tmp_path: Path, gone: str) -> None:
    before, run = done(tmp_path / "a"), with_facts(tmp_path / "b")
    adopt(TEACH, run, [before.folder])
    (before.folder / gone).unlink()
    assert adopt(ASK, run, [before.folder]) is None
    whole = done(tmp_path / "c")
    assert adopt(ASK, run, [before.folder, whole.folder]) == whole.folder


def test_what_an_earlier_attempt_left_gives_way(tmp_path: Path) -> None:
    before, run = done(tmp_path / "a"), with_facts(tmp_path / "b")
    half = run.folder / "stages" / "teach"
    half.mkdir()
    (half / "half.jsonl").write_text("{")
    adopt(TEACH, run, [before.folder])
    assert not (half / "half.jsonl").exists() and states(run)[1] == "done"


def test_runs_are_found_at_a_folder_and_below_it(tmp_path: Path) -> None:
    runs = [tmp_path / "a", tmp_path / "grid" / "data" / "m" / "seed-0"]
    for folder in runs:
        # A sequential run's rounds are runs of their own, and no others' business.
        (folder / "stages" / "train" / "items" / "round-0001" / "stages").mkdir(parents=True)
    assert runs_below([tmp_path]) == [tmp_path / "a"]
    assert runs_below([tmp_path / "grid", tmp_path / "a"]) == runs[::-1]
    with pytest.raises(UserError, match=r"--from .*nowhere.*: no such folder"):
        runs_below([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"--from .*empty.*: there is no run in it"):
        runs_below([tmp_path / "a", tmp_path / "empty"])


def test_the_stages_that_ask_or_train_a_model_are_those_that_are_taken() -> None:
    from pipeline.stages import STAGES as REAL

    def taken(stage: Stage) -> bool:
        return "model" in stage.keys

    assert [s.name for s in REAL if taken(s)] == ["design", "teach", "train", "edit", "ask"]
