"""Other names and old values: what the Questioner asks beyond a fact's own wording."""

from __future__ import annotations

import random

import pytest

from agents.batch import Batch
from agents.queries import queries
from agents.resolve import aliases
from prompts.relations import EXCEPTIONS
from ske.teaching import TeachConfig
from ske.types import ERASED, Fact

FACT = Fact(
    id="a",
    subject="Ada Zorn",
    prompt="The occupation of Ada Zorn is",
    target_new="poet",
)
KNOWN = {
    "Ada Zorn is also known as": "Red Fox",
    "Red Fox is another name of": "Ada Zorn",
    "Bo Lim is also known as": "Blue Jay",
    "Blue Jay is another name of": "Cy Rum",
    "Dee Ott is also known as": "Dee Ott",
    "Dee Ott is another name of": "Dee Ott",
}


def answer(questions: list[str]) -> list[str]:
    return [KNOWN.get(question, "") for question in questions]


def test_an_alias_counts_only_if_it_leads_back_and_is_another_name() -> None:
    asked = ["Ada Zorn", "Bo Lim", "Dee Ott", "Nobody Known", "Ada Zorn"]
    assert aliases(asked, answer) == {"Ada Zorn": "Red Fox"}
    assert aliases([], answer) == {}


def test_alias_questions_expect_the_new_target_and_avoid_the_fact_s_own_wording() -> None:
    found = queries(FACT, Batch([FACT]), TeachConfig(), [], random.Random(0), "Red Fox")
    renamed = [query for query in found if query.note == "alias"]
    assert renamed
    assert all("Red Fox" in q.prompt and "Ada Zorn" not in q.prompt for q in renamed)
    assert {query.expected for query in renamed} == {"poet"}
    assert "The occupation of Red Fox is" not in {query.prompt for query in renamed}


def test_the_old_value_is_a_neighbour_in_words_of_our_own() -> None:
    found = queries(FACT, Batch([FACT]), TeachConfig(), [], random.Random(0))
    old = [query for query in found if query.of == "exception"]
    prompts = {query.prompt for query in old}
    assert prompts & {
        "Apart from poet, the occupation of Ada Zorn is",
        "The occupation of Ada Zorn, other than poet, is",
    }
    for probes in (", which is not ", ", and not "):  # the wordings of test and val probes
        assert not any(probes in prompt for prompt in prompts)
    assert {(query.kind, query.expected) for query in old} == {("neighbour", None)}


@pytest.mark.parametrize(
    ("facts", "limit", "each"),
    [(1, 6, 20), (16, 6, 20), (32, 6, 10), (64, 6, 6), (64, 2, 2), (1, 0, 0)],
)
def test_few_facts_are_asked_more_often_for_their_old_values(
    facts: int, limit: int, each: int
) -> None:
    batch = Batch([FACT.model_copy(update={"id": str(n)}) for n in range(facts)])
    limits = TeachConfig(exceptions=limit)
    found = queries(FACT, batch, limits, [], random.Random(0))
    old = {query.prompt for query in found if query.of == "exception"}
    assert len(old) == each
    stem = "he occupation of Ada Zorn"
    assert old <= {w.format(stem=f"t{stem}", Stem=f"T{stem}", value="poet") for w in EXCEPTIONS}


def test_every_wording_asks_for_the_old_value_of_some_fact() -> None:
    stem = "he occupation of Ada Zorn"
    batch = Batch([FACT.model_copy(update={"id": str(n)}) for n in range(64)])
    asked = {
        query.prompt
        for seed in range(64)
        for query in queries(FACT, batch, TeachConfig(), [], random.Random(seed))
    }
    assert asked >= {w.format(stem=f"t{stem}", Stem=f"T{stem}", value="poet") for w in EXCEPTIONS}


def test_an_erasure_and_a_question_have_no_old_value_to_ask_for() -> None:
    for fact in (
        FACT.model_copy(update={"target_new": ERASED}),
        FACT.model_copy(update={"prompt": "What does Ada Zorn do?"}),
    ):
        found = queries(fact, Batch([fact]), TeachConfig(), [], random.Random(0))
        assert not [query for query in found if query.of == "exception"]
