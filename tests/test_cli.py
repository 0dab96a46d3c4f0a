"""What a user reads who makes a mistake: exit code, place, value, advice, and nothing written."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import cli

ROOT = Path(__file__).parents[1]
GOOD = {"prompt": "The capital of Ruria is", "subject": "Ruria", "target_new": "Vell"}
HEAVY = ("torch", "transformers", "datasets", "peft", "trl")


def facts_file(folder: Path, *lines: str) -> Path:
    path = folder / "my_facts.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def row(**changes: object) -> str:
    return json.dumps({k: v for k, v in {**GOOD, **changes}.items() if v is not None})


def rows(count: int) -> list[str]:
    return [row(prompt=f"The capital of Ruria {n} is", subject=f"Ruria {n}") for n in range(count)]


# -- ske edit ---------------------------------------------------------------------------------

BAD_FACTS = {
    "missing key": ([*rows(2), row(target_new=None)], ["line 3", '"target_new"', "missing"]),
    "broken json": ([*rows(6), '{"prompt": "x", '], ["line 7", "not JSON"]),
    "empty target": ([*rows(1), row(target_new=" ")], ["line 2", '"target_new"', "' '", "empty"]),
    "subject elsewhere": ([row(subject="Ada")], ["line 1", '"subject"', "'Ada'", GOOD["prompt"]]),
    "two targets": (
        [row(), row(target_new="Acme")],
        ["line 2", '"prompt"', "line 1", "'Vell'", "'Acme'"],
    ),
    "wrong type": ([row(target_new=3)], ["line 1", '"target_new"', "3 is not a text"]),
    "near miss": ([row(target_nwe="x")], ["line 1", "'target_nwe'", "target_new"]),
    "no facts": ([""], ["is empty"]),
}


@pytest.mark.parametrize("case", BAD_FACTS)
def test_bad_facts(ske, tmp_path: Path, case: str) -> None:
    lines, expected = BAD_FACTS[case]
    facts, out = facts_file(tmp_path, *lines), tmp_path / "edited"
    said = ske("edit", "--model", "nowhere", "--facts", facts, "--out", out)
    assert said.code == 2
    for part in ("my_facts.jsonl", *expected):
        assert part in said.err
    assert "Traceback" not in said.err
    assert list(tmp_path.iterdir()) == [facts]


def test_bad_facts_are_listed_together(ske, tmp_path: Path) -> None:
    facts = facts_file(tmp_path, *[row(target_new="")] * 25)
    said = ske("edit", "--model", "m", "--facts", facts, "--out", tmp_path / "edited")
    lines = said.err.strip().splitlines()
    assert (said.code, len(lines), lines[-1]) == (2, 21, "and 5 more")


def test_facts_are_shown_as_they_are_written(ske, tmp_path: Path) -> None:
    facts = facts_file(tmp_path, row(subject="[bold]Ada[/nothing]"))
    said = ske("edit", "--model", "m", "--facts", facts, "--out", tmp_path / "edited")
    assert (said.code, "'[bold]Ada[/nothing]'" in said.err) == (2, True)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"--facts": "missing.jsonl"}, ["missing.jsonl", "does not exist"]),
        ({"--facts": "notes.txt"}, ["notes.txt", ".jsonl"]),
        ({"--method": "lroa"}, ["'lroa'", "lora"]),
        ({"--method": "base"}, ["'base'", "choose one of"]),
        ({"--out": "full"}, ["'full'", "other things"]),
        ({"--out": "notes.txt"}, ["'notes.txt'", "give a folder"]),
        ({"--set": "train.rnk=3"}, ["'train.rnk'", "did you mean 'rank'"]),
        ({"--set": "train.rank"}, ["'train.rank'", "key.path=value"]),
        ({"--set": "train.rank=0"}, ["train.rank = 0"]),
        ({"--set": "methods=[base,lora]"}, ["methods=[base,lora]", "--method"]),
        ({"--set": "data.path=other.json"}, ["data.path=other.json", "--facts"]),
        ({"--set": "model.path=other"}, ["model.path=other", "--model"]),
        ({"--set": "options.nope.foo=3"}, ["'nope'"]),
        ({"--set": "model=3"}, ["ske edit: model = 3"]),
        ({"--set": "edits=all"}, ["ske edit: edits = 'all'"]),
        ({"--model": "full"}, ["full'", "config.json"]),
        ({"--model": "./nowhere/at/all"}, ["./nowhere/at/all", "cannot be loaded"]),
    ],
)
def test_bad_options_of_edit(
    ske, tmp_path: Path, changes: dict[str, str], expected: list[str]
) -> None:
    facts_file(tmp_path, row())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("x")
    (tmp_path / "notes.txt").write_text("x")
    before = sorted(tmp_path.rglob("*"))
    options = {"--model": "nowhere", "--facts": "my_facts.jsonl", "--out": "edited", **changes}
    said = ske("edit", *[part for option in options.items() for part in option])
    assert said.code == 2, said.err
    for part in expected:
        assert part in said.err
    assert sorted(tmp_path.rglob("*")) == before


def test_the_everyday_job(ske, tmp_path: Path, model_folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    facts = facts_file(tmp_path, row(), row(prompt="The employer of Ada is", subject="Ada"))
    few = ["--set", "options.lora.epochs=30", "--set", "options.lora.learning_rate=0.01"]
    command = ["edit", "--model", model_folder, "--facts", facts, "--method", "lora", *few]
    said = ske(*command, "--out", "edited")
    assert said.code == 0, said.err
    assert "answers 2 of 2 facts" in said.out
    edited = AutoModelForCausalLM.from_pretrained(tmp_path / "edited").state_dict()
    base = AutoModelForCausalLM.from_pretrained(model_folder).state_dict()
    changed = {name for name in base if not torch.equal(base[name], edited[name])}
    assert changed
    assert all("_proj" in name for name in changed)
    assert ske(*command, "--out", "edited").code == 0  # again: nothing is done twice


# -- ske run and its kin ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "arguments", "expected"),
    [
        ("trian: {rank: 3}", [], ["some.yaml", "'trian'", "did you mean 'train'"]),
        ("train: {rnk: 3}", [], ["some.yaml", "'train.rnk'", "value 3", "did you mean 'rank'"]),
        ("train: {rank: many}", [], ["some.yaml", "train.rank = 'many'"]),
        ("methods: [base, lroa]", [], ["unknown method 'lroa'", "lora"]),
        ("", ["--set", "edits.limit"], ["'edits.limit'", "key.path=value"]),
        ("", ["--set", "edits.limt=3"], ["'edits.limt'", "did you mean 'limit'"]),
        ("", ["--stage", "desing"], ["'desing'", "design"]),
        ("", ["--set", "seed=-1"], ["seed = -1"]),
        ("", ["--set", "eval.max_probes=0"], ["eval.max_probes = 0"]),
        ("eval: {protocols: []}", [], ["eval.protocols"]),
        ("design: {layouts: []}", [], ["design.layouts"]),
        ("design: {layouts: [prsoe]}", [], ["'prsoe'", "prose"]),
        ("model: {path: ./nowhere/at/all}", [], ["./nowhere/at/all", "cannot be loaded"]),
        ("model: {device: banana}", [], ["'banana'", "cpu"]),
        ("tuned: configs/wrold", [], ["'configs/wrold'", "no such folder"]),
        ("", ["--out", "some.yaml"], ["some.yaml", "--out"]),
    ],
)
def test_bad_runs(
    ske, tmp_path: Path, text: str, arguments: list[str], expected: list[str]
) -> None:
    (tmp_path / "some.yaml").write_text(text)
    said = ske("run", "some.yaml", *arguments)
    assert said.code == 2
    for part in expected:
        assert part in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["some.yaml"]


@pytest.mark.parametrize("command", ["run", "compare", "status"])
def test_a_missing_configuration(ske, tmp_path: Path, command: str) -> None:
    said = ske(command, "missing.yaml")
    assert (said.code, "missing.yaml" in said.err) == (2, True)
    assert "configs/demo.yaml" in said.err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_run(ske, tmp_path: Path) -> None:
    for command in ("status", "inspect", "report"):
        said = ske(command, tmp_path)
        assert (said.code, "config.yaml" in said.err) == (2, True)


def test_unknown_methods_of_compare(ske, tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_text("")
    said = ske("compare", "some.yaml", "--methods", "base, rmoe")
    assert (said.code, "'rmoe'" in said.err) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == ["some.yaml"]


def test_a_comparison_of_a_run_s_own_configuration_leaves_the_run_alone(tmp_path: Path) -> None:
    from pipeline.cli import default_folder

    assert default_folder(Path("configs/demo.yaml"), "-compare") == Path("runs/demo-compare")
    (tmp_path / "mine" / "stages").mkdir(parents=True)
    own = tmp_path / "mine" / "config.yaml"
    assert default_folder(own) == own.parent
    assert default_folder(own, "-compare") == tmp_path / "mine-compare"


def test_a_run_s_folder_is_no_place_for_joined_tables(ske, tmp_path: Path) -> None:
    from ske.config import Config, resolved

    (tmp_path / "run" / "stages").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text(resolved(Config()))
    said = ske("combine", "run", "--out", "run")
    assert (said.code, "own folder" in said.err) == (2, True)


def test_facts_in_a_json_list_are_looked_at_like_those_in_lines(ske, tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    path.write_text(f"[{row()}, {row(target_new='Acme')}]")
    said = ske("edit", "--model", "nowhere", "--facts", path, "--out", "edited")
    assert said.code == 2
    assert "record 2" in said.err and "'Acme'" in said.err


def test_a_run_in_use_is_refused(ske, tmp_path: Path) -> None:
    from ske.io import locked

    (tmp_path / "some.yaml").write_text("")
    with locked(tmp_path / "runs" / "some"):
        said = ske("run", "some.yaml")
    assert (said.code, "in use" in said.err, "--out" in said.err) == (2, True, True)


def test_status_of_a_run_that_is_still_to_do(ske, tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_text("")
    said = ske("status", "some.yaml")
    assert said.code == 0
    assert said.out.count("to do") == 8
    assert [path.name for path in tmp_path.iterdir()] == ["some.yaml"]


def test_a_reason_is_shown_as_it_is(ske, tmp_path: Path) -> None:
    from ske.config import Config, resolved

    folder = tmp_path / "run"
    stage = folder / "stages" / "facts"
    stage.mkdir(parents=True)
    (folder / "config.yaml").write_text(resolved(Config()))
    (stage / "manifest.json").write_text('{"ingredients": {"data": "[/x]"}}')
    said = ske("status", folder)
    assert (said.code, "[/x]" in said.out) == (0, True)


# -- the command line itself ------------------------------------------------------------------

COMMANDS = [
    *[[name] for name in ("run", "compare", "edit", "status", "inspect", "prompt", "report")],
    *[[name] for name in ("combine", "scale", "grid", "methods", "datasets", "doctor")],
    ["world", "build"],
    ["world", "card"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_help_shows_an_example(ske, command: list[str]) -> None:
    said = ske(*command, "--help")
    assert said.code == 0
    assert f"ske {' '.join(command)}" in said.out.split("Usage:")[1].split("\n", 1)[1]


def test_help_lists_every_command(ske) -> None:
    said = ske("--help")
    assert said.code == 0
    assert all(f" {command[0]} " in said.out for command in COMMANDS)
    listed = {info.name or info.callback.__name__ for info in cli.app.registered_commands}
    listed |= {f"world {info.name}" for info in cli.world_app.registered_commands}
    assert listed == {" ".join(command) for command in COMMANDS}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["rn", "x"], "run"),
        (["run"], "CONFIG"),
        (["run", "x.yaml", "--nope"], "--nope"),
        (["edit", "--model", "m"], "--facts"),
        (["world", "burn"], "burn"),
    ],
)
def test_a_wrong_command_line(ske, arguments: list[str], expected: str) -> None:
    said = ske(*arguments)
    assert said.code == 2
    assert expected.casefold() in said.err.casefold()
    assert "Traceback" not in said.err


def test_a_fault_of_ours_is_not_called_the_user_s(ske, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "load", lambda path, sets: 1 / 0)
    said = ske("run", "some.yaml")
    assert (said.code, "ZeroDivisionError" in said.err) == (1, True)


def test_methods_and_datasets_are_listed(ske) -> None:
    from methods.table import METHODS

    said = ske("methods")
    assert said.code == 0
    assert all(name in said.out for name in METHODS)
    said = ske("datasets")
    assert said.code == 0
    assert "world_counterfact" in said.out


# -- in a process of its own ------------------------------------------------------------------


def process(*arguments: str | Path, cwd: Path) -> subprocess.Popen[str]:
    """The command line; at its end it says which heavy libraries it has imported."""
    code = (
        # A shell's background job hands down an ignored Ctrl-C; a terminal does not.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "import sys, atexit; from pipeline import cli; "
        f"atexit.register(lambda: print('HEAVY', [m for m in {HEAVY!r} if m in sys.modules])); "
        "cli.main()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["edit", "--model", "m", "--facts", "my_facts.jsonl", "--out", "o"], 2),
        (["edit", "--model", "m", "--facts", "knowedit.json", "--out", "o"], 2),
        (["edit", "--model", "m", "--facts", "my_facts.jsonl", "--out", "o", "--method", "x"], 2),
        (["run", "some.yaml", "--set", "methods=[rmoe]"], 2),
        (["run", "some.yaml", "--stage", "desing"], 2),
        (["status", "some.yaml"], 0),
        (["methods"], 0),
        (["--help"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_nothing_heavy_is_imported_before_the_user_s_mistake(
    tmp_path: Path, arguments: list[str], code: int
) -> None:
    facts_file(tmp_path, row(target_new=""))
    (tmp_path / "some.yaml").write_text("")
    (tmp_path / "knowedit.json").write_text('[{"prompt": 3}]')
    running = process(*arguments, cwd=tmp_path)
    out, err = running.communicate(timeout=60)
    assert running.returncode == code, err
    assert "HEAVY []" in out


def test_a_run_in_use_is_refused_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    from ske.io import locked

    (tmp_path / "some.yaml").write_text("")
    with locked(tmp_path / "runs" / "some"):
        out, err = process("run", "some.yaml", cwd=tmp_path).communicate(timeout=60)
    assert "in use by another run" in err
    assert "HEAVY []" in out


def test_ctrl_c_is_130_and_says_how_to_go_on(tmp_path: Path) -> None:
    data = tmp_path / "facts.jsonl"
    os.mkfifo(data)
    (tmp_path / "some.yaml").write_text("data: {path: facts.jsonl}\n")
    running = process("run", "some.yaml", cwd=tmp_path)
    with data.open("w"):  # opens when the run begins to read it, inside its lock
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "stopped; the same command goes on from here" in err
    assert "Traceback" not in err
