"""`ske edit`: which facts it takes, what it says of the others, and what lies in its folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

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
