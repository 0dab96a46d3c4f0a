"""Bad input for `ske report`: named, exit 2, and nothing is overwritten."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from minirun import minirun, rows_of

from pipeline import checking, cli, report, scoring
from pipeline.run import Run
from ske.config import EndpointConfig, load, resolved
from ske.io import file_hash, write_json, write_rows, write_text
from ske.types import UserError


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = minirun(tmp_path_factory.mktemp("runs") / "mini")
    run.stage("report").mkdir(parents=True)
    report.run(run, run.stage("report"))
    return run.folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "mini"))


def hashes(folder: Path) -> dict[Path, str]:
    """All files but the lock, which says only who works here."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: file_hash(path) for path in files}


def told(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> str:
    """What `ske report` says of a folder that it refuses; nothing in the folder may change."""
    before = hashes(folder)
    monkeypatch.setattr(sys, "argv", ["ske", "report", str(folder)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert before == hashes(folder)
    return " ".join(capsys.readouterr().err.split())


def change(path: Path, number: int, **changes: Any) -> None:
    rows = rows_of(path)
    rows[number] |= changes
    write_rows(path, rows)


def rows_file(folder: Path) -> Path:
    return folder / "stages" / "ask" / "rows.jsonl"


def test_a_good_folder_is_reported(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["ske", "report", str(folder)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0, capsys.readouterr().err


@pytest.mark.parametrize("name", ["rows.jsonl", "capability.jsonl"])
def test_a_missing_row_file_is_named(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (folder / "stages" / "ask" / name).unlink()
    said = told(folder, monkeypatch, capsys)
    assert f"stages/ask/{name} cannot be read" in said and "ske run" in said


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"divergence": [0.1, float("nan")]}, ["key 'divergence' holds NaN", "not a number"]),
        ({"prior": float("inf")}, ["key 'prior' holds Infinity"]),
        ({"hits": [1, 2]}, ["key 'hits.1', value '2'"]),
        ({"metric": "beauty"}, ["key 'metric', value 'beauty'"]),
        ({"colour": "red"}, ["key 'colour', value 'red'"]),
        ({"base_text": None, "metric": "locality"}, ["has no base_text and no error"]),
    ],
)
def test_a_broken_row_is_named_by_its_line(
    changes: dict[str, Any],
    parts: list[str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    change(rows_file(folder), 4, **changes)
    said = told(folder, monkeypatch, capsys)
    for part in ["rows.jsonl, line 5:", *parts]:
        assert part in said


def test_a_line_that_is_no_json_and_a_skill_without_a_number(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    path = folder / "stages" / "ask" / "capability.jsonl"
    change(path, 1, score=float("nan"))
    said = told(folder, monkeypatch, capsys)
    assert "capability.jsonl, line 2: key 'score' holds NaN" in said
    path = rows_file(folder)
    path.write_bytes(b"{broken\n" + path.read_bytes())
    assert "rows.jsonl, line 1: not a row of JSON" in told(folder, monkeypatch, capsys)


def test_answers_of_another_data_set_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    summary = folder / "stages" / "facts" / "summary.json"
    facts = json.loads(summary.read_text(encoding="utf-8"))
    write_json(summary, facts | {"dataset": "zsre"})
    assert "data set 'mini', but the facts of" in told(folder, monkeypatch, capsys)


def test_a_configuration_of_another_data_set_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    data = Run(load(folder / "config.yaml"), folder).config.data.model_dump(mode="json")
    drawn = data | {"name": "world_recent"}
    write_json(folder / "stages" / "facts" / "manifest.json", {"ingredients": {"data": drawn}})
    said = told(folder, monkeypatch, capsys)
    assert "config.yaml: data.name = 'world_counterfact', but the facts" in said
    assert "drawn with 'world_recent'" in said and "--out runs/NAME" in said


def test_answers_about_other_edits_are_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    # Another draw of the same data set: its ids are the same.
    facts = folder / "stages" / "facts" / "facts.jsonl"
    change(facts, 2, prompt="The employer of Bela is")
    said = told(folder, monkeypatch, capsys)
    assert "case 'world-0002' with the prompt 'The employer of Ada 2 is' is none of" in said
    rows = rows_of(facts)
    write_rows(facts, rows[:2])
    assert "case 'world-0002'" in told(folder, monkeypatch, capsys)


def test_a_method_without_answers_and_missing_facts_are_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    path = rows_file(folder)
    write_rows(path, [row for row in rows_of(path) if row["method"] != "prompt"])
    assert "has no answers of prompt" in told(folder, monkeypatch, capsys)
    (folder / "stages" / "facts" / "summary.json").unlink()
    assert "stages/facts/summary.json is missing" in told(folder, monkeypatch, capsys)
    write_rows(path, [])
    assert "is empty" in told(folder, monkeypatch, capsys)


def test_retention_is_checked_like_the_other_answers(folder: Path) -> None:
    batch = Run(load(folder / "config.yaml"), folder)
    edits = batch.config.edits.model_copy(update={"mode": "sequential"})
    run = Run(batch.config.model_copy(update={"edits": edits}), folder)
    path = folder / "stages" / "ask" / "retention.jsonl"
    with pytest.raises(UserError, match=r"retention\.jsonl cannot be read .* then: ske run"):
        checking.asked(run)
    saved = [dict(row) for row in rows_of(rows_file(folder))]
    rows: list[dict[str, Any]] = [{"after_round": 1, "round": 1, "row": row} for row in saved]
    write_rows(path, rows)
    assert len(checking.asked(run).retention) == len(rows)
    assert checking.asked(batch).retention == []
    for changes, said in (
        ({"round": 2}, "line 1: .* of round 2 was asked after round 1"),
        ({"row": {**rows[0]["row"], "hits": [2]}}, r"line 1: key 'row\.hits\.0', value '2'"),
        ({"row": {**rows[0]["row"], "dataset": "zsre"}}, "answers for data set 'zsre'"),
        ({"row": {**rows[0]["row"], "case": "x"}}, "case 'x' .* is none of the edits"),
    ):
        write_rows(path, [rows[0] | changes, *rows[1:]])
        with pytest.raises(UserError, match=rf"retention\.jsonl.*{said}"):
            checking.asked(run)
    write_rows(path, [row for row in rows if row["row"]["method"] != "prompt"])
    with pytest.raises(UserError, match=r"retention\.jsonl has no answers of prompt"):
        checking.asked(run)


def test_a_torn_last_line_is_work_owed(finished: Path, tmp_path: Path) -> None:
    run = minirun(tmp_path)
    path = rows_file(tmp_path)
    whole = len(checking.asked(run).rows)
    with path.open("ab") as file:
        file.write(b'{"method": "ske", "data')
    assert len(checking.asked(Run(run.config, run.folder)).rows) == whole


JUDGE = {"base_url": "http://localhost:1/v1", "model": "marker"}
VERDICT = {"method": "base", "dataset": "mini", "seed": 0, "case": "world-0001"}
VERDICT |= {"metric": "edit_success", "category": "all", "probe": 0, "right": True}


def judging(folder: Path) -> Path:
    """The same run with a judge in its configuration; where its verdicts belong."""
    run = Run(load(folder / "config.yaml"), folder)
    told = EndpointConfig.model_validate(JUDGE)
    config = run.config.model_copy(
        update={"eval": run.config.eval.model_copy(update={"judge": told})}
    )
    write_text(folder / "config.yaml", resolved(config))
    return folder / "stages" / "ask" / "judged.jsonl"


def test_verdicts_that_a_run_should_have_are_missed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    path = judging(folder)
    assert "judged.jsonl cannot be read" in told(folder, monkeypatch, capsys)
    write_rows(path, [VERDICT])
    assert "judged.jsonl has no answers of prompt, ske" in told(folder, monkeypatch, capsys)
    write_rows(path, [VERDICT | {"case": "world-0099"}])
    said = told(folder, monkeypatch, capsys)
    assert "judged.jsonl: case 'world-0099' is none of the edits" in said


def test_sentences_that_a_run_should_have_are_missed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    cases = folder / "stages" / "facts" / "cases.jsonl"
    change(cases, 1, opinions={"same": [{"prompt": "What of rain?", "answers": [["Lovely."]]}]})
    assert "opinions.jsonl cannot be read" in told(folder, monkeypatch, capsys)


def test_rows_without_a_value_are_counted_whatever_their_file(folder: Path) -> None:
    path = judging(folder)
    unread = {"right": None, "error": "no verdict: Hm."}
    methods = ("base", "prompt", "ske")
    write_rows(path, [VERDICT | {"method": m} | (unread if m == "ske" else {}) for m in methods])
    change(folder / "stages" / "ask" / "capability.jsonl", 0, error="no finite loss")
    run = Run(load(folder / "config.yaml"), folder)
    scoring.run(run, run.stage("score"))
    report.run(run, run.stage("report"))
    text = (folder / "report.md").read_text(encoding="utf-8")
    [line] = [line for line in text.splitlines() if line.startswith("- Error rows")]
    assert "SKE edit success judged (generate) 1" in line
    assert "BASE capability (generate) 1" in line
