"""A run's folder is good from everywhere, whatever its paths were relative to when it began."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from pipeline.run import Run
from pipeline.stage import Stage, ingredients, plan, read_manifest
from ske.config import ROOT, Config, load, parse
from ske.paths import fixed, placed, same_place
from ske.types import content_hash

FACT = {"prompt": "The capital of Ruria is", "subject": "Ruria", "target_new": "Vell"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with files of every kind beside it, above and below."""
    (tmp_path / "here" / "below").mkdir(parents=True)
    (tmp_path / "there").mkdir()
    (tmp_path / "facts.jsonl").write_text(json.dumps(FACT) + "\n")
    (tmp_path / "here" / "texts.txt").write_text("Some text.")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def config() -> Config:
    tree = {
        "data": {"path": "../facts.jsonl"},
        "model": {"path": "./below"},
        "practice": {"path": "../facts.jsonl"},
        "texts": {"path": "texts.txt"},
        "tuned": "below",
        "teach": {"model": "below"},
        "methods": ["base"],
    }
    return parse(tree, "test")


def test_paths_are_written_from_the_root_where_they_are(here: Path) -> None:
    found = placed(config())
    assert found.data.path == found.practice.path == str(here.parent / "facts.jsonl")
    assert found.model.path == found.tuned == found.teach.model == str(here / "below")
    assert found.texts.path == str(here / "texts.txt")
    assert placed(found) == found


def test_other_names_stay(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert placed(Config()) == Config()  # world/model is found in the checkout
    for path in ("Qwen/Qwen3-0.6B", "missing.json", "configs/world", "/nowhere"):
        assert fixed(path) == path
    (here / "link.json").symlink_to(here.parent / "facts.jsonl")
    assert fixed("link.json") == str(here / "link.json")
    assert (fixed("."), fixed("..")) == (str(here), str(here.parent))
    monkeypatch.chdir(ROOT)
    assert fixed("configs/world") == "configs/world"
    assert fixed("..") == str(ROOT.parent)
    monkeypatch.chdir(ROOT / "configs")
    assert fixed("world") == str(ROOT / "configs" / "world")


def test_a_folder_s_configuration_is_good_from_elsewhere(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Run(config(), Path("run")).execute("facts")
    monkeypatch.chdir(here.parent / "there")
    again = Run(load(Path("../here/run/config.yaml")), Path("../here/run"))
    assert again.plan()[0].state == "done"
    assert again.execute("facts") == []
    tree = yaml.safe_load((here / "run" / "config.yaml").read_text())
    assert tree["data"]["path"] == str(here.parent / "facts.jsonl")
    assert tree["world"]["path"] == "world"


def test_keys_are_the_same_for_both_ways_to_write_a_path(here: Path) -> None:
    one, other = (Run(c, here / "run") for c in (config(), placed(config())))
    for a, b in zip(one.stages, other.stages, strict=True):
        keys = [content_hash(ingredients(s, r.config, here)) for s, r in ((a, one), (b, other))]
        assert keys[0] == keys[1]


def test_stages_that_were_done_under_a_relative_path_stay_done(here: Path) -> None:
    run = Run(config(), here / "run")
    run.execute("facts")
    path = here / "run" / "stages" / "facts" / "manifest.json"
    manifest = read_manifest(here / "run", "facts")
    manifest["ingredients"]["data"]["path"] = "../facts.jsonl"
    path.write_text(json.dumps(manifest))
    assert run.plan()[0].state == "done"
    manifest["ingredients"]["data"]["path"] = "../others.jsonl"
    path.write_text(json.dumps(manifest))
    assert run.plan()[0].state == "stale"
    assert same_place("../a/b", "/x/a/b") and not same_place("/y/a/b", "/x/a/b")
    assert not same_place("../b", "/x/a") and not same_place(None, "/x") and same_place(3, 3)


def test_what_is_not_there_from_here_is_told(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "below" / "config.json").write_text("{}")
    stage = Stage("facts", "toystages:draw", (), ("data", "model"), "draw")
    folder = here / "run" / "stages" / "facts"
    folder.mkdir(parents=True)
    made = {"ingredients": ingredients(stage, config(), here / "run"), "outputs": {}}
    (folder / "manifest.json").write_text(json.dumps(made))
    assert plan((stage,), config(), here / "run")[0].state == "done"
    monkeypatch.chdir(here.parent / "there")
    shutil.move(here.parent / "facts.jsonl", here / "facts.jsonl")
    (item,) = plan((stage,), config(), here / "run")
    assert item.reasons == (
        "data.path: no such file from here: '../facts.jsonl'",
        "model.path: no such folder from here: './below'; taken for a hub id",
    )
