"""`ske edit`: which facts it takes, what it says of the others, and what lies in its folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipeline.publishing import PUBLISHED, publish, remember

GOOD = {"prompt": "The capital of Ruria is", "subject": "Ruria", "target_new": "Vell"}


def row(**changes: object) -> str:
    return json.dumps({**GOOD, **changes})


def test_a_byte_order_mark_takes_no_check_away(ske, tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    path.write_text(f"[{row()}, {row(target_new='Acme')}]", encoding="utf-8-sig")
    said = ske("edit", "--model", "nowhere", "--facts", path, "--out", "edited")
    assert said.code == 2
    assert "record 2" in said.err and "'Acme'" in said.err


@pytest.mark.parametrize("text", ["null", "[]", "3", '"facts"', "[" * 100_000])
def test_json_that_is_no_list_of_facts(ske, tmp_path: Path, text: str) -> None:
    path = tmp_path / "facts.json"
    path.write_text(text)
    said = ske("edit", "--model", "nowhere", "--facts", path, "--out", "edited")
    assert said.code == 2
    assert str(path) in said.err and "target_new" in said.err and "Traceback" not in said.err


def test_facts_that_are_left_out_of_a_data_set_are_told(tmp_path: Path) -> None:
    from pipeline.editing import check_facts

    path = tmp_path / "facts.json"
    records = [row(note="x"), row(target_new="Acme"), row(target_new=""), row()]
    path.write_text(f"[{', '.join(records)}]")
    empty, other, same = check_facts(path)
    assert "record 2" in empty and '"target_new" is empty' in empty and GOOD["prompt"] in empty
    assert "'facts-0001'" in other and GOOD["prompt"] in other and "'facts-0000'" in other
    assert "'Vell' there, 'Acme' here" in other
    assert "'facts-0003'" in same and "the same target" in same


def test_a_data_set_without_a_usable_fact(ske, tmp_path: Path) -> None:
    path = tmp_path / "facts.json"
    path.write_text(f"[{row(target_new='', note='x')}]")
    said = ske("edit", "--model", "nowhere", "--facts", path, "--out", "edited")
    assert said.code == 2
    assert f"{path}: no fact" in said.err and "record 0" in said.err


def test_what_is_not_used_is_counted_by_kind() -> None:
    from eval.cases import Skipped
    from pipeline.facts import counted

    about = {"file": "f", "where": "w", "reason": "r"}
    rows = [("record", 1), ("probe", 2), ("record", 1), ("key", 1)]
    skipped = [Skipped(kind=kind, count=count, **about) for kind, count in rows]
    assert counted(skipped) == "2 records, 2 probes, 1 key"


# -- the folder -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["prompt", "ike", "retrieval", "svf"])
def test_a_method_that_changes_no_weights_is_refused_before_anything_is_written(
    ske, tmp_path: Path, model_folder: Path, method: str
) -> None:
    facts = tmp_path / "my_facts.jsonl"
    facts.write_text(row())
    student(tmp_path / "edited", "config.json")
    before = sorted(tmp_path.rglob("*"))
    command = ["edit", "--model", model_folder, "--facts", facts, "--method", method]
    for out in ("edited", "new"):
        said = ske(*command, "--out", out)
        assert said.code == 2
        assert f"'{method}'" in said.err and "changes no weights" in said.err
        assert "memit" in said.err
    assert sorted(tmp_path.rglob("*")) == before


def student(out: Path, *names: str, text: str = "x") -> None:
    """The student of a run in `out`, with these files."""
    folder = out / "run" / "student"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)


def names(out: Path) -> set[str]:
    return {path.name for path in out.iterdir()} - {"run"}


def test_of_an_earlier_checkpoint_nothing_stays(tmp_path: Path) -> None:
    student(tmp_path, "config.json", "chat_template.jinja", "templates/a.jinja", text="old")
    publish(tmp_path)
    (tmp_path / "notes.md").write_text("mine")
    assert names(tmp_path) == {"config.json", "chat_template.jinja", "templates", "notes.md"}
    student(tmp_path, "config.json", "templates/b.jinja", text="new")
    publish(tmp_path)
    assert names(tmp_path) == {"config.json", "templates", "notes.md"}
    assert names(tmp_path / "templates") == {"b.jinja"}
    assert (tmp_path / "config.json").read_text() == "new"
    student(tmp_path, "config.json")
    publish(tmp_path)
    assert names(tmp_path) == {"config.json", "notes.md"}


def test_of_an_older_version_s_checkpoint_nothing_stays(tmp_path: Path) -> None:
    student(tmp_path, "config.json", "chat_template.jinja")
    for name in ("config.json", "chat_template.jinja", "notes.md"):
        (tmp_path / name).write_text("old")
    remember(tmp_path)
    student(tmp_path, "config.json")
    publish(tmp_path)
    assert names(tmp_path) == {"config.json", "notes.md"}


@pytest.mark.parametrize("last", range(6))
def test_a_kill_leaves_no_mixture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    student(tmp_path, "config.json", "model.safetensors", "chat_template.jinja", text="old")
    publish(tmp_path)
    student(tmp_path, "config.json", "model.safetensors", "vocab.json", text="new")
    done = 0

    def dying(self: Path, target: Path, real=Path.replace) -> Path:
        nonlocal done
        if done == last:
            raise KeyboardInterrupt
        done += 1
        return real(self, target)

    monkeypatch.setattr(Path, "replace", dying)
    try:
        publish(tmp_path)
    except KeyboardInterrupt:
        if (tmp_path / "config.json").exists():
            texts = {(tmp_path / n).read_text() for n in ("config.json", "model.safetensors")}
            assert len(texts) == 1
            assert (tmp_path / "chat_template.jinja").exists() == (texts == {"old"})
    monkeypatch.undo()
    publish(tmp_path)
    assert names(tmp_path) == {"config.json", "model.safetensors", "vocab.json"}
    assert {(tmp_path / name).read_text() for name in names(tmp_path)} == {"new"}
    assert json.loads((tmp_path / "run" / PUBLISHED).read_text()) == sorted(names(tmp_path))
