"""The facts reader: what it accepts, and that each mistake is named with its place and a remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ske.facts import conflicts, read_facts
from ske.types import Fact, UserError

GOOD = {"prompt": "The mayor of Vell is", "subject": "Vell", "target_new": "Odo Brann"}


def fact(**changes: Any) -> dict[str, Any]:
    """A good row with some keys changed; None takes a key out."""
    return {key: value for key, value in (GOOD | changes).items() if value is not None}


def write(path: Path, *rows: Any) -> Path:
    """A .jsonl file; texts are written as they are."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def message(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_facts(path)
    return str(caught.value)


def test_reads_lines_ignores_blank_ones_and_numbers_facts(tmp_path: Path) -> None:
    other = fact(prompt="The river of Vell is", target_new=" Sorn ", ground_truth=None)
    path = write(tmp_path / "mine.jsonl", GOOD, "", "   ", other | {"relation": None})
    facts = read_facts(path)
    assert [f.id for f in facts] == ["mine-0001", "mine-0002"]
    assert facts[1].target_new == "Sorn"
    assert facts[1].relation is None


@pytest.mark.parametrize("name", ["mine.jsonl", "mine.json"])
def test_a_key_given_twice_is_named_with_its_line(tmp_path: Path, name: str) -> None:
    twice = (
        '{"prompt": "{Vell\\": is", "subject": "Vell", "target_new": "A", "target\\u005fnew": "B"}'
    )
    rows = [json.dumps(GOOD), twice]
    path = tmp_path / name
    path.write_text("\n".join(rows) if name == "mine.jsonl" else f"[{rows[0]},\n{rows[1]}]")
    assert f"{name} line 2, key 'target_new': stands twice" in message(path)
    other = '{"other": {"target_new": "a"}, "target_new": ["x", {"target_new": "b"}]}'
    path.write_text(other if name == "mine.jsonl" else f"[\n{other}]")
    assert "twice" not in message(path)


def test_a_subject_in_another_unicode_form_than_the_prompt(tmp_path: Path) -> None:
    decomposed = fact(prompt="The mayor of Ze\u0301ll is", subject="Z\u00e9ll")
    said = message(write(tmp_path / "mine.jsonl", decomposed))
    assert said.startswith('mine.jsonl line 1, key "subject": ')
    assert "looks the same" in said and "NFC" in said and "NFD" in said
    assert "NFC" not in message(write(tmp_path / "mine.jsonl", fact(subject="Z\u00e9ll")))


def test_optional_keys_are_kept(tmp_path: Path) -> None:
    row = fact(id="vell", ground_truth="Ada Moss", relation="head_of_government")
    [read] = read_facts(write(tmp_path / "mine.jsonl", row))
    assert read == Fact.model_validate(row)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_byte_order_mark_line_ends_and_odd_characters(
    tmp_path: Path, encoding: str, end: str
) -> None:
    odd = json.dumps(fact(target_new="Zoë\u2028Ström"), ensure_ascii=False)
    path = tmp_path / "mine.jsonl"
    path.write_bytes((odd + end).encode(encoding))
    assert read_facts(path)[0].target_new == "Zoë\u2028Ström"


def test_json_list_is_read_and_its_records_count_from_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps([GOOD]), encoding="utf-8")
    assert read_facts(path)[0].id == "mine-0001"
    path.write_text(json.dumps([GOOD, fact(target_new="")]), encoding="utf-8")
    assert message(path).startswith("mine.json record 2, key \"target_new\": ''")
    path.write_text(json.dumps([GOOD, 3]), encoding="utf-8")
    assert "record 2: 3 is not an object" in message(path)
    for text in ("{}", "[]", "null"):
        path.write_text(text, encoding="utf-8")
        assert "is not a list of facts" in message(path)
    path.write_text('[\n{"prompt": }]', encoding="utf-8")
    assert "mine.json line 2, column 12: not JSON" in message(path)


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        (fact(subject=None), ['key "subject": missing', "prompt, subject, target_new"]),
        (fact(taget_new="x"), ["key 'taget_new': unknown key", 'did you mean "target_new"?']),
        (fact(zzz="x"), ["key 'zzz': unknown key", "known: prompt"]),
        (fact(target_new=""), ["key \"target_new\": '' is empty"]),
        (fact(prompt="  \t"), ["key \"prompt\": '  \\t' is empty"]),
        (fact(target_new=1984), ['key "target_new": 1984 is not a text', "double quotes"]),
        (fact(target_new=["x"]), ["['x'] is not a text"]),
        (fact(target_new=True), ["True is not a text"]),
        (GOOD | {"target_new": None}, ["None is not a text"]),
        (fact(id=7), ['key "id": 7 is not a text']),
        (fact(target_new="\ud83d"), ["half of a character pair"]),
        (
            fact(subject="Ada"),
            [
                "'Ada' does not occur in the prompt 'The mayor of Vell is'",
                "write the subject as it stands in the prompt",
            ],
        ),
        ("{'prompt': 1}", ["column 2: not JSON", "near"]),
        ('{"prompt": "The', ["not JSON"]),
        ("17", ["17 is not an object"]),
    ],
)
def test_each_mistake_is_named(tmp_path: Path, row: Any, parts: list[str]) -> None:
    path = write(tmp_path / "my_facts.jsonl", fact(prompt="The hill of Vell is"), "", row)
    said = message(path)
    assert said.startswith("my_facts.jsonl line 3")
    assert "\n" not in said
    for part in parts:
        assert part in said


def test_repeats_name_both_lines(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine.jsonl",
        fact(id="a"),
        fact(id="b", target_new="Ada Moss"),
        fact(id="c", prompt="The mayor of  Vell is "),
        fact(id="a", prompt="The river of Vell is"),
    )
    two, three, four = message(path).split("\n")
    assert two.startswith('mine.jsonl line 2, key "prompt":')
    assert "line 1, with another target ('Odo Brann' there, 'Ada Moss' here)" in two
    assert three.startswith("mine.jsonl line 3")
    assert "line 1, with the same target; delete" in three
    assert four == "mine.jsonl line 4, key \"id\": 'a' is also the id of line 1"


def test_mistakes_are_listed_together_up_to_twenty(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", *[fact(target_new=number) for number in range(25)])
    lines = message(path).split("\n")
    assert len(lines) == 21
    assert lines[19].startswith("mine.jsonl line 20,")
    assert lines[20] == "and 5 more"


def test_long_values_are_cut(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.jsonl", fact(subject="x" * 5000))
    assert len(message(path)) < 400


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "does not exist" in message(tmp_path / "none.jsonl")
    assert "is a folder" in message(tmp_path)
    path = tmp_path / "mine.jsonl"
    path.write_bytes(b" \n\n")
    assert "is empty" in message(path)
    path.write_bytes(json.dumps(fact(target_new="Zoë"), ensure_ascii=False).encode("latin-1"))
    assert "is not UTF-8 (byte 71 is 0xeb)" in message(path)
    path.write_text(json.dumps([GOOD], indent=1), encoding="utf-8")
    assert "rename it to mine.json" in message(path)
    path.write_text("[" * 100_000, encoding="utf-8")
    message(path)
    assert "neither .jsonl" in message(write(tmp_path / "mine.csv", GOOD))


def test_conflicts_keep_the_first_target_of_each_prompt() -> None:
    rows = [("a", "p", "x"), ("b", "p ", "y"), ("c", "p", "x"), ("d", "q", "y")]
    facts = [Fact(id=i, subject="p", prompt=prompt, target_new=t) for i, prompt, t in rows]
    found = conflicts(facts)
    assert [(c.first.id, c.later.id) for c in found] == [("a", "b")]
    assert not conflicts([fact for fact in facts if fact.id != "b"])
