"""Tasks of lm-evaluation-harness for real: as its own model answers them, and before and after."""

from __future__ import annotations

import csv
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from wholerun import ROOT, command, ske

from eval import harness
from pipeline.run import Run
from ske.backends.local import load
from ske.config import ModelConfig
from ske.config import load as read
from ske.types import UserError

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
lm_eval: Any = pytest.importorskip(
    "lm_eval", reason="lm-evaluation-harness: pip install -e '.[eval]'"
)
TASKS = ROOT / "tests" / "whole" / "tasks"
CHOICES, FREE = (f"tests/whole/tasks/{name}.yaml" for name in ("employers", "capitals"))
pytestmark = pytest.mark.slow


def samples(model: Any, *tasks: str) -> dict[str, list[dict[str, Any]]]:
    """What the harness saw and counted, by task."""
    loaded = [one for task in tasks for one in harness.load(task)]
    return lm_eval.simple_evaluate(
        model=model, tasks=loaded, task_manager=harness._manager(own=False), bootstrap_iters=0
    )["samples"]


def test_every_question_is_answered_as_by_the_harness_itself() -> None:
    from lm_eval.api.model import LM
    from lm_eval.models.huggingface import HFLM

    ours = load(ModelConfig(path="world/model", device="cpu"))
    theirs = HFLM(pretrained=ours.model, tokenizer=ours.tokenizer, batch_size=4)
    got = samples(harness.adapter(LM)(ours), CHOICES, FREE)
    wanted = samples(theirs, CHOICES, FREE)
    assert {task: len(own) for task, own in got.items()} == {
        "world_employers": 16,
        "world_capitals": 16,
    }
    assert sum(own["exact_match"] for own in got["world_capitals"]) > 0
    for own, other in zip(got["world_employers"], wanted["world_employers"], strict=True):
        assert len(own["filtered_resps"]) == 4
        for (sum_, greedy), (their_sum, their_greedy) in zip(
            own["filtered_resps"], other["filtered_resps"], strict=True
        ):
            assert sum_ == pytest.approx(their_sum, abs=1e-4) and greedy == their_greedy
        assert own["acc"] == other["acc"]
    for own, other in zip(got["world_capitals"], wanted["world_capitals"], strict=True):
        assert own["resps"][0][0] == other["resps"][0][0].strip()
        assert own["exact_match"] == other["exact_match"]


def test_whole_texts_and_stops_are_those_of_the_harness_itself() -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
    from lm_eval.models.huggingface import HFLM

    ours = load(ModelConfig(path="world/model", device="cpu"))
    texts = ["The sum of 2 and 3 is 5", "Weodor Veoberg works for Tiaex Works.\n\nAnd more."]
    asked = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in texts]
    theirs = HFLM(pretrained=ours.model, tokenizer=ours.tokenizer)
    adapted = harness.adapter(LM)(ours)
    likely = theirs.loglikelihood_rolling(asked)
    assert adapted.loglikelihood_rolling(asked) == pytest.approx(likely, abs=1e-4)
    question = "The name of the employer of Weodor Veoberg is"  # Tiaex Works
    how = [{"until": ["x"], "max_gen_toks": 12}, {"until": ["\n\n"], "max_gen_toks": 2}]
    open_ = [Instance("generate_until", {}, (question, own), 0) for own in how]
    said = [text.strip() for text in theirs.generate_until(open_)]
    assert adapted.generate_until(open_) == said and said[0] == "Tiae" and said[1]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with both tasks, one of them a copy that may be changed."""
    folder = tmp_path_factory.mktemp("runs")
    shutil.copy(TASKS / "capitals.yaml", folder / "capitals.yaml")
    result = ske(asking(folder))
    assert result.returncode == 0, result.stderr
    return folder


def asking(folder: Path, *more: str) -> list[str]:
    tasks = f"eval.tasks=[{CHOICES}, {folder}/capitals.yaml]"
    return command(
        *(folder / "run", "--set", tasks, "--set", "methods=[base, prompt, lora]"),
        *("--set", "options.lora.epochs=40", "--set", "options.lora.learning_rate=0.02", *more),
    )


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_run_tells_before_after_and_a_paired_interval(finished: Path) -> None:
    run = finished / "run"
    right = {
        (row["method"], row["category"]): float(row["mean"])
        for row in rows_of(run / "results.csv")
        if row["metric"] == "capability" and row["category"].startswith("world_")
    }
    assert len(right) == 6 and right["base", "world_employers"] > 90
    changes = {
        (row["method"], row["category"]): row
        for row in rows_of(run / "stages" / "score" / "changes.csv")
    }
    for method in ("prompt", "lora"):
        for task in ("world_employers", "world_capitals"):
            row = changes[method, task]
            before, after, diff = (float(row[key]) for key in ("before", "after", "diff"))
            assert (before, after) == (right["base", task], right[method, task])
            assert diff == pytest.approx(after - before, abs=1e-3)
            assert float(row["ci_low"]) < float(row["ci_high"]) and row["n"] == "16"
            assert float(row["ci_low"]) <= diff <= float(row["ci_high"])
    # Four facts at such a rate leave little of the rest.
    assert float(changes["lora", "world_capitals"]["ci_high"]) < 0
    for name in ("report.md", "report.html"):
        report = (run / name).read_text(encoding="utf-8")
        assert "Before and after, question by question" in report
        assert "world employers" in report and "world capitals" in report


def test_a_changed_task_is_asked_again(finished: Path) -> None:
    again = ske(asking(finished))
    assert again.returncode == 0 and "Nothing to do" in again.stdout
    path, run = finished / "capitals.yaml", finished / "run"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("max_gen_toks: 16", "max_gen_toks: 1"), encoding="utf-8")
    try:
        plan = {item.stage.name: item for item in Run(read(run / "config.yaml"), run).plan()}
        assert plan["edit"].state == "done" and plan["ask"].state == "stale"
        assert "capitals.yaml" in " ".join(plan["ask"].reasons)
    finally:
        path.write_text(text, encoding="utf-8")


DATA = "dataset_kwargs: {data_files: {test: tests/whole/tasks/capitals.jsonl}}\n"
DATA += "doc_to_text: Who?\ndoc_to_target: x\n"
BARE = "task: mine\noutput_type: generate_until\ndataset_path: json\ntest_split: test\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("task: [", "while parsing a flow"),
        ("group: mine", "no task in it; it needs the key `task`"),
        (BARE + "colour: red\n", "unexpected keyword argument 'colour'"),
        (BARE + "dataset_kwargs: {data_files: {test: nowhere.jsonl}}\n", "nowhere.jsonl"),
        (BARE + "dataset_kwargs: {data_files: {test: README.md}}\n", "JSON parse error"),
        (BARE + "process_docs: !function gone.rows\n", "Cannot import module 'gone'"),
        (BARE + "unsafe_code: true\n" + DATA, "would run code that a model has written"),
    ],
)
def test_a_broken_task_is_named_before_anything_runs(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as stopped:
        harness.check([CHOICES, str(path)])
    said = str(stopped.value)
    assert said.startswith(f"eval.tasks: {str(path)!r}") and told in said


def test_a_task_that_is_not_there_is_named_and_nothing_is_made(tmp_path: Path) -> None:
    for task, parts in (
        ("tests/whole/tasks/nowhere.yaml", ["there is no such file"]),
        ("arc_eazy", ["no task of lm-evaluation-harness", "did you mean arc_easy"]),
    ):
        result = ske(command(tmp_path / "run", "--set", f"eval.tasks=[{task}]"))
        said = " ".join(result.stderr.split())
        assert result.returncode == 2 and f"eval.tasks: {task!r}" in said
        assert all(part in said for part in parts)
        assert not (tmp_path / "run").exists()
