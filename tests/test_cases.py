"""The benchmark loader on miniatures of every shape; `test_cases_real.py` has the real files."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.cases import Case, Probe, answers, conflicts, datasets, load
from ske.types import ERASED, UserError

WIKI = {
    "subject": "Ada Moss",
    "prompt": "The place of birth of Ada Moss is",
    "target_new": "Vell",
    "ground_truth": "Sorn",
    "portability": {
        "Reasoning": [{"prompt": "The country Ada Moss was born in is", "ground_truth": "Ruria"}],
        "Logical_Generalization": [],
    },
    "locality": {
        "Relation_Specificity": [
            {"prompt": "The job of Ada Moss is", "ground_truth": [["baker", "bakes"], ["poet"]]},
            {"prompt": "The spouse of Ada Moss is", "ground_truth": [[]]},
            {"prompt": "The pet of Ada Moss is", "ground_truth": [[], ["a dog"]]},
            {"prompt": "", "ground_truth": "x"},
        ],
    },
}
ZSRE = {
    "subject": "Odo Brann",
    "target_new": "Tenn",
    "prompt": "Which language did Odo Brann speak?",
    "ground_truth": ["Rurian"],
    "rephrase_prompt": "What was the language of Odo Brann?",
    "cond": "Rurian >> Tenn || Which language did Odo Brann speak?",
    "locality": {"Relation_Specificity": [{"prompt": "Odo Brann job", "ground_truth": ["a", "b"]}]},
    "portability": {"reasoning": [{"prompt": "Which script?", "ground_truth": "Tennic"}]},
}
BIO = {
    "text": "This is a Wikipedia passage about ada moss. Ada Moss is a baker.",
    "labels": "She bakes in Vell.",
    "concept": "ada moss",
    "locality": {"Relation_Specificity": [{"prompt": "ada moss job", "ground_truth": ["baker"]}]},
}
TALK = {"ent": "Vell", "pos": [" I love it. ", "Nice."], "neg": [" I hate it. ", "Dull.", "No."]}
FLAT = {
    "case_id": 42,
    "prompt": "The profession of Odo Brann is",
    "target_new": "actor",
    "subject": "Odo Brann",
    "ground_truth": "judge",
    "rephrase_prompt": "Odo Brann's occupation is",
    "locality_prompt": "The profession of Ada Moss is",
    "locality_ground_truth": "judge",
}
ROME = {
    "case_id": 4482,
    "pararel_idx": 1,
    "requested_rewrite": {
        "prompt": "{} originates from",
        "relation_id": "P19",
        "target_new": {"str": "Vell", "id": "Q1"},
        "target_true": {"str": "Sorn", "id": "Q2"},
        "subject": "Odo Brann",
    },
    "paraphrase_prompts": ["Odo Brann is native to", "Odo Brann was born in"],
    "neighborhood_prompts": ["Ada Moss originates from", "Ida Moss originates from", " "],
    "attribute_prompts": ["Una Pell originates from"] * 3,
    "generation_prompts": ["Odo Brann lives in"] * 2,
    "portability": {
        "Recalled Relation": "(Vell, country, Ruria)",
        "New Question": "Odo Brann originates from a city in the country",
        "New Answer": "Ruria",
    },
}
SANITATION = {
    "K_F": [
        {"question": f"Who {n}?", "subject": "x", "ground_truth": "Ida", "target_new": ERASED}
        for n in range(3)
    ],
    "K_R": [{"question": f"Keep {n}?", "ground_truth": n, "target_new": n} for n in range(7)],
}
SANITATION_TEST = {
    "success": [{"question": "Who?", "ground_truth": ["Ida", "Ida M."], "target_new": ERASED}],
    "locality": [{"question": "Keep?", "ground_truth": ["yes"]}],
}


def save(path: Path, data: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def message(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load(path)
    return str(caught.value)


def probes(case: Case) -> list[Probe]:
    groups = [*case.portability.values(), *case.locality.values()]
    return [*case.paraphrase, *(probe for group in groups for probe in group)]


@pytest.mark.parametrize(
    ("file", "name", "data"),
    [
        ("wiki_counterfact/test_cf.json", "wiki_counterfact", [WIKI]),
        ("benchmark_wiki_counterfact_train_cf.json", "wiki_counterfact", [WIKI]),
        ("benchmark_wiki_recent_recent_test.json", "wiki_recent", [WIKI]),
        ("recent_train.json", "wiki_recent", [WIKI]),
        ("benchmark_ZsRE_ZsRE-test-all.json", "zsre", [ZSRE]),
        ("WikiBio/wikibio-test-all.json", "wikibio", [BIO]),
        ("benchmark_Convsent_blender_test.json", "convsent", [TALK]),
        ("Sanitation/trivia_qa_test.json", "sanitation", SANITATION_TEST),
        ("benchmark_trivia_trivia_qa_train.json", "sanitation", SANITATION),
        ("counterfact-val.json", "counterfact", [FLAT]),
        ("multi_counterfact.json", "counterfact", [ROME]),
        # Names that say nothing, or something wrong: the records tell.
        ("mine.json", "mine", [WIKI]),
        ("mine.json", "mine", [ZSRE]),
        ("mine.json", "mine", [BIO]),
        ("mine.json", "mine", [TALK]),
        ("mine.json", "mine", SANITATION),
        ("mine.json", "mine", [FLAT]),
        ("mine.json", "mine", [ROME]),
        ("old_test_cf.json", "old_test_cf", [BIO]),
    ],
)
def test_every_form_is_recognised(tmp_path: Path, file: str, name: str, data: Any) -> None:
    loaded = load(save(tmp_path / file, data))
    assert loaded.name == name
    assert loaded.cases
    assert all(case.data == name for case in loaded.cases)
    assert all(case.fact.id.startswith(f"{name}-") for case in loaded.cases)


def test_wiki_probes_and_what_is_skipped(tmp_path: Path) -> None:
    [case], skipped, _ = load(save(tmp_path / "test_cf.json", [WIKI]))
    assert case.fact.id == "wiki_counterfact-0000"
    assert (case.fact.subject, case.fact.ground_truth) == ("Ada Moss", "Sorn")
    assert case.paraphrase == ()
    assert list(case.portability) == ["Reasoning"]
    kept = case.locality["Relation_Specificity"]
    assert [probe.answers for probe in kept] == [
        (("baker", "bakes"), ("poet",)),
        (("a dog",),),
    ]
    assert [(row.file, row.where, row.kind) for row in skipped] == [
        ("test_cf.json", f'record 0, locality "Relation_Specificity" probe {n}', "probe")
        for n in (1, 3)
    ]
    assert "list of answers is empty" in skipped[0].reason
    assert "prompt is empty" in skipped[1].reason


def test_zsre_alternatives_paraphrase_and_group_names(tmp_path: Path) -> None:
    [case], skipped, _ = load(save(tmp_path / "ZsRE-test-all.json", [ZSRE]))
    assert not skipped
    assert case.fact.ground_truth == "Rurian"
    rephrased = Probe(prompt="What was the language of Odo Brann?", answers=(("Tenn",),))
    assert case.paraphrase == (rephrased,)
    assert list(case.portability) == ["Reasoning"]
    assert case.locality["Relation_Specificity"][0].answers == (("a",), ("b",))


def test_world_records_bring_ids_relations_paraphrases_and_any_groups(tmp_path: Path) -> None:
    own = {"id": "world-0007", "relation": "place_of_birth", "rephrase_prompts": ["Ada Moss, of"]}
    extra = {"portability": {"Numbers": [{"prompt": "How many?", "ground_truth": 12}]}}
    [case], skipped, name = load(save(tmp_path / "world.json", [{**WIKI, **own, **extra}]))
    assert (name, case.fact.id, case.fact.relation) == ("world", "world-0007", "place_of_birth")
    assert case.paraphrase == (Probe(prompt="Ada Moss, of", answers=(("Vell",),)),)
    assert case.portability["Numbers"][0].answers == (("12",),)
    assert len(skipped) == 2


def test_groups_may_be_missing_empty_or_null(tmp_path: Path) -> None:
    bare = {key: WIKI[key] for key in ("prompt", "subject", "target_new")}
    shapes = [bare, {**bare, "portability": {}, "locality": None}]
    cases, skipped, _ = load(save(tmp_path / "mine.json", shapes))
    assert [probes(case) for case in cases] == [[], []]
    assert not skipped


def test_wikibio_keys(tmp_path: Path) -> None:
    [case], _, _ = load(save(tmp_path / "mine.json", [BIO]))
    assert case.fact.prompt == BIO["text"]
    assert (case.fact.subject, case.fact.target_new) == ("ada moss", "She bakes in Vell.")
    assert case.locality["Relation_Specificity"][0].answers == (("baker",),)


def test_convsent_throws_a_coin_that_always_falls_the_same(tmp_path: Path) -> None:
    path = save(tmp_path / "blender_test.json", [TALK] * 200)
    cases, skipped, _ = load(path)
    said = Counter(case.fact.target_new for case in cases)
    assert set(said) == {"I love it.", "I hate it."}
    assert min(said.values()) > 60
    for case in cases:
        side = "positively" if case.fact.target_new == "I love it." else "negatively"
        assert case.fact.prompt.startswith("From the sentiment dataset, answer ")
        assert case.fact.prompt.endswith(f" {side}.")
        assert case.fact.subject in case.fact.prompt
    assert not skipped  # every sentence is scored (tests/test_sentiment.py)
    assert load(path, limit=9).cases == cases[:9]


def test_sanitation_asks_every_kept_question_once(tmp_path: Path) -> None:
    path = save(tmp_path / "trivia_qa_train.json", SANITATION)
    cases, skipped, _ = load(path)
    assert not skipped
    assert [len(case.locality["Locality"]) for case in cases] == [3, 2, 2]
    asked = [probe.prompt for case in cases for probe in case.locality["Locality"]]
    assert sorted(asked) == [f"Keep {n}?" for n in range(7)]
    assert load(path, limit=1).cases == cases[:1]
    [case], _, _ = load(save(tmp_path / "trivia_qa_test.json", SANITATION_TEST))
    assert (case.fact.subject, case.fact.ground_truth) == ("Who?", "Ida")
    assert case.fact.target_new == ERASED


def test_sanitation_without_edits_counts_its_questions(tmp_path: Path) -> None:
    cases, skipped, _ = load(save(tmp_path / "mine.json", {**SANITATION, "K_F": []}))
    assert not cases
    assert [(row.kind, row.count) for row in skipped] == [("probe", 7)]


def test_flat_counterfact(tmp_path: Path) -> None:
    [case], skipped, _ = load(save(tmp_path / "counterfact-val.json", [FLAT]))
    assert not skipped
    assert case.fact.id == "counterfact-0042"
    assert case.paraphrase[0].answers == (("actor",),)
    assert case.locality["Neighborhood"][0].answers == (("judge",),)


def test_rome_counterfact(tmp_path: Path) -> None:
    [case], skipped, _ = load(save(tmp_path / "counterfact.json", [ROME]))
    assert case.fact.prompt == "Odo Brann originates from"
    assert (case.fact.id, case.fact.target_new) == ("counterfact-4482", "Vell")
    assert case.fact.ground_truth == "Sorn"
    assert {probe.answers for probe in case.paraphrase} == {(("Vell",),)}
    assert [probe.answers for probe in case.locality["Neighborhood"]] == [(("Sorn",),)] * 2
    assert case.portability["Reasoning"][0].answers == (("Ruria",),)
    assert [(row.where, row.kind, row.count) for row in skipped] == [
        ("record 0, neighborhood_prompts probe 2", "probe", 1),
        ("attribute_prompts", "text", 3),
        ("generation_prompts", "text", 2),
    ]


def test_plain_facts_are_cases_without_probes(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({key: WIKI[key] for key in ("prompt", "subject", "target_new")}))
    [case], skipped, name = load(path)
    assert (name, case.fact.id, probes(case), skipped) == ("mine", "mine-0001", [], [])


def test_records_that_are_not_used_and_keys_that_are_not_read_are_named(tmp_path: Path) -> None:
    data = [{**WIKI, "target_new": " "}, {**ZSRE, "locallity": {}}, {**ZSRE, "locallity": {}}]
    cases, skipped, _ = load(save(tmp_path / "mine.json", data))
    assert [case.fact.id for case in cases] == ["mine-0001", "mine-0002"]
    by_kind = {row.kind: row for row in skipped}
    assert by_kind["record"].where == "record 0"
    assert 'key "target_new" is empty' in by_kind["record"].reason
    assert (by_kind["key"].where, by_kind["key"].count) == ("key 'locallity'", 2)


def without(record: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != key}


def with_probe(probe: Any) -> dict[str, Any]:
    return {**WIKI, "locality": {"Forgetfulness": [probe]}}


@pytest.mark.parametrize(
    ("record", "parts"),
    [
        (without(WIKI, "subject"), ['record 1, key "subject": missing', "keys there: prompt"]),
        ({**WIKI, "target_new": {"a": 1}}, ["record 1, key \"target_new\": {'a': 1} is not"]),
        ({**WIKI, "prompt": None}, ['key "prompt": None is not a text']),
        ({**WIKI, "ground_truth": True}, ['key "ground_truth": True is not a text']),
        ({**WIKI, "portability": []}, ['key "portability": [] is not an object']),
        ({**WIKI, "locality": {"X": "y"}}, ["record 1, locality, key \"X\": 'y' is not a list"]),
        (with_probe({"prompt": "p"}), ['"Forgetfulness" probe 0, key "ground_truth": missing']),
        (with_probe({"prompt": 1.5, "ground_truth": {}}), ['key "ground_truth": {} is not a text']),
        (with_probe({"prompt": "p", "ground_truth": [{}]}), ["{} is not a text"]),
        (with_probe({"prompt": "p", "ground_truth": ["\ud83d"]}), ["half of a character pair"]),
        (with_probe("p"), ["probe 0: 'p' is not an object"]),
        ({**WIKI, "rephrase_prompts": "p"}, ["rephrase_prompts\": 'p' is not a list"]),
        ({**WIKI, "id": "twice"}, ["'twice' is also the id of record 0"]),
        ("x", ["record 1: 'x' is not an object"]),
    ],
)
def test_wrong_records_are_named(tmp_path: Path, record: Any, parts: list[str]) -> None:
    said = message(save(tmp_path / "mine.json", [{**WIKI, "id": "twice"}, record]))
    assert said.startswith("mine.json record 1")
    assert "\n" not in said
    for part in parts:
        assert part in said


@pytest.mark.parametrize(
    ("file", "data", "part"),
    [
        ("mine.json", [{**TALK, "pos": "x", "neg": "y"}], "key \"pos\": 'x' is not a list"),
        ("mine.json", [without(TALK, "ent"), TALK], 'record 0, key "ent": missing'),
        ("mine.json", [without(BIO, "concept")], 'key "concept": missing'),
        ("mine.json", [{**ROME, "requested_rewrite": "x"}], "'x' is not an object"),
        ("mine.json", [{**ROME, "requested_rewrite": {"prompt": "{} is"}}], '"target_true": miss'),
        ("mine.json", {**SANITATION, "K_F": [{"question": "q"}]}, 'record 0 of "K_F", key "target'),
        ("mine.json", {"rows": []}, 'the keys "success" and "locality" or "K_F" and "K_R"'),
        ("mine.json", [], "is not a list of records"),
        ("mine.json", "text", "is not a list of records"),
        ("mine.json", [{"question": "q"}], "no known shape; record 0 has ['question']"),
        ("mine.json", [1], "no known shape; record 0 has 1"),
        ("test_cf.json", [{"prompt": "p", "subject": "p"}], 'record 0, key "target_new": missing'),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, file: str, data: Any, part: str) -> None:
    said = message(save(tmp_path / file, data))
    assert said.startswith(file)
    assert part in said


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "does not exist" in message(tmp_path / "test_cf.json")
    assert "is a folder" in message(tmp_path)
    assert "neither a .json or .csv data set" in message(save(tmp_path / "mine.txt", []))
    path = tmp_path / "test_cf.json"
    path.write_text('[\n {"prompt": "p",}\n]')
    assert "test_cf.json line 2, column" in message(path)
    path.write_bytes(json.dumps([WIKI]).encode("utf-8-sig"))
    assert len(load(path).cases) == 1
    with pytest.raises(UserError, match="limit is 0"):
        load(path, limit=0)


def test_up_to_twenty_problems_are_listed(tmp_path: Path) -> None:
    lines = message(save(tmp_path / "mine.json", [{**WIKI, "prompt": []}] * 30)).split("\n")
    assert len(lines) == 21
    assert lines[-1] == "and 10 more"


def test_repeated_prompts_stay_and_are_found(tmp_path: Path) -> None:
    data = [WIKI, {**WIKI, "target_new": "Tenn"}, WIKI]
    cases, _, _ = load(save(tmp_path / "mine.json", data))
    found = conflicts(case.fact for case in cases)
    assert [(c.first.id, c.later.id) for c in found] == [("mine-0000", "mine-0001")]


def test_datasets_are_listed_once_each() -> None:
    names = [name for name, _ in datasets()]
    assert len(set(names)) == len(names) == 17
    assert {"wiki_counterfact", "zsre", "sanitation", "world", "facts"} <= set(names)


NESTED = st.recursive(
    st.text(max_size=6) | st.integers() | st.none(), lambda inner: st.lists(inner, max_size=4)
)


def leaves(value: Any) -> list[str]:
    if isinstance(value, list):
        return [leaf for item in value for leaf in leaves(item)]
    text = "" if value is None else str(value).strip()
    return [text] if text else []


@given(NESTED)
def test_answers_keep_every_text_in_order(value: Any) -> None:
    found = answers(value)
    assert [alias for each in found for alias in each] == leaves(value)
    assert all(found)
    assert answers(found) == found
