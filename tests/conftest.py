"""Before torch or transformers is imported: one thread, no network."""

import gc
import os
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: then no process is left with one of them at the end."""
    items.sort(key=lambda item: "whole" not in item.path.parts)


MANY = 200
"""Modules that have been imported since: then the collector is told again to pass them by."""
spared: set[str] = set()


def pytest_collection_finish() -> None:
    """Most libraries are loaded now."""
    spare_libraries()


def pytest_runtest_logfinish() -> None:
    """Others are loaded by the first test that trains."""
    if len(sys.modules) > len(spared) + MANY:
        spare_libraries()


def spare_libraries() -> None:
    """The collector, which every edit calls, looks through what is made from now on only."""
    spared.update(sys.modules)
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny model, as a user would name it."""
    import tiny

    folder = tmp_path_factory.mktemp("models") / "qwen3"
    lm = tiny.lm("qwen3")
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def ske(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The command line in this process, started in `tmp_path`: ske("run", "some.yaml")."""
    from pipeline import cli

    monkeypatch.chdir(tmp_path)

    def call(*arguments: str | Path) -> Said:
        monkeypatch.setattr(sys, "argv", ["ske", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        found = capsys.readouterr()
        return Said(code, found.out, found.err)

    return call
