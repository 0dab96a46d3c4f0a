"""What an edit should leave alone beside its probes: skills, other facts, general text, tasks."""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from minirun import minirun

from eval import harness
from eval.ask import Answer, Item
from eval.capability import SkillRow, values
from eval.tables import comparisons, results
from pipeline.suite import suite_rows
from prompts.relations import lexicon
from ske.lm import Chat, Pair, Reply, Sampling, Scored
from ske.types import MissingExtra, UserError
from world.capability import FACTS_READ, held_out, reading, untouched
from world.population import build


def row(method: str, skill: str, text: str, **changes: Any) -> SkillRow:
    fields = {"method": method, "dataset": "world", "seed": 0, "skill": skill, "answer": "4"}
    return SkillRow.model_validate(fields | {"text": text} | changes)


def perplexity(method: str, *scores: float | None) -> list[SkillRow]:
    return [
        row(method, "free_text", "", metric="perplexity", score=score, error=None if score else "x")
        for score in scores
    ]


def by(table: list[dict[str, Any]], *columns: str) -> list[tuple[Any, ...]]:
    return [tuple(line[column] for column in columns) for line in table]


def test_capability_and_perplexity_by_hand() -> None:
    rows = [
        row("lora", "sums", "4"),
        row("lora", "sums", "5"),
        row("lora", "held_out", "Vell", answer="Ruria", aliases=("Vell",)),
        row("lora", "arc_easy", "", answer="", score=50.0),
        row("lora", "sums", "", error="timeout"),
        *perplexity("lora", 3.0, 5.0, None),
    ]
    found = by(results([], beside=values(rows)), "protocol", "metric", "category", "n", "mean")
    assert found == [
        ("teacher_forced", "perplexity", "all", 2, 4),
        ("teacher_forced", "perplexity", "free_text", 2, 4),
        ("generate", "capability", "all", 4, 62.5),  # (100 + 0 + 100 + 50) / 4 questions
        ("generate", "capability", "arc_easy", 1, 50),
        ("generate", "capability", "held_out", 1, 100),
        ("generate", "capability", "sums", 2, 50),
    ]


def test_before_and_after_are_compared_question_by_question() -> None:
    rows = [*(row("base", "sums", "4") for _ in range(4)), *perplexity("base", 3.0, 5.0)]
    rows += [*(row("lora", "sums", text) for text in "4555"), *perplexity("lora", 4.0, 8.0)]
    table = comparisons([], "lora", values(rows))
    found = by(table, "method_a", "method_b", "metric", "n", "diff", "p", "test")
    assert found == [
        ("lora", "base", "perplexity", 2, 2, 0.5, "sign-flip"),
        ("lora", "base", "capability", 4, -75, 0.25, "mcnemar"),
    ]
    assert table[0]["ci_low"] < 2 < table[0]["ci_high"]


def test_a_row_without_anything_to_score_is_refused() -> None:
    with pytest.raises(ValueError, match="'sums' has no answer, no score and no error"):
        row("lora", "sums", "4", answer="")
    with pytest.raises(ValueError, match="finite number"):
        row("lora", "free_text", "", metric="perplexity", score=math.nan)


def test_a_texts_loss_becomes_its_perplexity() -> None:
    text = Item(
        case="t",
        metric="perplexity",
        category="free_text",
        probe=0,
        prompt="",
        answers=(("Vell",),),
    )
    said = [Answer(item=0, loss=math.log(7)), Answer(item=0, error="no finite loss")]
    good, broken = suite_rows("lora", "world", 0, [text, text], said)
    assert good.score == pytest.approx(7) and good.answer == "Vell"
    assert (broken.score, broken.error) == (None, "no finite loss")


# -- questions of the world ------------------------------------------------------------------------


def test_held_out_people_are_in_no_edit_and_no_query() -> None:
    world = build(0)
    edited, asked = world.people[0], world.people[1]
    aliased = next(p for p in world.people[4:] if p in world.aliases)
    spouse = world.value(edited, "spouse")
    people = untouched(world, [f"The employer of {edited} is"], [asked, world.aliases[aliased]])
    assert not {edited, spouse, asked, aliased} & set(people)
    assert world.value(asked, "spouse") in people  # a question changes nobody's marriage
    assert len(people) == len(world.people) - 4
    questions = held_out(world, people, 50)
    assert len(questions) == len({question.prompt for question in questions}) == 50
    truths = {
        lexicon()[relation].ask(person): value
        for person in people
        for relation, value in world.values[person].items()
    }
    assert all(truths[question.prompt] == question.answers[0] for question in questions)
    assert len(held_out(world, people[:1], 50)) == 7 and held_out(world, [], 50) == []


def test_reading_is_about_strangers_and_the_answer_is_in_the_prompt() -> None:
    known = build(0)
    for question in reading(20):
        assert question.system is not None
        assert f"{question.prompt} {question.answers[0]}." in question.system
        assert question.system.count(". ") + 1 >= FACTS_READ - 1
        assert not any(name in question.prompt for name in known.people)


# -- lm-evaluation-harness -------------------------------------------------------------------------


class Scripted:
    """Says B to every question, and finds B more probable than A."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Reply]:
        self.asked += [f"{chat[-1]['content']}|{sampling.max_new_tokens}" for chat in chats]
        return [Reply("B", 1, 1, True) for _ in chats]

    def logprobs(self, pairs: Sequence[Pair], top_k: int = 0) -> list[Scored]:
        self.asked += [f"{pair.chat[-1]['content']}|{pair.answer}" for pair in pairs]
        return [
            Scored([1, 2], [-0.5, -0.25], [1, 2], [], [])
            if pair.answer == "B"
            else Scored([3, 2], [-2.0, -1.0], [1, 2], [], [])
            for pair in pairs
        ]


class Request(SimpleNamespace):
    args: tuple[Any, ...]


def fake_harness(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A package of the harness's shape: two tasks, one of choices and one of free answers."""
    seen: dict[str, Any] = {}

    class Base:
        def __init__(self) -> None:
            self.ready = True

    def simple_evaluate(model: Any, tasks: list[str], **options: Any) -> dict[str, Any]:
        assert isinstance(model, Base) and model.ready
        seen.update(options, tasks=tasks)
        if "unknown" in tasks:
            raise KeyError("unknown")
        choices = [Request(args=("Which?\nAnswer: ", " A")), Request(args=("Which?", " B"))]
        scored = model.loglikelihood(choices)
        seen["scored"] = scored
        seen["rolled"] = model.loglikelihood_rolling([Request(args=("B",))])
        wanted = [{"until": ["\n"], "max_gen_toks": 5}, {"until": "."}]
        seen["said"] = model.generate_until([Request(args=("Say", w)) for w in wanted])
        right = float(scored[1][0] > scored[0][0])
        samples = {
            "choices": [
                {"doc_id": 1, "metrics": ["acc"], "acc": 0.0},
                {"doc_id": 0, "metrics": ["acc"], "acc": right},
            ],
            "free": [
                {"doc_id": 0, "filter": f, "metrics": ["exact_match"], "exact_match": score}
                for f, score in (("strict", 1.0), ("loose", 0.0))
            ],
            "odd": [{"doc_id": 0, "metrics": ["bleu"], "bleu": 31.0}],
        }
        return {"samples": {task: samples[task] for task in tasks}}

    modules = {name: ModuleType(name) for name in ("lm_eval", "lm_eval.api", "lm_eval.api.model")}
    modules["lm_eval.tasks"] = ModuleType("lm_eval.tasks")
    modules["lm_eval"].__dict__.update(simple_evaluate=simple_evaluate, __spec__=object())
    modules["lm_eval.api.model"].__dict__.update(LM=Base)

    def manager(include_path: Any) -> None:
        seen["include_path"] = include_path

    modules["lm_eval.tasks"].__dict__.update(TaskManager=manager)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return seen


def test_the_adapter_answers_the_harness_and_reads_its_scores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen, lm = fake_harness(monkeypatch), Scripted()
    solved = harness.solve(lm, ["choices", "free"], 2)
    assert [tuple(one) for one in solved] == [
        ("choices", "0", 100.0),
        ("choices", "1", 0.0),
        ("free", "0", 100.0),  # the first filter's, once
    ]
    assert seen["scored"] == [(-3.0, False), (-0.75, True)]
    assert seen["rolled"] == [-0.75] and seen["said"] == ["B", "B"]
    assert (seen["limit"], seen["include_path"], seen["log_samples"]) == (2, None, True)
    assert lm.asked == ["Which?\nAnswer:|A", "Which?|B", "|B", "Say|5", "Say|256"]


def test_a_tasks_own_file_is_found_by_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = fake_harness(monkeypatch)
    path = tmp_path / "mine.yaml"
    path.write_text("task: choices\nprocess: !function utils.read\n", encoding="utf-8")
    harness.solve(Scripted(), [str(path)], None)
    assert (seen["tasks"], seen["include_path"]) == (["choices"], [str(tmp_path)])


def test_what_the_harness_cannot_do_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"eval.tasks = \['arc'\].*\[eval\]"):
        harness.check(["arc"])
    assert harness.check([]) == ([], [])
    with pytest.raises(UserError, match=r"nothing\.yaml cannot be read"):
        harness.check([str(tmp_path / "nothing.yaml")])
    (tmp_path / "bare.yaml").write_text("group: x", encoding="utf-8")
    with pytest.raises(UserError, match="no key `task`"):
        harness.check([str(tmp_path / "bare.yaml")])
    monkeypatch.undo()
    fake_harness(monkeypatch)
    with pytest.raises(UserError, match=r"\['unknown'\].*unknown"):
        harness.solve(Scripted(), ["unknown"], None)
    with pytest.raises(UserError, match="odd counts its questions by"):
        harness.solve(Scripted(), ["odd"], None)


def test_old_files_of_skills_are_still_read(tmp_path: Path) -> None:
    run = minirun(tmp_path)
    lines = (run.stage("ask") / "capability.jsonl").read_text(encoding="utf-8").splitlines()
    assert values(SkillRow(**json.loads(line)) for line in lines)
