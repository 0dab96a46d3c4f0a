"""Scores against numbers worked out by hand, and EasyEdit's own result file."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from eval.score import (
    ALL,
    CaseKey,
    ErrorKey,
    Row,
    aggregate_reference,
    collect,
    count_errors,
    first_sentence,
    matches,
    mean,
    normalise,
    per_case,
    score_row,
)

REAL_DATA = Path(os.environ.get("SKE_REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
PROMPT = "The country of citizenship of Leonardo DiCaprio is"


def row(**changes) -> Row:
    fields = {
        "method": "ske",
        "dataset": "world",
        "case": "c1",
        "metric": "edit_success",
        "probe": 0,
        "prompt": PROMPT,
        "protocol": "generate",
        "seed": 0,
        "answers": (("Syria", "Syrian Arab Republic"),),
        "text": "Syria.",
    }
    return Row(**(fields | changes))


def forced(hits: tuple[int, ...], **changes) -> Row:
    return row(protocol="teacher_forced", hits=hits, text="", **changes)


def key(metric: str, category: str, case: str = "c1", **changes) -> CaseKey:
    found = CaseKey("ske", "world", "teacher_forced", metric, category, case, 0)
    return found._replace(**changes)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Beatles", "beatles"),
        ("  a\u00a0CITY,\nby the sea! ", "city by the sea"),
        ("A. A. Milne", "a a milne"),
        ("A-Team", "a team"),
        ("The", "the"),
        ("\uff33\uff59\uff52\uff49\uff41", "syria"),
        ("stra\u00dfe", "strasse"),
        ("Xi\u2019an", "xi an"),
        ("1,234,567.5 km\u00b2", "1234567.5 km2"),
        ("C++ and C#", "c++ and c#"),
        ("...", ""),
    ],
)
def test_normalise(text: str, expected: str) -> None:
    assert normalise(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Syria. It is in Asia.", "Syria."),
        ("St. Louis is a city. It is big.", "St. Louis is a city."),
        ("J. K. Rowling wrote it. Yes.", "J. K. Rowling wrote it."),
        ("He moved to the U.S. in 1990. Then he left.", "He moved to the U.S. in 1990."),
        ("About 3.5 million people live there. Many.", "About 3.5 million people live there."),
        ("The answer is:\n\nSyria\nIndeed", "The answer is: Syria"),
        ("\n Syria\nIndeed", "Syria"),
        ('He said "Syria." Then he left.', 'He said "Syria.'),
        ("\u53d9\u5229\u4e9a\u3002\u5b83", "\u53d9\u5229\u4e9a\u3002"),
        ("", ""),
    ],
)
def test_first_sentence(text: str, expected: str) -> None:
    assert first_sentence(text) == expected


@pytest.mark.parametrize(
    ("text", "alias"),
    [
        ("Syria", "Syria"),
        (" syria. The capital of ...", "Syria"),
        ("The Syrian Arab Republic", "Syrian Arab Republic"),
        ("Leonardo DiCaprio is a citizen of Syria.", "Syria"),
        ("Answer: **Syria**", "Syria"),
        ("Sure! Here it is:\nSyria", "Sure"),
        ("No, it is Syria.", "Syria"),
        ("Syria, not Lebanon", "Syria"),
        ("St. Louis, Missouri", "St. Louis"),
        ("It is St. Louis.", "St. Louis"),
        ("J.K. Rowling", "J. K. Rowling"),
        ("I don't know.", "I don't know"),
        ("He died in 1,900 BC", "1900"),
        ("It was made by Yahoo! Inc", "Yahoo"),
    ],
)
def test_matches(text: str, alias: str) -> None:
    assert matches(text, alias)


@pytest.mark.parametrize(
    ("text", "alias"),
    [
        ("Lebanon", "Syria"),
        ("not Syria, but Lebanon", "Syria"),
        ("He isn't from Syria.", "Syria"),
        ("He isn\u2019t from Syria.", "Syria"),
        ("He is no longer a citizen of Syria.", "Syria"),
        ("Lebanon instead of Syria", "Syria"),
        ("Syria is not his country.", "Syria"),
        ("Syria isn't his country.", "Syria"),
        ("It is Lebanon. His mother is from Syria.", "Syria"),
        ("Lebanon\nSyria", "Syria"),
        ("Syrians like him", "Syria"),
        ("3.5 million", "3"),
        ("C++", "C"),
        ("Syria", ""),
        ("Syria", " . "),
        ("", "Syria"),
        ("", ""),
    ],
)
def test_does_not_match(text: str, alias: str) -> None:
    assert not matches(text, alias)


def test_a_negation_that_the_prompt_holds_is_no_negation() -> None:
    reply = "The director of I'm Not There is Todd Haynes."
    assert not matches(reply, "Todd Haynes")
    assert matches(reply, "Todd Haynes", prompt="Who is the director of I'm Not There?")


@given(st.text(max_size=40), st.text(max_size=20))
def test_an_alias_matches_itself_unless_empty(text: str, alias: str) -> None:
    assert matches(alias, alias) == bool(normalise(alias))
    assert matches(text, alias) in (True, False)


def test_generated_answers_count_any_alias_of_any_answer_even_if_unfinished() -> None:
    answers = (("Lebanon", "Lebanese Republic"), ("Syria", "Syrian Arab Republic"))
    assert score_row(row(answers=answers, text="the Syrian Arab Republic")) == 1
    assert score_row(row(answers=answers, text="Lebanon and its", finished=False)) == 1
    assert score_row(row(answers=answers, text="France")) == 0


def test_generated_locality_is_drift_from_the_base_not_truth() -> None:
    kept = row(metric="locality", answers=(("blue",),), text="Green.", base_text="green")
    moved = row(metric="locality", answers=(("blue",),), text="blue", base_text="green")
    assert score_row(kept) == 1
    assert score_row(moved) == 0


def test_teacher_forcing_gives_partial_credit() -> None:
    assert score_row(forced((1, 0, 1, 1))) == 0.75


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"protocol": "teacher_forced"}, "hits"),
        ({"metric": "locality"}, "base_text"),
        ({"answers": ()}, "answers"),
    ],
)
def test_a_row_that_cannot_be_scored_is_refused_unless_it_is_an_error(changes, missing) -> None:
    with pytest.raises(ValidationError, match=f"'c1'.*has no {missing}"):
        row(**changes)
    assert score_row(row(**changes, error="timeout")) is None


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ValidationError, match="colour"):
        row(colour="red")


def test_per_case_takes_probes_then_categories() -> None:
    rows = [
        forced((1, 1), metric="portability", category="Reasoning"),
        forced((0, 1), metric="portability", category="Reasoning", probe=1),
        forced((0, 0, 1), metric="portability", category="Reasoning", probe=2),
        forced((1,), metric="portability", category="Subject_Aliasing"),
        forced((0,), metric="portability", category="Reasoning", case="c2"),
    ]
    values = per_case(rows)
    # Reasoning of c1: (1 + 1/2 + 1/3) / 3 = 11/18; all of c1: (11/18 + 1) / 2 = 29/36.
    assert values == {
        key("portability", "Reasoning"): pytest.approx(100 * 11 / 18),
        key("portability", "Subject_Aliasing"): 100,
        key("portability", ALL): pytest.approx(100 * 29 / 36),
        key("portability", "Reasoning", "c2"): 0,
        key("portability", ALL, "c2"): 0,
    }
    assert per_case(rows[::-1]) == values


def test_per_case_keeps_methods_protocols_and_seeds_apart() -> None:
    rows = [row(), row(seed=1, text="no"), row(method="ft_l", text="no"), forced((1, 0))]
    assert per_case(rows) == {
        key("edit_success", ALL, protocol="generate"): 100,
        key("edit_success", ALL, protocol="generate", seed=1): 0,
        key("edit_success", ALL, protocol="generate", method="ft_l"): 0,
        key("edit_success", ALL): 50,
    }


def test_an_error_row_is_counted_and_is_no_zero() -> None:
    rows = [
        row(metric="paraphrase"),
        row(metric="paraphrase", probe=1, text="", error="timeout"),
        row(metric="paraphrase", case="c2", text="", error="timeout"),
    ]
    assert per_case(rows) == {key("paraphrase", ALL, protocol="generate"): 100}
    assert count_errors(rows) == {ErrorKey("ske", "world", "generate", "paraphrase"): 2}


def test_a_probe_that_occurs_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="two rows for probe 0"):
        per_case([row(), row(text="no")])


def test_mean_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        mean([])


def test_collect_of_nothing_is_empty() -> None:
    assert collect([]) == {}


def test_aggregate_reference_by_hand() -> None:
    records = [
        {
            "post": {
                "rewrite_acc": [1.0],
                "portability": {"a_acc": [1.0, 0.0], "b_acc": [1.0]},
                "locality": {},
                "fluency": {"ngram_entropy": 6.1},
            }
        },
        {
            "post": {
                "rewrite_acc": 0.5,
                "rephrase_acc": [0.25],
                "portability": {"a_acc": [0.25], "b_acc": []},
                "locality": {"c_acc": [0.5], "c_output": [[1, 2]]},
            }
        },
    ]
    # Portability: ((1/2 + 1) / 2 + 1/4) / 2 = 1/2; locality: only the second case has any.
    assert aggregate_reference(records) == {
        "edit_success": 75,
        "paraphrase": 25,
        "portability": 50,
        "locality": 50,
    }


@pytest.mark.parametrize("record", [{"pre": {}}, {"post": {"rewrite_acc": ["x"]}}])
def test_aggregate_reference_refuses_other_shapes(record) -> None:
    with pytest.raises(ValueError, match="record 0"):
        aggregate_reference([record])


def test_aggregate_agrees_with_easyedit_on_its_own_file() -> None:
    path = REAL_DATA / "reference" / "hallueditbench_ROME_counterfact.json"
    if not path.exists():
        pytest.skip(f"EasyEdit's result file is not at {path}; set SKE_REAL_DATA to its folder")
    found = aggregate_reference(json.loads(path.read_text(encoding="utf-8")))
    assert {metric: round(value, 2) for metric, value in found.items()} == {
        "edit_success": 98.51,
        "portability": 43.75,
        "locality": 68.65,
    }


@pytest.mark.parametrize(
    ("text", "alias"),
    [("答案是东京。", "东京"), ("東京は日本の首都です。", "東京"), ("เมืองหลวงคือกรุงเทพ", "กรุงเทพ")],
)
def test_a_name_is_found_in_a_script_without_blanks(text: str, alias: str) -> None:
    assert matches(text, alias)
    assert not matches(text, "北京")


def test_a_minus_sign_is_part_of_a_number() -> None:
    assert matches("It is -40 degrees.", "-40")
    assert matches("1990-2000", "1990")
    assert not matches("-40", "40")
    assert not matches("40", "-40")
