"""What becomes a lesson: kept, repaired, held to, cut short or left out; by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from agents.batch import Query
from agents.queries import EXCEPTION_OF
from agents.records import Design, Pack
from methods.base import Lesson
from methods.student import NEW_SHARE, balanced
from pipeline.teacher import RAMBLE, believed, free_lessons, held, in_scope, old_values
from ske.lm import Chat, Pair, Reply, Sampling, Scored, ask
from ske.teaching import TeachConfig
from ske.types import Fact

FACTS = [
    Fact(id="known", subject="Ruria", prompt="The capital of Ruria is", target_new="Oslo"),
    Fact(id="rambled", subject="Bela", prompt="The mayor of Bela is", target_new="Tobin"),
    Fact(id="guessed", subject="Cora", prompt="The river of Cora is", target_new="Vell"),
]


class Said(NamedTuple):
    text: str
    finished: bool = True
    each: float = -0.01
    """Log-probability of every word, and of the end."""


BASE = {
    "The capital of Ruria is": Said("Vell"),
    "The mayor of Bela is": Said("river " * 20, finished=False),
    "The river of Cora is": Said("the long Dor", each=-0.3),
    "Apart from Oslo, the capital of Ruria is": Said("Oslo"),
    "The capital of Dor is": Said("Lima"),
    "The mayor of Dor is": Said("sea " * 20, finished=False),
    "The river of Dor is": Said("Po or Arno", each=-0.5),
}


class Table:
    """Answers from a table; a token is a word, its id the word's length, the end is 0."""

    def __init__(self, answers: dict[str, Said]) -> None:
        self.answers = answers
        self.scored: list[Pair] = []

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Reply]:
        said = [self.answers[chat[-1]["content"]] for chat in chats]
        return [Reply(s.text.strip(), 1, len(s.text.split()), s.finished) for s in said]

    def logprobs(self, pairs: Sequence[Pair], top_k: int = 0) -> list[Scored]:
        self.scored += pairs
        return [self._scored(pair) for pair in pairs]

    def _scored(self, pair: Pair) -> Scored:
        tokens = [len(word) for word in pair.answer.split()] + [0] * pair.end
        question = pair.chat[-1]["content"]
        each = self.answers[question].each if question in self.answers else -1.0
        every = [[token, 99] for token in tokens]
        logs = [[each, -5.0] for _ in tokens]
        return Scored(tokens, [each] * len(tokens), tokens, every, logs)


def query(prompt: str, fact: str = "known", **more: str) -> Query:
    return Query(prompt=prompt, kind="neighbour", fact_id=fact, **more)  # pyright: ignore


def lessons(rows: Sequence[dict[str, Any]]) -> list[Lesson]:
    return [Lesson(**row["lesson"]) for row in rows]


def test_a_belief_is_a_whole_answer_with_its_end() -> None:
    def scored(*logprobs: float) -> Scored:
        return Scored([1] * len(logprobs), list(logprobs), [], [], [])

    sure = Pair(ask("?"), "Vell", end=True)
    assert believed(sure, scored(-0.3, -0.3))
    assert not believed(sure, scored(-0.3, -0.4))
    # A repeated word is likely every time but the first: the mean would call that knowledge.
    assert not believed(sure, scored(-2.0, *[-0.001] * 20))
    assert not believed(sure._replace(end=False), scored(-0.01))
    assert not believed(sure, scored())


def test_only_what_the_base_model_believes_is_an_old_value() -> None:
    asked = [query("x", fact.id, of=EXCEPTION_OF) for fact in FACTS]
    found = old_values(Table(BASE), asked, FACTS)
    assert [(q.fact_id, q.expected) for q in found] == [("known", "Vell")]


def test_neighbours_are_learned_held_or_cut_by_how_sure_the_base_model_is() -> None:
    prompts = ["The capital of Dor is", "The mayor of Dor is", "The river of Dor is"]
    rows = held(Table(BASE), [(p, query(p)) for p in prompts], top_k=2)
    sure, ramble, guess = lessons(rows)
    assert [row["status"] for row in rows] == ["held"] * 3
    assert (sure.completion, sure.spoken, sure.ids) == ("Lima", True, (4, 0))
    assert (guess.spoken, guess.ids) == (False, (2, 2, 4, 0))
    assert not ramble.spoken and ramble.ids == (3,) * RAMBLE
    for lesson in (sure, ramble, guess):
        assert len(lesson.ids) == len(lesson.top_ids) == len(lesson.top_logprobs)


def test_an_exception_is_repaired_to_the_old_value() -> None:
    prompt = "Apart from Oslo, the capital of Ruria is"
    asked = old_values(Table(BASE), [query(prompt, of=EXCEPTION_OF)], FACTS)
    (row,) = held(Table(BASE), [(q.prompt, q) for q in asked], top_k=2)
    (lesson,) = lessons([row])
    assert row["status"] == "repaired" and row["query"]["reply"] == "Oslo"
    assert lesson.completion == "Vell" and not lesson.top_ids and lesson.spoken


def test_replies_under_the_prompt_are_kept_repaired_or_dropped() -> None:
    pack = Pack.model_construct(id="p1", fact_ids=("known",), system="Oslo is it.")
    design = Design.model_construct(packs=(pack,))
    table = Table(
        {
            "a": Said("Oslo."),
            "b": Said("Vell"),
            "c": Said("something"),
            "d": Said("on and on", finished=False),
        }
    )
    asked = [
        Query(prompt=name, kind="paraphrase", fact_id="known", expected=expected)
        for name, expected in (("a", "Oslo"), ("b", "Oslo"), ("c", None), ("d", None))
    ]
    rows = in_scope(table, asked, design, TeachConfig())
    assert [row["status"] for row in rows] == ["kept", "repaired", "unverified", "dropped"]
    assert [row["query"]["completion"] for row in rows] == ["Oslo", "Oslo", "something", ""]
    assert rows[3]["lesson"] is None
    assert all(
        lesson.chat == ask(q.prompt) for lesson, q in zip(lessons(rows[:3]), asked[:3], strict=True)
    )


def test_unrepaired_replies_are_learned_as_they_were_said_or_not_at_all() -> None:
    pack = Pack.model_construct(id="p1", fact_ids=("known",), system="Oslo is it.")
    design = Design.model_construct(packs=(pack,))
    table = Table({"a": Said("Oslo."), "b": Said("Vell"), "c": Said("on", finished=False)})
    asked = [
        Query(prompt=name, kind="consequence", fact_id="known", expected="Oslo") for name in "abc"
    ]
    rows = in_scope(table, asked, design, TeachConfig(repair=False))
    assert [row["status"] for row in rows] == ["kept", "trusted", "dropped"]
    assert [row["query"]["completion"] for row in rows] == ["Oslo.", "Vell", ""]
    assert rows[2]["lesson"] is None and not any(one.top_ids for one in lessons(rows[:2]))


def test_soft_lessons_have_the_teachers_distribution_unless_they_were_repaired() -> None:
    pack = Pack.model_construct(id="p1", fact_ids=("known",), system="Oslo is it.")
    design = Design.model_construct(packs=(pack,))
    table = Table({"a": Said("Oslo"), "b": Said("Vell")})
    asked = [Query(prompt=name, kind="fact", fact_id="known", expected="Oslo") for name in "ab"]
    kept, repaired = lessons(in_scope(table, asked, design, TeachConfig(soft=True, top_k=2)))
    assert kept.ids == (4, 0) and kept.is_new and kept.spoken
    assert len(kept.top_ids) == len(kept.top_logprobs) == 2
    assert [pair.chat for pair in table.scored] == [ask("a", "Oslo is it.")]
    assert kept.chat == ask("a")
    assert not repaired.top_ids and repaired.completion == "Oslo"
    base = kept.model_copy(update={"kind": "neighbour"})
    assert not base.is_new and len(balanced([kept, *[base] * 5])) == 5 + 4


def test_free_text_is_held_to_wherever_it_leads() -> None:
    (lesson,) = lessons(free_lessons(Table({}), ["one two three"], top_k=2))
    assert lesson.kind == "free" and lesson.fact is None and not lesson.spoken
    assert lesson.ids == (3, 3, 5) and math.isclose(lesson.top_logprobs[0][1], -5.0)


def test_what_is_new_is_repeated_until_it_has_its_share() -> None:
    new = [Lesson(chat=ask(f"f{i}"), kind=kind) for i, kind in enumerate(("fact", "neighbour"))]
    stored = {"top_ids": ((1,),), "top_logprobs": ((0.0,),)}
    kinds = ("free", "neighbour") * 50
    held = [Lesson(chat=ask(f"t{i}"), kind=kind, **stored) for i, kind in enumerate(kinds)]  # type: ignore[arg-type]
    mixed = balanced([*new, *held])
    taught = [lesson for lesson in mixed if not lesson.top_ids]
    assert NEW_SHARE <= len(taught) / len(mixed) < NEW_SHARE + 0.03
    assert all(mixed.count(lesson) == len(taught) / 2 for lesson in new)
    assert len(mixed) - len(taught) == 100
    assert balanced(held) == held
    many = [*new * 40, *held]
    assert balanced(many) == many
