"""The loaders of the data sets beyond KnowEdit, on miniatures of every shape."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eval.ask import Answer, items, rows
from eval.cases import Case, Loaded, Probe, conflicts, datasets, load
from eval.ripplewording import cuts
from eval.score import per_case
from ske.types import UserError
from tests.minis import HALLUEDIT, MQUAKE, QAEDIT, RIPPLE, SHAPES, TEMPORAL, UNKE, ZSRE, save_csv


def save(path: Path, data: Any) -> Path:
    if path.suffix == ".csv":
        return save_csv(path, data)
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def mini(tmp_path: Path, name: str, data: Any = None) -> Loaded:
    file, records = SHAPES[name]
    return load(save(tmp_path / file, records if data is None else data))


def asked(probes: tuple[Probe, ...]) -> list[tuple[str, str]]:
    return [(probe.prompt, probe.answers[0][0]) for probe in probes]


def count(loaded: Loaded) -> int:
    """Facts and probes that came out."""
    groups = [
        [case.paraphrase, *case.portability.values(), *case.locality.values()]
        for case in loaded.cases
    ]
    return len(groups) + sum(len(group) for each in groups for group in each)


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_is_told_by_its_name_and_by_its_keys(tmp_path: Path, name: str) -> None:
    loaded = mini(tmp_path, name)
    assert loaded.name == name in dict(datasets())
    assert loaded.cases
    assert all(case.data == name for case in loaded.cases)
    assert all(case.fact.id.startswith(f"{name}-") for case in loaded.cases)
    assert not [row for row in loaded.skipped if row.kind in ("record", "key")]
    if name == "wise_hallucination":  # has the keys of flat CounterFact
        return
    file, records = SHAPES[name]
    other = load(save(tmp_path / f"mine{Path(file).suffix}", records))
    assert other.name == "mine"
    assert [case.portability for case in other.cases] == [c.portability for c in loaded.cases]


def test_zsre_takes_the_alternative_answer(tmp_path: Path) -> None:
    (first, second), skipped, _ = mini(tmp_path, "zsre_mend")
    assert not skipped
    assert (first.fact.prompt, first.fact.target_new) == (ZSRE[0]["src"], "Tennic")
    assert first.fact.ground_truth == "Rurian"
    assert asked(first.paraphrase) == [("What was the language of Odo Brann?", "Tennic")]
    assert asked(first.locality["Unrelated"]) == [(ZSRE[0]["loc"], "Ida Moss")]
    assert first.portability == {}
    assert asked(second.portability["Reasoning"])[0][1] == "baker"


def test_qaedit_ids_count_within_a_source(tmp_path: Path) -> None:
    cases, skipped, _ = mini(tmp_path, "qaedit")
    assert not skipped
    assert [case.fact.id for case in cases] == ["qaedit-NQ-7", "qaedit-SQA-7"]
    assert [probe[1] for probe in asked(cases[0].locality["Unrelated"])] == [
        f"Ida {house}" for house in range(5)
    ]
    assert cases[0].paraphrase[0].answers == (("Una Pell",),)


def test_unke_asks_the_parts(tmp_path: Path) -> None:
    (case, _), skipped, _ = mini(tmp_path, "unke")
    assert not skipped
    assert case.fact.subject == case.fact.prompt == "Who is Ada Moss?"
    assert asked(case.portability["Sub_Questions"]) == [
        ("What does Ada Moss bake?", "Bread."),
        ("How many dogs has Ada Moss?", "Two."),
    ]
    assert case.paraphrase[0].answers == ((case.fact.target_new,),)


def test_wise_counts_the_texts_that_are_no_answers(tmp_path: Path) -> None:
    hallucination = mini(tmp_path, "wise_hallucination")
    assert not hallucination.skipped
    temporal = mini(tmp_path, "wise_temporal")
    assert [(row.where, row.kind, row.count) for row in temporal.skipped] == [
        ("ood_rephrase", "text", 2)
    ]
    for case in (*hallucination.cases, *temporal.cases):
        assert asked(case.locality["Unrelated"]) == [
            ("Our map of Sorn is old and", "has a small hole in it.")
        ]
        assert not case.paraphrase


def test_mquake_makes_each_edit_once_and_asks_what_needs_one(tmp_path: Path) -> None:
    (born, rules), skipped, _ = mini(tmp_path, "mquake")
    assert (born.fact.id, rules.fact.id) == ("mquake-0003", "mquake-0008-1")
    assert born.fact.prompt == "Odo Brann was born in"
    assert (born.fact.target_new, born.fact.ground_truth) == ("Vell", "Sorn")
    assert born.paraphrase == (
        Probe(prompt="Where was Odo Brann born?", answers=(("Vell", "Old Vell"),)),
    )
    found = born.portability["Multi_Hop"]
    assert [probe.answers for probe in found] == [(("Ruria", "the Ruria"),)] * 3 + [
        (("Esta", "the Esta"),)
    ] * 3
    assert rules.portability == {}
    rest = {(row.where, row.kind): row for row in skipped}
    assert rest["questions", "probe"].count == 3
    assert "2 edits at once" in rest["questions", "probe"].reason
    assert rest["new_single_hops", "text"].count == 3
    assert len(load(tmp_path / SHAPES["mquake"][0], limit=1).cases) == 1


def test_mquake_keeps_edits_that_clash(tmp_path: Path) -> None:
    other = copy.deepcopy(MQUAKE[0]) | {"case_id": 11}
    other["requested_rewrite"][0]["target_new"]["str"] = "Tenn"
    cases, _, _ = mini(tmp_path, "mquake", [*MQUAKE, other])
    assert [(c.first.id, c.later.id) for c in conflicts(case.fact for case in cases)] == [
        ("mquake-0003", "mquake-0011")
    ]


def test_rippleedits_keeps_what_needs_no_model(tmp_path: Path) -> None:
    (case, _), skipped, _ = mini(tmp_path, "rippleedits")
    assert case.fact.prompt == "The place of birth of Odo Brann is"
    assert (case.fact.subject, case.fact.target_new) == ("Odo Brann", "New Vell")
    assert case.fact.ground_truth == "New Sorn"
    assert list(case.portability) == ["Logical_Generalization"]
    assert [prompt for prompt, _ in asked(case.portability["Logical_Generalization"])] == [
        "Is Odo Brann from New Vell?",
        "Who is from New Vell?",
        "Who is of Vell?",
    ]
    # One-letter names go, digits stay; each entity is an answer with its aliases.
    spouse, job = case.locality["Relation_Specificity"]
    assert spouse.answers == (("Ida", "Ida Moss", "7"),)
    assert job.answers == (("baker",), ("poet", "bard"))
    assert [probe.prompt for probe in case.locality["Forgetfulness"]] == [job.prompt, spouse.prompt]
    assert {(row.where, row.kind, row.count, row.reason[:8]) for row in skipped} == {
        ("Logical_Generalization", "probe", 2, "its test"),
        ("Compositionality_I", "probe", 1, "its test"),
        ("Subject_Aliasing", "probe", 2, "its test"),
        ("Relation_Specificity", "probe", 1, "its test"),
        ("answers", "text", 2, "names of"),
    }


def test_rippleedits_accepts_the_readmes_spelling(tmp_path: Path) -> None:
    record = dict(RIPPLE[0])
    record["Relation_Specifity"] = record.pop("Relation_Specificity")
    assert mini(tmp_path, "rippleedits", [record]).cases[0].locality.keys() == {
        "Relation_Specificity",
        "Forgetfulness",
    }


def test_rippleedits_sentences_with_several_seams(tmp_path: Path) -> None:
    (_, film), _, _ = mini(tmp_path, "rippleedits")
    assert (film.fact.subject, film.fact.target_new) == ("Life is Sweet", "Ada Moss")
    lone = {**RIPPLE[1], "Relation_Specificity": []}
    cases, skipped, _ = mini(tmp_path, "rippleedits", [lone])
    assert not cases
    assert [row.kind for row in skipped] == ["record"]
    assert "cannot be told apart" in skipped[0].reason


@pytest.mark.parametrize(
    ("relation", "sentence", "subject"),
    [
        ("COUNTRY_OF_CITIZENSHIP", "The name of the country of citizenship of X Y is A B.", "X Y"),
        ("SIBLING", "The names of the siblings of X are A.", "X"),
        ("CAST_MEMBER", "The names of the cast members of X are A.", "X"),
        ("DATE_OF_BIRTH", "The date of birth of X is 7 May.", "X"),
        ("NUMBER_OF_CHILDREN", "The number of children X has is 9.", "X"),
        ("RELIGION", "The name of the religion which X is associated with is A.", "X"),
        ("FOLLOWED_BY", "X is followed by A.", "X"),
        ("FIELD_OF_WORK", "The name of the field of work of  is A.", ""),
    ],
)
def test_relations_sentences_are_cut(relation: str, sentence: str, subject: str) -> None:
    [cut] = cuts(sentence, relation)
    assert cut.subject == subject
    assert f"{cut.prompt} {cut.target}." == sentence
    assert not list(cuts(sentence, "MOTHER"))


def test_halluedit_rows_and_groups(tmp_path: Path) -> None:
    (case, quoted), skipped, _ = mini(tmp_path, "halluedit")
    assert not skipped
    assert quoted.fact.subject == 'Ida "Sis" Moss, the elder'
    assert (case.fact.target_new, case.fact.ground_truth) == ("Vell", "Sorn")
    assert case.fact.relation is None  # the table's relations are not the lexicon's
    assert asked(case.paraphrase) == [("Where was Ada Moss born?", "Vell")]
    groups = {name: asked(probes)[0] for name, probes in case.portability.items()}
    assert groups["Yes"][1] == "Yes"
    assert groups["No"][1] == "No"
    assert groups["Reversed"][1] == "Ada Moss"
    assert groups["Multiple_Choice"] == (
        "What is the place of birth of Ada Moss? A. Sorn  B. Vell",
        "B",
    )
    for hops in range(2, 7):
        assert groups[f"Multi_Hop_{hops}"] == (f"{hops} steps from Ada Moss?", f"place {hops}")
    assert len(groups) == 9
    assert case.locality["Same_Subject"] == (Probe(prompt="What does Ada Moss bake?", answers=()),)


def test_a_locality_probe_without_answer_is_scored_where_it_can_be(tmp_path: Path) -> None:
    case = mini(tmp_path, "halluedit").cases[0]
    only = Case(fact=case.fact, locality=case.locality, data="x")
    chosen = items([only])
    assert [item.metric for item in chosen] == ["edit_success", "locality"]
    before = [Answer(item=0, text="Sorn", target=(1,), argmax=(2,)), Answer(item=1, text="Bread.")]
    after = [Answer(item=0, text="Vell", target=(1,), argmax=(1,)), Answer(item=1, text="bread")]
    made = list(rows("m", "d", 0, ("teacher_forced", "generate"), chosen, after, before))
    assert [(row.metric, row.protocol) for row in made] == [
        ("edit_success", "teacher_forced"),
        ("edit_success", "generate"),
        ("locality", "generate"),
    ]
    assert {row.error for row in made} == {None}
    assert set(per_case(made).values()) == {100.0}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("question,object\n", "no rows below the names question, object"),
        ("a,b\n1,2\n", "no known shape; record 0 has ['a', 'b']"),
        ("a,b\n1,2\n\n3\n", "line 4 (record 1): 1 cells for 2 columns"),
        ('a,b\n"1\n2",3\n4\n', "line 4 (record 1): 1 cells for 2 columns"),
        ('a,b\n"1" x,2\n', "line 2: not CSV"),
        ("question,object,paraphrased_question\nq,o,p\n", 'record 0, key "subject": missing'),
    ],
)
def test_wrong_tables_are_named(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load(path)
    assert str(caught.value).startswith("mine.csv")
    assert part in str(caught.value)


def test_what_disappears_from_a_record_is_named(tmp_path: Path) -> None:
    loaded = mini(tmp_path, "unke", [UNKE[0], {**UNKE[1], "sub_answer": ["Bread.", " "]}])
    assert [(row.where, row.kind) for row in loaded.skipped] == [
        ("record 1, part 1, sub_question", "probe")
    ]
    loaded = mini(tmp_path, "qaedit", [{**QAEDIT[0], "locality": []}])
    assert loaded.skipped[0].where == "record 0, locality"
    loaded = mini(tmp_path, "halluedit", [{**HALLUEDIT[0], "locality_question": ""}])
    assert "locality_question" in loaded.skipped[0].where
    loaded = mini(tmp_path, "wise_temporal", [{**TEMPORAL[0], "target_new": ""}])
    assert 'key "target_new" is empty' in loaded.skipped[0].reason


@pytest.mark.parametrize(
    ("name", "change", "part"),
    [
        ("unke", {"sub_answer": ["Bread."]}, 'key "sub_answer": 1 answers for 2 questions'),
        ("qaedit", {"locality": [5]}, "record 0, locality probe 0: 5 is not an object"),
        ("zsre_mend", {"answers": {}}, 'key "answers": {} is not a text'),
        ("mquake", {"case_id": "x"}, "key \"case_id\": 'x' is not a whole number"),
        ("mquake", {"new_answer_alias": None}, 'key "new_answer_alias": null'),
        ("rippleedits", {"edit": []}, 'key "edit": [] is not an object'),
        ("rippleedits", {"Forgetfulness": None}, 'key "Forgetfulness": null; write a list'),
    ],
)
def test_wrong_records_are_named(
    tmp_path: Path, name: str, change: dict[str, Any], part: str
) -> None:
    file, records = SHAPES[name]
    with pytest.raises(UserError) as caught:
        mini(tmp_path, name, [{**records[0], **change}, records[1]])
    assert str(caught.value).startswith(f"{file} record 0")
    assert part in str(caught.value)


# --- whatever is changed in a file ------------------------------------------------------------

GONE = object()
WRONG = (GONE, None, [], {}, "", 5, True, "x", ["x"], [None], "\ud83d")
Place = tuple[str | int, ...]
MAY_BE_EMPTY = {"portability", *(key for key in RIPPLE[0] if key != "edit")}
"""Keys of lists and objects that may say by being empty that there is nothing."""


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Every place in a JSON value but the value itself."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        yield (*at, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*at, key))


def changed(data: Any, place: Place, value: Any) -> Any:
    """A copy of a JSON value with one place changed or taken out."""
    if not place:
        return value
    copied = dict(data) if isinstance(data, dict) else list(data)
    key: Any = place[0]
    if place[1:] or value is not GONE:
        copied[key] = changed(copied[key], place[1:], value)
    else:
        del copied[key]
    return copied


def answer(path: Path, data: Any) -> Loaded | None:
    """What a file gives, or None if it is refused with the file's name and the place."""
    try:
        return load(save(path, data))
    except UserError as error:
        for line in str(error).splitlines():
            assert line.startswith((f"{path.name} record ", f"{path.name}: ", "and ")), line
        return None


def announced(place: Place, value: Any) -> bool:
    """Would something be missing? Not if a file holds some records, tests or probes less."""
    whole = (value is GONE and isinstance(place[-1], int)) or value == ["x"]
    empty = place[-1] in MAY_BE_EMPTY and not value
    return not whole and not empty and not (value is GONE and place[-1] == "portability")


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "halluedit"])
def test_a_change_is_refused_or_what_it_takes_away_is_named(tmp_path: Path, name: str) -> None:
    file, records = SHAPES[name]
    before = mini(tmp_path, name)
    for place in places(records):
        if place[0] and len(place) > 1:  # the records are alike
            continue
        for value in WRONG:
            after = answer(tmp_path / file, changed(records, place, value))
            if after is None or count(after) >= count(before) or not announced(place, value):
                continue
            assert set(after.skipped) - set(before.skipped), (place, value)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_several_changes_at_once(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    file, records = SHAPES[data.draw(st.sampled_from(sorted(set(SHAPES) - {"halluedit"})))]
    for _ in range(data.draw(st.integers(2, 4))):
        if found := list(places(records)):
            place, value = data.draw(st.sampled_from(found)), data.draw(st.sampled_from(WRONG))
            records = changed(records, place, value)
    answer(tmp_path_factory.getbasetemp() / file, records)


@pytest.mark.parametrize("key", HALLUEDIT[0])
def test_cells_of_a_table_may_be_empty_or_missing(tmp_path: Path, key: str) -> None:
    before = mini(tmp_path, "halluedit", HALLUEDIT[:1])
    path = tmp_path / "human_baker.csv"
    for row in ({**HALLUEDIT[0], key: ""}, {k: v for k, v in HALLUEDIT[0].items() if k != key}):
        after = answer(path, [row])
        assert after is None or count(after) == count(before) or after.skipped
