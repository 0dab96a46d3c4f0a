"""The comparison with the authors' code: what is taken out of their files, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.authors import __main__ as authors
from bench.authors.excerpt import excerpt, module
from bench.authors.models import SHAPES, corrections, requests, toy
from ske.types import UserError

THEIRS = """
import a_library_that_is_not_here

WHERE = "cuda"

def place(x: a_library_that_is_not_here.Tensor) -> str:
    return helper(x) + "cuda"

def helper(x):
    return f"{x} on "

def unwanted():
    raise RuntimeError
"""


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    path = tmp_path / "theirs.py"
    path.write_text(THEIRS, encoding="utf-8")
    return path


def test_functions_are_taken_by_name_without_what_else_the_file_wants(theirs: Path) -> None:
    scope: dict[str, Any] = {}
    excerpt(theirs, {"place", "helper"}, scope, {'"cuda"': '"cpu"'})
    assert scope["place"]("it") == "it on cpu"
    assert "unwanted" not in scope
    assert module("all_of_it", theirs, {}).place("it") == "it on cuda"


def test_another_version_of_the_file_is_refused(theirs: Path) -> None:
    with pytest.raises(UserError, match="'rocm' does not occur"):
        excerpt(theirs, {"place"}, {}, {"rocm": "cpu"})
    with pytest.raises(UserError, match="no somewhere"):
        excerpt(theirs, {"somewhere"}, {})
    with pytest.raises(UserError, match="no such file"):
        excerpt(theirs.parent / "other.py", (), {})


def test_without_checkouts_there_is_nothing_to_compare(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, told in (([], "at least one checkout"), (["--rome", str(tmp_path)], "nethook")):
        with pytest.raises(SystemExit) as stopped:
            authors.main(arguments)
        assert stopped.value.code == 2
        assert told in capsys.readouterr().err


@pytest.mark.parametrize("kind", SHAPES)
def test_both_sides_read_the_same_text(kind: str) -> None:
    (fact,) = corrections(1)
    (asked,) = requests([fact])
    assert asked["prompt"].format(asked["subject"]) == fact.prompt
    lm = toy(kind)
    assert lm.tokenizer(fact.prompt).input_ids == lm.renderer.prompt_ids(
        [{"role": "user", "content": fact.prompt}]
    )
    answer = lm.renderer.answer_ids([{"role": "user", "content": fact.prompt}], fact.target_new)
    assert (
        lm.tokenizer(fact.prompt + asked["target_new"]["str"]).input_ids[-len(answer) :] == answer
    )
