"""Files of a run folder that are broken: which file and line, and what to do, never a traceback."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from minirun import minirun
from pydantic import BaseModel

from pipeline.run import Run
from ske.io import read_json, read_kept, read_records, read_rows
from ske.types import UserError


class Line(BaseModel):
    n: int


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return minirun(tmp_path_factory.mktemp("broken") / "run")


DESIGN = "stages/design/design.json"
SUMMARY = "stages/facts/summary.json"
COSTS = "stages/edit/items/prompt/costs.json"


@pytest.mark.parametrize(
    ("command", "name", "text", "parts"),
    [
        ("report", SUMMARY, "{}", ["key 'dataset' is missing"]),
        ("report", SUMMARY, '{"a": 1', ["not JSON"]),
        ("report", COSTS, '{"sec', ["not JSON", "stages/edit/manifest.json and "]),
        ("report", DESIGN, "xx", ["not JSON"]),
        ("report", DESIGN, "{}", ["key 'packs'"]),
        ("inspect", DESIGN, "xx", ["not JSON"]),
        ("inspect", DESIGN, "[]", ["design.json: "]),
        ("inspect", "stages/design/trace.jsonl", "{}\n", ["trace.jsonl, line 1: key 'stage'"]),
        ("report", "stages/facts/cases.jsonl", "xx\n", ["cases.jsonl, line 1: not a row"]),
        ("report", "stages/teach/leakage.json", "xx", ["not JSON"]),
        ("report", "stages/design/curve.json", "[{}]", ["curve.json: key 'layout'"]),
    ],
)
def test_a_broken_file_is_named_with_what_to_do(
    ske, whole: Run, tmp_path: Path, command: str, name: str, text: str, parts: list[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole.folder, run)
    (run / name).write_text(text)
    said = ske(command, run)
    told = " ".join(said.err.split())
    stage = run / Path(name).parts[0] / Path(name).parts[1]
    assert said.code == 2 and "Traceback" not in told and "pydantic" not in told
    for part in (f"{run / name}", f"delete {stage}/manifest.json", f"ske run {run}/config", *parts):
        assert part in told


@pytest.mark.parametrize("command", ["report", "inspect"])
def test_facts_that_are_cut_are_named(ske, whole: Run, tmp_path: Path, command: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole.folder, run)
    path = run / "stages" / "facts" / "facts.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    said = ske(command, run, *(["--fact", "world-0000"] if command == "inspect" else []))
    told = " ".join(said.err.split())
    assert (said.code, f"{path}, line 4: not a row of JSON" in told) == (2, True)


def test_of_a_round_the_run_that_it_belongs_to_is_named(tmp_path: Path) -> None:
    run = tmp_path / "stages" / "run"  # A folder of the user's may have the same name.
    inner = run / "stages" / "train" / "items" / "round-0002"
    path = inner / "stages" / "teach" / "lessons.jsonl"
    path.parent.mkdir(parents=True)
    for folder in (run, inner):
        (folder / "config.yaml").write_text("")
    path.write_text('{"n": 1}\n{"n"\n')
    with pytest.raises(UserError) as told:
        read_rows(path)
    gone = " and ".join(str(f / "manifest.json") for f in (run / "stages/train", path.parent))
    assert str(told.value).startswith(f"{path}, line 2: not a row of JSON")
    assert str(told.value).endswith(f"delete {gone}, then: ske run {run}/config.yaml")


def test_a_torn_end_is_work_owed_where_lines_are_added_and_else_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": 1}\n{"n"')
    assert read_rows(path) == [{"n": 1}]
    with pytest.raises(UserError, match=r"rows\.jsonl, line 2: not a row .*put it back"):
        read_records(path, Line)
    path.write_text('{"n": "x"}\n')
    with pytest.raises(UserError, match=r"rows\.jsonl, line 1: key 'n', value 'x'"):
        read_records(path, Line)
    path.write_text("5\n")
    with pytest.raises(UserError, match=r"rows\.jsonl, line 1: not a row of JSON but '5'"):
        read_rows(path)
    with pytest.raises(UserError, match=r"gone\.json: cannot be read"):
        read_json(tmp_path / "gone.json")


@pytest.mark.parametrize("bad", ["xx", "{}", '{"n": "x"}', "\x00"])
def test_what_stands_before_a_broken_line_is_kept(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "items.jsonl"
    assert read_kept(path, Line) == []
    path.write_text(f'{{"n": 1}}\n{{"n": 2}}\n{bad}\n{{"n": 4}}\n')
    assert [one.n for one in read_kept(path, Line)] == [1, 2]
