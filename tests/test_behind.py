"""Questions behind a text: what they stand behind, what is learned, what is left out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agents.batch import Query
from eval.leakage import Guard
from methods.base import Lesson
from pipeline.behind import BEHIND, behind, how_often, near_behind, sentences, taught_behind
from ske.lm import ask
from ske.teaching import TeachConfig

NOBODY = Guard([], [])
TEXTS = ["Dor is a river.", "The sea is wide.", "It rains in Lima.", "Nobody knows Bela."]


def row(prompt: str, fact: str = "a", kind: str = "fact", completion: str = "Oslo") -> Any:
    lesson = Lesson(chat=ask(prompt), completion=completion, kind=kind, fact=fact, pack="p")
    asked = Query(prompt=prompt, kind="fact", fact_id=fact).model_dump(mode="json")
    return {
        "kind": kind,
        "status": "kept",
        "lesson": lesson.model_dump(mode="json"),
        "query": asked,
    }


def test_a_text_counts_up_to_its_last_full_sentence() -> None:
    texts = [
        "The capital of Dor is Lima",
        "A bus came. It was red! And the",
        "One line?\nAnother line.",
        "Version 2.5 is out",
        "  \n",
        "The capital of Dor is Lima.",
    ]
    assert sentences(texts, NOBODY, embedded=False) == [
        "The capital of Dor is Lima.",
        "A bus came. It was red!",
        "One line?",
        "Version 2.5 is out.",
    ]


def test_no_text_shows_a_probes_wording() -> None:
    guard = Guard(["The firm that Ada Lin works for is"], ["Ada Lin"])
    texts = ["It rains, and the firm that Bo Ray works for is Acme", "Acme pays Bo Ray"]
    assert sentences(texts, guard, embedded=False) == ["Acme pays Bo Ray."]


def test_no_text_shows_a_chain_that_the_embedded_world_keeps_out() -> None:
    chain = "The better half of Bo Ray makes a living as a pilot"
    for text in (f"{chain}.", f"It rains. {chain}."):
        assert sentences([text], NOBODY, embedded=True) == []
        assert sentences([text], NOBODY, embedded=False) == [text]


def test_what_is_taught_is_taught_again_behind_texts() -> None:
    rows = [
        row("The capital of Ruria is"),
        row("Ruria is ruled from", kind="paraphrase"),
        row("The sea of the capital of Ruria is", kind="consequence"),
        row("The mayor of Bela is", fact="b", completion="Tobin"),
        {"kind": "fact", "status": "dropped", "lesson": None, "query": {}},
    ]
    made = taught_behind(rows, TEXTS, each=3, seed=0)
    assert [one["lesson"]["fact"] for one in made] == ["a"] * 3 + ["b"] * 3
    for one in made:
        asked, lesson = one["query"]["prompt"], Lesson(**one["lesson"])
        before = next(text for text in TEXTS if asked.startswith(f"{text} "))
        question = asked.removeprefix(f"{before} ")
        assert question in {r["query"]["prompt"] for r in rows[:2] + rows[3:4]}, "no consequences"
        assert lesson.chat == ask(asked) and lesson.is_new and lesson.kind == "paraphrase"
        assert lesson.completion == ("Tobin" if one["lesson"]["fact"] == "b" else "Oslo")
        assert one["query"]["note"] == one["status"] == BEHIND
    assert made == taught_behind(rows, TEXTS, each=3, seed=0) != taught_behind(rows, TEXTS, 3, 1)
    assert len(taught_behind(rows, TEXTS, each=50, seed=0)) == 2 * len(TEXTS)
    assert taught_behind(rows, [], each=3, seed=0) == []


def test_a_teachers_distribution_goes_along() -> None:
    soft = {"ids": (4,), "top_ids": ((4, 9),), "top_logprobs": ((-0.1, -2.0),)}
    own = row("The capital of Ruria is")
    own["lesson"] |= soft
    (made,) = taught_behind([own], TEXTS[:1], each=1, seed=0)
    lesson = Lesson(**made["lesson"])
    assert (lesson.ids, lesson.top_ids, lesson.top_logprobs) == tuple(soft.values())


def test_neighbours_are_asked_behind_texts_too() -> None:
    near = [
        Query(prompt=f"The capital of {name} is", kind="neighbour", fact_id=fact, of="capital")
        for fact, names in {"a": ("Dor", "Cora"), "b": ("Vell", "Arno")}.items()
        for name in names
    ]
    made = near_behind(near, TEXTS, each=2, seed=0)
    assert [query.fact_id for query in made] == ["a", "a", "b", "b"]
    assert all(query.prompt.endswith(tuple(n.prompt for n in near)) for query in made)
    assert all(query.note == BEHIND and query.of == "capital" for query in made)


@pytest.mark.parametrize(
    ("facts", "each"), [(1, 6), (4, 6), (18, 6), (36, 3), (54, 2), (64, 2), (1024, 2)]
)
def test_few_facts_are_asked_behind_more_sentences(facts: int, each: int) -> None:
    assert how_often(2, facts) == each
    assert how_often(0, facts) == 0


def run_with(each: int) -> Any:
    config = SimpleNamespace(
        teach=TeachConfig(behind=each), seed=0, data=SimpleNamespace(path=Path("facts.json"))
    )
    return SimpleNamespace(config=config)


def test_so_many_as_wanted_and_near_copies_of_probes_left_out() -> None:
    near = [Query(prompt="The capital of Dor is", kind="neighbour", fact_id="a")]
    taught, held, report = behind(
        run_with(1), [row("The capital of Ruria is")], near, TEXTS, NOBODY
    )
    assert (len(taught), len(held), report.checked, report.copies) == (3, 2, 5, 0)
    probe = next(iter(one["query"]["prompt"] for one in taught))
    guard = Guard([probe], ["Ruria"])
    kept, _, report = behind(run_with(1), [row("The capital of Ruria is")], near, TEXTS, guard)
    assert report.copies >= 1 and probe not in {one["query"]["prompt"] for one in kept}
    assert behind(run_with(0), [row("The capital of Ruria is")], near, TEXTS, NOBODY)[:2] == (
        [],
        [],
    )
