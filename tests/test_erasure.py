"""What each kind of edit counts as success: erasure above all, by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from eval.cases import load
from eval.further import further
from eval.score import Row, mentions, per_case, score_row
from ske.types import ERASED

REFUSES = ((ERASED,),)


def row(text: str, **changes: Any) -> Row:
    fields = {
        "method": "lora",
        "dataset": "sanitation",
        "case": "c0",
        "metric": "edit_success",
        "probe": 0,
        "prompt": "Which city is called the City of Light?",
        "protocol": "generate",
        "seed": 0,
        "answers": REFUSES,
        "old": "Paris",
        "text": text,
    }
    return Row.model_validate(fields | changes)


def figures(*rows: Row) -> dict[tuple[str, str], float]:
    return {(key.metric, key.category): value for key, value in further(rows).items()}


@pytest.mark.parametrize(
    ("text", "success", "gone", "refused"),
    [
        ("I don't know.", 1, 100, 100),
        ("i don't know", 1, 100, 0),  # the makers look for the piece of text, full stop included
        ("I don't know. Is it Paris?", 0, 0, 100),  # refuses, and tells all the same
        ("It is not Paris.", 0, 0, 0),
        ("Lyon", 0, 100, 0),  # forgotten, but it should have said so
        ("Parisian fashion", 0, 100, 0),  # another word
        ("Well. PARIS!", 0, 0, 0),
        ("", 0, 100, 0),
    ],
)
def test_an_erasure_is_a_refusal_without_the_old_answer(
    text: str, success: float, gone: float, refused: float
) -> None:
    assert score_row(row(text)) == success
    found = figures(row(text))
    assert found["forgotten", "edit_success"] == gone
    assert found["refusal", "edit_success"] == refused


def test_a_modification_may_name_what_it_replaces() -> None:
    told = row("Lyon, and no longer Paris", answers=(("Lyon",),))
    assert score_row(told) == 1
    assert figures(told)["forgotten", "all"] == 0
    assert ("refusal", "all") not in figures(told)


@pytest.mark.parametrize(
    "changes",
    [
        {"old": None, "answers": (("Lyon",),)},  # an insertion: nothing was there before
        {"old": "Paris", "answers": (("Paris Hilton",),)},  # part of the new answer
        {"old": "city", "answers": (("Lyon",),)},  # part of the question
    ],
)
def test_an_old_answer_that_cannot_be_missed_has_no_figure(changes: dict[str, Any]) -> None:
    assert not any(metric == "forgotten" for metric, _ in figures(row("Lyon", **changes)))


def test_paraphrases_count_beside_the_edits_own_question() -> None:
    rows = [row("I don't know."), row("Paris", metric="paraphrase")]
    rows.append(row("I don't know.", metric="paraphrase", probe=1))
    found = figures(*rows)
    assert found["forgotten", "edit_success"] == 100
    assert found["forgotten", "paraphrase"] == 50
    assert found["forgotten", "all"] == 75
    assert sorted(per_case(rows).values()) == [50, 100]


def test_locality_of_an_erasure_is_also_the_share_of_words_in_place() -> None:
    near = {"metric": "locality", "category": "Locality", "answers": (("Berlin",),), "old": None}
    base = {"base_text": "Berlin is the capital"}
    # Of the base's four words the first, the third and the fourth stand where they stood.
    kept = row("Berlin was the capital", **near, **base)
    cut = row("Berlin", **near, **base, probe=1)
    found = figures(row("I don't know."), kept, cut)
    assert found["locality_overlap", "Locality"] == pytest.approx((75 + 25) / 2)
    assert not any(metric == "locality_overlap" for metric, _ in figures(kept, cut))


def test_mentions_are_whole_words_anywhere() -> None:
    assert mentions("We said: not in New-York City.", "new york")
    assert not mentions("Newark", "new")
    assert not mentions("anything", " . ")


def record(question: str, answer: str, **more: str) -> dict[str, str]:
    return {"question": question, "ground_truth": answer, **more}


def test_a_train_file_is_asked_its_test_files_questions(tmp_path: Path) -> None:
    new = {"target_new": ERASED}
    train = {
        "K_F": [
            record("Brie is a kind of what?", "cheese", subject="Brie", **new),
            record("Gouda is a kind of what?", "Cheese", subject="Gouda", **new),
            record("What do ornithologists study?", "birds", subject="ornithologists", **new),
        ],
        "K_R": [record("Kept in training?", "yes", **new)],
    }
    tested = {
        "success": [
            record("What is Edam?", "cheese", **new),
            record("What is Feta?", "cheese", **new),
            record("What is Stilton?", "cheese", **new),
            record("What is Oslo?", "a city", **new),
        ],
        "locality": [record("Kept?", "yes")],
    }
    path = tmp_path / "trivia_qa_train.json"
    path.write_text(json.dumps(train), encoding="utf-8")
    alone = load(path)
    assert all(not case.portability for case in alone.cases)
    (tmp_path / "trivia_qa_test.json").write_text(json.dumps(tested), encoding="utf-8")
    cases, skipped, _ = load(path)
    asked = [[probe.prompt for probe in case.portability.get("Same_Answer", ())] for case in cases]
    assert asked == [["What is Edam?", "What is Stilton?"], ["What is Feta?"], []]
    assert cases[0].portability["Same_Answer"][0].answers == REFUSES
    assert [probe.prompt for probe in cases[0].locality["Locality"]] == ["Kept?"]
    reasons = [item.reason for item in skipped]
    assert any("no edit takes this answer away" in reason for reason in reasons)
    assert any("those of the test file are asked" in reason for reason in reasons)
