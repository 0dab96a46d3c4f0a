"""Practice examples and texts: other subjects than the facts', no probes, clear refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from pipeline.facts import read_cases
from pipeline.practice import examples, read_texts, without, workshop
from pipeline.run import Run
from ske.config import Config
from ske.types import UserError


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on `val` people whose facts are drawn: practice comes from the same file."""
    folder = tmp_path_factory.mktemp("practice") / "run"
    data = Config().data.model_copy(update={"split": "val"})
    config = Config(data=data, edits=Config().edits.model_copy(update={"limit": 24}))
    run = Run(config, folder, Console(quiet=True))
    run.execute("facts")
    return run


def test_examples_are_about_nobody_that_is_edited(drawn: Run, tmp_path: Path) -> None:
    found = examples(drawn, tmp_path)
    cases = read_cases(drawn)
    subjects = {case.fact.subject for case in cases}
    assert len(found) == drawn.config.practice.limit
    assert not subjects & {example.fact.subject for example in found}
    assert len({example.fact.subject for example in found}) > 100
    assert sum(bool(example.paraphrases) for example in found) > 200
    assert all(answer for example in found for _, answer in example.unrelated)
    probes = {
        probe.prompt
        for case in cases
        for group in (case.paraphrase, *case.portability.values(), *case.locality.values())
        for probe in group
    }
    shown = {text for example in found for text in example.paraphrases}
    shown |= {prompt for example in found for prompt, _ in example.unrelated}
    assert shown and not probes & shown


def test_examples_are_the_same_every_time(drawn: Run, tmp_path: Path) -> None:
    assert examples(drawn, tmp_path / "a") == examples(drawn, tmp_path / "b")


def test_a_subject_in_another_case_is_still_the_same(drawn: Run) -> None:
    cases = read_cases(drawn)
    first = cases[0].fact
    shouted = first.model_copy(update={"subject": first.subject.upper(), "prompt": "Other"})
    assert without(cases, [shouted])[0].fact.subject != first.subject
    assert len(without(cases, [case.fact for case in cases])) == 0


def test_texts_are_read_by_paragraph_or_refused(drawn: Run, tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_text("One line.\nThe same paragraph.\n\n\nAnother.\n")
    assert read_texts(path) == ["One line.\nThe same paragraph.", "Another."]
    path.write_text(" \n\n ")
    with pytest.raises(UserError, match=r"texts\.path.*empty"):
        read_texts(path)
    with pytest.raises(UserError, match=r"texts\.path.*cannot be read"):
        read_texts(tmp_path / "missing.txt")
    assert workshop(drawn, tmp_path).texts is None


def test_the_cache_is_where_the_environment_says(
    drawn: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKE_CACHE", str(tmp_path / "kept"))
    assert workshop(drawn, tmp_path).cache == tmp_path / "kept"
