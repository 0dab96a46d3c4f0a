"""What an edit should leave alone beside its probes: skills, other facts, general text, tasks."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from minirun import minirun

from eval import harness
from eval.ask import Answer, Item
from eval.capability import SkillRow, values
from eval.tables import comparisons, results
from eval.taskfiles import files
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


def requests(*arguments: tuple[Any, ...]) -> list[SimpleNamespace]:
    return [SimpleNamespace(args=own) for own in arguments]


def test_the_adapter_answers_the_three_kinds_of_request() -> None:
    lm = Scripted()
    adapted = harness.adapter(object)(lm)
    choices = requests(("Which?\nAnswer: ", " A"), ("Which?", " B"))
    assert adapted.loglikelihood(choices) == [(-3.0, False), (-0.75, True)]
    assert adapted.loglikelihood_rolling(requests(("B",))) == [-0.75]
    wanted = [{"until": ["\n"], "max_gen_toks": 5}, {"until": ".", "max_tokens": 7}, {}]
    assert adapted.generate_until(requests(*(("Say", own) for own in wanted))) == ["B", "B", "B"]
    assert lm.asked == ["Which?\nAnswer:|A", "Which?|B", "|B", "Say|5", "Say|7", "Say|256"]


def test_a_question_counts_once_and_by_a_measure_from_0_to_1() -> None:
    strict, loose = ({"doc_id": 1, "filter": f, "em": s} for f, s in (("a", 1.0), ("b", 0.0)))
    other = {"doc_id": 0, "f1": ("a gold answer", "a reply"), "pass@1": 0.25}
    assert harness.once([strict, other, loose]) == [other, strict]
    assert harness.percent("mine", strict) == 100 and harness.percent("mine", other) == 25
    with pytest.raises(UserError, match=r"odd counts its questions by .'bleu'.*acc, exact_match"):
        harness.percent("odd", {"doc_id": 0, "metrics": ["bleu"], "bleu": 31.0})


def test_tasks_without_the_harness_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"eval.tasks = \['arc'\].*\[eval\]"):
        harness.check(["arc"])
    harness.check([])


def test_a_task_is_every_file_that_it_names(tmp_path: Path) -> None:
    for name in ("base.yaml", "read.py", "data.jsonl", "other.jsonl"):
        (tmp_path / name).write_text("{}", encoding="utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(
        "task: mine\ninclude: base.yaml\nprocess_docs: !function read.rows\n"
        f"dataset_kwargs: {{data_files: {{test: [{tmp_path}/data.jsonl, gone.jsonl]}}}}\n",
        encoding="utf-8",
    )
    found = files(["arc_easy", str(path), str(tmp_path / "nothing.yaml")])
    assert [own.name for own in found] == ["base.yaml", "data.jsonl", "mine.yaml", "read.py"]
    path.write_text("task: [", encoding="utf-8")
    assert files([str(path)]) == [path]  # what is wrong with it is said by who loads it


def test_old_files_of_skills_are_still_read(tmp_path: Path) -> None:
    run = minirun(tmp_path)
    lines = (run.stage("ask") / "capability.jsonl").read_text(encoding="utf-8").splitlines()
    assert values(SkillRow(**json.loads(line)) for line in lines)
