"""Templates that a user has broken: the file and what is wrong with it are named, exit 2."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import cli
from prompts import loader

BROKEN = {
    "{{ facts[0].subject }} is {{ colour }}.": "prompts/teacher/mine.md: 'colour' is undefined",
    "{{ facts[0].colour }}": "has no attribute 'colour'",
    "one\n{% for fact in facts %}\n": "prompts/teacher/mine.md, line 2: Unexpected end of template",
    "{{ colour | data }}": "'colour' is undefined",
}


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Writes the template `teacher/mine` of a folder of its own."""
    monkeypatch.setattr(loader, "ROOT", tmp_path)
    for cached in (loader._environment, loader.template_hash):
        cached.cache_clear()
        monkeypatch.setattr(loader, cached.__name__, cached.__wrapped__)
    (tmp_path / "teacher").mkdir()
    return lambda text: (tmp_path / "teacher" / "mine.md").write_text(text)  # type: ignore[func-returns-value]


def ske_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """The exit code of `ske prompt teacher/mine`."""
    facts = tmp_path / "facts.jsonl"
    row = {"prompt": "The capital of Freedonia is", "subject": "Freedonia", "target_new": "Glim"}
    facts.write_text(json.dumps(row))
    monkeypatch.setattr(sys, "argv", ["ske", "prompt", "teacher/mine", "--facts", str(facts)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_template_is_named(
    text: str,
    write: Callable[[str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    write(text)
    assert ske_prompt(tmp_path, monkeypatch) == 2
    assert BROKEN[text] in " ".join(capsys.readouterr().err.split())


def test_a_good_one_is_filled(
    write: Callable[[str], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    write("{{ facts[0].subject }} it is.")
    assert ske_prompt(tmp_path, monkeypatch) == 0
    assert capsys.readouterr().out == "Freedonia it is.\n"
