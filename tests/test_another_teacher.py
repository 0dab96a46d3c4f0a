"""`teach.model`: another model teaches; what must stay is the edited model's own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.answering import tells
from pipeline.mistakes import check_options
from pipeline.run import Run
from ske.config import parse
from ske.io import read_rows
from ske.types import UserError

WORLD = Path(__file__).parent.parent / "world" / "model"
TREE: dict[str, Any] = {
    "edits": {"limit": 2},
    "design": {"max_trials": 1, "recall": 0.01},
    "teach": {"free_texts": 4, "free_tokens": 4, "neighbours": 2, "repair": False, "behind": 0},
    "methods": ["ske"],
}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded world's model, a little beside itself: it says other things."""
    folder = tmp_path_factory.mktemp("teacher") / "model"
    shutil.copytree(WORLD, folder)
    path = folder / "model.safetensors"
    torch.manual_seed(0)
    shaken = {k: v + 0.15 * v.std() * torch.randn_like(v) for k, v in load_file(path).items()}
    save_file(shaken, path, metadata={"format": "pt"})
    return folder


def with_teacher(folder: Path, **more: Any) -> dict[str, Any]:
    return {**TREE, "teach": {**TREE["teach"], "model": str(folder), **more}}


def lessons(run: Run) -> dict[bool, dict[str, Any]]:
    """What is learned: of what stays (True), and of what is taught, by its question."""
    found: dict[bool, dict[str, Any]] = {True: {}, False: {}}
    for row in read_rows(run.stage("teach") / "lessons.jsonl"):
        key = str(row["chat"]) + (row["completion"] if row["kind"] == "free" else "")
        found[row["kind"] in ("neighbour", "free")][key] = row
    return found


def test_another_model_teaches_and_the_edited_one_says_what_stays(
    tmp_path: Path, teacher: Path
) -> None:
    own, taught = (
        Run(parse(TREE, "test"), tmp_path / "own"),
        Run(parse(with_teacher(teacher), "test"), tmp_path / "taught"),
    )
    for run in (own, taught):
        run.execute("teach")
    before, after = lessons(own), lessons(taught)
    both = before[False].keys() & after[False].keys()
    said = [(before[False][key]["completion"], after[False][key]["completion"]) for key in both]
    assert len(said) > 5
    assert any(a != b for a, b in said), "the other model's words"
    assert before[True] == after[True] and len(before[True]) > 5
    assert "teacher" not in vars(taught), "its memory is free again"


def test_a_teachers_weights_are_part_of_what_it_taught(tmp_path: Path, teacher: Path) -> None:
    moving = tmp_path / "moving"
    shutil.copytree(teacher, moving)
    run = Run(parse(with_teacher(moving), "test"), tmp_path / "run")
    run.execute("teach")
    assert [one.state for one in run.plan()[:3]] == ["done"] * 3
    shutil.copy(WORLD / "model.safetensors", moving / "model.safetensors")
    facts, design, teach = Run(run.config, run.folder).plan()[:3]
    assert (facts.state, design.state, teach.state) == ("done", "stale", "stale")
    assert "teacher weights" in str(design.reasons)


def test_a_teacher_with_other_tokens_gives_replies_and_no_distribution(
    tmp_path: Path, model_folder: Path
) -> None:
    assert tells(parse(TREE, "test"))
    assert not tells(parse(with_teacher(model_folder), "test"))
    check_options(parse(with_teacher(model_folder), "test"))
    for more in ({"soft": True}, {"told": 8}):
        with pytest.raises(UserError, match=f"teach.{next(iter(more))}: the teacher .* other tok"):
            check_options(parse(with_teacher(model_folder, **more), "test"))
    with pytest.raises(UserError, match=r"teach\.model = .*: not a folder here"):
        check_options(parse(with_teacher(tmp_path / "nowhere"), "test"))


@pytest.mark.parametrize("more", [{"backend": "openai"}, {"mode": "sequential"}])
def test_there_is_one_teacher_and_it_has_the_earlier_edits(more: dict[str, str]) -> None:
    tree = with_teacher(WORLD)
    if "backend" in more:
        tree["model"] = {**more, "server": {"base_url": "http://localhost:1/v1", "model": "m"}}
    else:
        tree["edits"] = {**more, "rounds": 2, "per_round": 1}
    with pytest.raises(UserError, match=r"two teachers|earlier rounds"):
        parse(tree, "test")
