"""The stage engine with toy stages: what runs, what does not, why, and what a kill leaves."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from toystages import STAGES, Toy, outputs, run_all, states, toy

from pipeline import edits, stages
from pipeline.run import Run
from pipeline.stage import Stage, fingerprint, ingredients, read_manifest, weights_key
from ske.config import Config, ModelConfig, parse, resolved
from ske.io import locked, read_rows
from ske.types import UserError

HERE = Path(__file__).parent
NAMES = [stage.name for stage in STAGES]


def script(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    paths = os.pathsep.join([str(HERE), str(HERE.parent)])
    return subprocess.Popen(
        [sys.executable, str(HERE / "toystages.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, **environment},
    )


def state(run: Toy) -> list[str]:
    return [plan.state for plan in states(run).values()]


def test_to_do_then_done(tmp_path: Path) -> None:
    run = toy(tmp_path)
    assert state(run) == ["to do"] * 4
    assert run_all(run) == NAMES
    assert state(run) == ["done"] * 4
    before = outputs(run)
    assert run_all(run) == []
    assert outputs(run) == before
    assert all(plan.seconds is not None for plan in states(run).values())


def test_a_manifest_says_what_was_done(tmp_path: Path) -> None:
    run = toy(tmp_path)
    run_all(run)
    manifest = read_manifest(tmp_path, "teach")
    assert manifest["ingredients"]["teach.top_k"] == 20
    assert manifest["ingredients"]["output of facts"] == read_manifest(tmp_path, "facts")["output"]
    assert list(manifest["outputs"]) == ["rows.jsonl"]  # no trace, no key
    assert {"key", "output", "seconds", "git", "versions", "python", "machine"} <= set(manifest)
    assert manifest["versions"]["torch"]


def test_a_changed_key_is_named_with_old_and_new_value(tmp_path: Path) -> None:
    run_all(toy(tmp_path))
    later = toy(tmp_path, teach={"top_k": 3}, train={"rank": 7})
    plans = states(later)
    assert [plan.state for plan in plans.values()] == ["done", "stale", "stale", "stale"]
    assert plans["teach"].reasons == ("teach.top_k: 20 -> 3",)
    assert plans["ask"].reasons == ("teach runs again",)
    assert plans["report"].reasons == ("ask runs again",)
    assert run_all(later) == NAMES[1:]
    assert state(later) == ["done"] * 4
    assert state(toy(tmp_path)) == ["done", "stale", "stale", "stale"]


def test_a_changed_key_in_a_section_is_named(tmp_path: Path) -> None:
    run_all(toy(tmp_path))
    plans = states(toy(tmp_path, edits={"limit": 3, "seed": 9}, seed=1))
    assert plans["facts"].reasons == (
        "edits.limit: 64 -> 3",
        "edits.seed: 0 -> 9",
        "seed: 0 -> 1",
    )


def test_the_same_output_makes_nothing_stale_downstream(tmp_path: Path) -> None:
    run_all(toy(tmp_path))
    assert run_all(toy(tmp_path, edits={"limit": 32})) == ["facts"]


def test_a_new_version_runs_again(tmp_path: Path) -> None:
    run = toy(tmp_path)
    run_all(run)
    newer = (*STAGES[:2], STAGES[2]._replace(version=2), STAGES[3])
    plans = states(run, newer)
    assert plans["ask"].reasons == ("version: 1 -> 2",)
    # Its output is the same, so what follows is done.
    assert run_all(run, newer) == ["ask"]
    assert states(run, newer)["report"].state == "done"


def test_a_torn_manifest_is_work_owed(tmp_path: Path) -> None:
    run = toy(tmp_path)
    run_all(run)
    path = tmp_path / "stages" / "ask" / "manifest.json"
    path.write_text(path.read_text()[:50])
    assert state(run) == ["done", "done", "to do", "stale"]
    assert run_all(run) == ["ask"]
    assert state(run) == ["done"] * 4


def test_items_survive_a_changed_key_and_nothing_else_does(tmp_path: Path) -> None:
    run_all(toy(tmp_path))
    folder = tmp_path / "stages" / "ask"
    (folder / "left.txt").write_text("x")
    (folder / "work").mkdir()
    run_all(toy(tmp_path, eval={"max_new_tokens": 5}))
    assert sorted(path.name for path in (folder / "items").iterdir()) == ["24.json", "5.json"]
    assert not (folder / "left.txt").exists()
    assert not (folder / "work").exists()


def test_a_change_of_files_in_the_folder_does_not_count_as_a_change_of_configuration(
    tmp_path: Path,
) -> None:
    run = toy(tmp_path)
    run_all(run)
    (tmp_path / "stages" / "facts" / "note.txt").write_text("mine")
    assert state(run) == ["done"] * 4


# -- kills and locks --------------------------------------------------------------------------


def test_a_killed_stage_goes_on_and_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    killed, straight = tmp_path / "killed", tmp_path / "straight"
    process = script("run", str(killed), TOY_CRASH="5")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    run = toy(killed)
    assert state(run) == ["done", "to do", "to do", "to do"]
    assert (killed / "stages" / "teach" / "rows.jsonl").read_text().endswith('{"n": 1')
    assert run_all(run) == NAMES[1:]
    assert (killed / "stages" / "teach" / "trace.jsonl").read_text() == "from 0\nfrom 5\n"
    run_all(toy(straight))
    (straight / "stages" / "teach" / "trace.jsonl").write_text("from 0\nfrom 5\n")
    assert outputs(run) == outputs(toy(straight))


def test_what_another_configuration_left_is_cleared(tmp_path: Path) -> None:
    process = script("run", str(tmp_path), TOY_CRASH="5")
    process.communicate(timeout=60)
    run = toy(tmp_path, teach={"top_k": 2})
    run_all(run)
    rows = read_rows(tmp_path / "stages" / "teach" / "rows.jsonl")
    assert [row["n"] for row in rows] == [2 * n for n in range(8)]
    assert (tmp_path / "stages" / "teach" / "trace.jsonl").read_text() == "from 0\n"


def test_a_stage_that_fails_is_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import toystages

    run = toy(tmp_path)
    run_all(run)
    monkeypatch.setattr(toystages, "cached", lambda run, folder: 1 / 0)
    changed = toy(tmp_path, eval={"max_new_tokens": 5})
    with pytest.raises(ZeroDivisionError):
        run_all(changed)
    assert state(changed) == ["done", "done", "to do", "stale"]
    assert state(run) == ["done", "done", "to do", "stale"]  # its files are gone


def test_a_second_process_is_refused_and_told_by_whom(tmp_path: Path) -> None:
    process = script("hold", str(tmp_path))
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"{process.pid}.*--out"):
            run_all(toy(tmp_path))
        assert not (tmp_path / "stages").exists()
    finally:
        process.kill()
        process.communicate()
    assert run_all(toy(tmp_path)) == NAMES  # a dead process holds nothing


def test_a_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        raise ZeroDivisionError
    with locked(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_what_was_removed_from_the_run_folder_is_made_again(tmp_path: Path) -> None:
    stages = (*STAGES[:-1], STAGES[-1]._replace(leaves=("results.csv",)))
    run = toy(tmp_path)
    run_all(run, stages)
    (tmp_path / "results.csv").write_text("method\n")
    assert states(run, stages)["report"].state == "done"
    (tmp_path / "results.csv").unlink()
    report = states(run, stages)["report"]
    assert (report.state, report.reasons) == ("stale", ("results.csv is gone",))


# -- what a stage depends on ------------------------------------------------------------------


def test_other_weights_or_another_file_make_a_stage_stale(tmp_path: Path) -> None:
    model, data = tmp_path / "model", tmp_path / "facts.jsonl"
    model.mkdir()
    (model / "model.safetensors").write_bytes(b"1")
    data.write_text("{}")
    config = parse({"model": {"path": str(model)}, "data": {"path": str(data)}}, "test")
    stage = Stage("facts", "toystages:draw", (), ("model", "data"), "draw")
    first = ingredients(stage, config, tmp_path)
    (model / "README.md").write_text("x")
    assert ingredients(stage, config, tmp_path) == first
    (model / "model.safetensors").write_bytes(b"2")
    second = ingredients(stage, config, tmp_path)
    data.write_text("{} ")
    third = ingredients(stage, config, tmp_path)
    changed = [
        {key for key in one if one[key] != other[key]}
        for one, other in ((first, second), (second, third))
    ]
    assert changed == [{"model weights"}, {"data file"}]
    assert fingerprint("some/hub-id") == "some/hub-id"


def test_the_test_file_beside_a_train_file_is_part_of_the_data(tmp_path: Path) -> None:
    train, asked = tmp_path / "trivia_qa_train.json", tmp_path / "trivia_qa_test.json"
    train.write_text("{}")
    config = parse({"data": {"path": str(train)}}, "test")
    stage = Stage("facts", "toystages:draw", (), ("data",), "draw")
    alone = ingredients(stage, config, tmp_path)
    asked.write_text("{}")
    both = ingredients(stage, config, tmp_path)
    asked.write_text("{} ")
    changed = ingredients(stage, config, tmp_path)
    assert alone.items() < both.items()
    assert {key for key in both if both[key] != changed[key]} == {"test file"}


def test_large_weights_are_told_apart_by_both_ends(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(1 << 25))
    first = fingerprint(str(tmp_path))
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    assert fingerprint(str(tmp_path)) != first


def test_the_stages_of_a_run_follow_its_methods(tmp_path: Path) -> None:
    full = Run(Config(), tmp_path)
    assert [stage.name for stage in full.stages] == [
        "facts",
        "design",
        "teach",
        "train",
        "edit",
        "ask",
        "score",
        "report",
    ]
    in_rounds = Run(Config(edits=Config().edits.model_copy(update={"mode": "single"})), tmp_path)
    assert [stage.name for stage in in_rounds.stages] == [
        "facts",
        "train",
        "edit",
        "ask",
        "score",
        "report",
    ]
    bare = Run(Config(methods=("base", "prompt")), tmp_path)
    assert [stage.name for stage in bare.stages] == ["facts", "edit", "ask", "score", "report"]
    for run in (full, in_rounds, bare):
        names = [stage.name for stage in run.stages]
        for stage in run.stages:
            assert all(names.index(need) < names.index(stage.name) for need in stage.needs)
            for key in stage.keys:
                assert ingredients(stage._replace(keys=(key,)), run.config, tmp_path)


def test_approval_of_prompts_makes_no_rounds_stale(tmp_path: Path) -> None:
    asked = Config().design.model_copy(update={"approve": True})
    for stage in (stages.TRAIN_IN_ROUNDS, next(s for s in stages.STAGES if s.name == "design")):
        told = [
            ingredients(stage, config, tmp_path)
            for config in (Config(), Config().model_copy(update={"design": asked}))
        ]
        assert told[0] == told[1]


def test_a_key_that_is_new_and_at_its_default_makes_nothing_stale(tmp_path: Path) -> None:
    run = toy(tmp_path)
    run_all(run)
    for name in NAMES:  # as if `edits` had had no seed, and `seed` another one, back then
        path = tmp_path / "stages" / name / "manifest.json"
        manifest = json.loads(path.read_text())
        manifest["ingredients"].get("edits", {}).pop("seed", None)
        path.write_text(json.dumps(manifest))
    assert state(run) == ["done"] * 4
    other = toy(tmp_path, edits={"seed": 5})
    assert states(other)["facts"].reasons == ("edits.seed: 0 -> 5",)


def test_how_a_server_is_reached_makes_nothing_stale(tmp_path: Path) -> None:
    server = {"base_url": "http://localhost:8000/v1", "model": "m"}
    trees = [{"model": {"backend": "openai", "server": server | more}} for more in (
        {}, {"retries": 9, "timeout": 5, "parallel": 2, "key_env": "KEY"}, {"model": "n"}
    )]  # fmt: skip
    teach = next(stage for stage in stages.STAGES if stage.name == "teach")
    one, reached, other = [ingredients(teach, parse(tree, "test"), tmp_path) for tree in trees]
    assert one == reached
    assert one != other


def test_one_stage_runs_with_what_it_needs_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.run.stages_for", lambda taught, mode: STAGES)
    run = Run(Config(), tmp_path)
    assert run.execute("teach") == NAMES[:2]
    assert resolved(Config()) == (tmp_path / "config.yaml").read_text()
    assert run.execute("teach") == []
    assert run.execute() == NAMES[2:]
    with pytest.raises(UserError, match=r"'tech'.*facts, teach"):
        run.execute("tech")
    assert json.loads((tmp_path / "stages/report/manifest.json").read_text())["stage"] == "report"


def test_a_stage_depends_on_what_is_in_the_files_it_reads(tmp_path: Path) -> None:
    texts, practice, tuned = tmp_path / "t.txt", tmp_path / "p.jsonl", tmp_path / "lora.yaml"
    for path in (texts, practice, tuned):
        path.write_text("a: 1")
    tree = {"texts": {"path": str(texts)}, "practice": {"path": str(practice)}}
    config = parse({**tree, "tuned": str(tmp_path), "methods": ["base", "lora"]}, "test")
    (stage,) = (stage for stage in stages.STAGES if stage.name == "edit")
    first = ingredients(stage, config, tmp_path)
    for path, name in ((texts, "texts file"), (practice, "practice file"), (tuned, "tuned lora")):
        path.write_text("a: 2")
        later = ingredients(stage, config, tmp_path)
        changed = {key for key in later if later[key] != first[key]}
        assert changed == {name if name.endswith("file") else f"{name} file"}
        first = later


def test_weights_are_known_by_how_they_are_asked_and_in_which_precision() -> None:
    keys = {
        weights_key(ModelConfig(path="some/hub-id", **change))
        for change in ({}, {"style": "plain"}, {"dtype": "bfloat16"}, {"device": "cuda"})
    }
    assert len(keys) == 4


def test_a_killed_edit_goes_on_and_one_of_another_key_starts_anew(tmp_path: Path) -> None:
    task = edits._Task([], [], tmp_path / "lora")
    work = task.cleared("one")
    (work / "checkpoint-5").mkdir(parents=True)
    (task.place / "edit.json").write_text("{}")
    assert task.cleared("one") == work
    assert (work / "checkpoint-5").is_dir() and not (task.place / "edit.json").exists()
    assert task.cleared("two") != work
    assert not work.exists()


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_files_that_are_gone_or_cut_are_made_again(tmp_path: Path, damage: str) -> None:
    run = toy(tmp_path)
    run_all(run)
    rows = tmp_path / "stages" / "teach" / "rows.jsonl"
    whole = rows.read_bytes()
    if damage == "gone":
        rows.unlink()
    else:
        rows.write_bytes(whole[: len(whole) // 2])
    plans = states(run)
    assert [plan.state for plan in plans.values()] == ["done", "stale", "stale", "stale"]
    (reason,) = plans["teach"].reasons
    assert reason.startswith("rows.jsonl is ")
    run_all(run)
    assert rows.read_bytes() == whole
    assert state(run) == ["done"] * 4
