"""Our `teacher_forced` protocol against EasyEdit's own functions (`tests/golden/easyedit.json`).

The same records and models, each probe of them; then what differs on purpose, with its numbers.
`docs/evaluation.md` says why each differs.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from scoredtoys import (
    ARCHITECTURES,
    GOLDEN,
    Asked,
    Place,
    scored_lm,
    seamless_tokenizer,
    theirs,
)

from eval.ask import Answer, answer, items, rows
from eval.cases import load
from eval.records import Case
from eval.score import ALL, aggregate_reference, mean, per_case, score_row
from ske.backends.local import LocalLM
from ske.lm import Pair, ask

SCRIPT = ("Edit_Succ", "Overall_portability", "Overall_locality")
"""The figures that EasyEdit's example script prints; it never asks for paraphrases."""


@pytest.fixture(scope="module")
def asked(tmp_path_factory) -> dict[str, Asked]:
    """The records read from a file in KnowEdit's shape, put to both models of each architecture."""
    cases = read(GOLDEN["records"], tmp_path_factory.mktemp("records"))
    every = items(cases)
    number = {case.fact.id: index for index, case in enumerate(cases)}
    places = [Place(number[i.case], i.metric, i.category, i.probe) for i in every]
    numbered = list(enumerate(every))
    return {
        name: Asked(
            places,
            every,
            *(answer(toy(name, edited), numbered, ["teacher_forced"], 1) for edited in (0, 1)),
        )
        for name in ARCHITECTURES
    }


def read(records: list[dict[str, Any]], folder: Path) -> list[Case]:
    path = folder / "test_cf.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return load(path).cases


@cache
def toy(architecture: str, edited: bool = False, chat: bool = False) -> LocalLM:
    return scored_lm(architecture, GOLDEN["texts"], edited, chat)


# --- the same -------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_models_are_those_of_the_golden_numbers(architecture) -> None:
    found = [
        sum(weight.abs().sum().item() for weight in toy(architecture, edited).model.parameters())
        for edited in (False, True)
    ]
    assert found == pytest.approx(GOLDEN["theirs"][architecture]["weights_l1"], rel=1e-9)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_probe_scores_what_the_toolkit_gives_it(asked, architecture) -> None:
    wanted = theirs(architecture, "alone")
    assert asked[architecture].scores() == pytest.approx(wanted, abs=1e-6)
    assert len(wanted) == 59
    for metric in ("edit_success", "portability", "locality"):
        # Right, wrong and partly right all occur, or equality would say little.
        seen = {value for place, value in wanted.items() if place.metric == metric}
        assert len(seen) >= 3, metric


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_probe_before_the_edit_too(asked, architecture) -> None:
    wanted = theirs(architecture, "alone", "pre")
    ours = asked[architecture].scores(after=False)
    assert {place: ours[place] for place in wanted} == pytest.approx(wanted, abs=1e-6)
    # The toolkit gives locality no value before the edit; ours is 100 % by its meaning.
    rest = {place: value for place, value in ours.items() if place not in wanted}
    assert {place.metric for place in rest} == {"locality"}
    assert set(rest.values()) == {1.0}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("moment", "said"), [("pre", "before"), ("post", "after")])
def test_locality_compares_the_same_tokens(asked, architecture, moment, said) -> None:
    ours = asked[architecture]
    found = dict(zip(ours.places, getattr(ours, said), strict=True))
    compared = 0
    for record, result in enumerate(GOLDEN["theirs"][architecture]["alone"]):
        for key, outputs in result[moment]["locality"].items():
            for probe, tokens in enumerate(outputs if key.endswith("_output") else []):
                place = Place(record, "locality", key.removesuffix("_output"), probe)
                assert found[place].argmax == tuple(tokens)
                compared += 1
    assert compared == 22


def test_a_group_in_one_batch_scores_the_same_where_positions_are_relative(asked) -> None:
    assert asked["llama"].scores() == pytest.approx(theirs("llama", "grouped"), abs=1e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_toolkits_result_files_average_to_its_own_figures(architecture) -> None:
    found = GOLDEN["theirs"][architecture]
    own = aggregate_reference(found["grouped"])
    assert [own["edit_success"], own["portability"], own["locality"]] == pytest.approx(
        [found["script"][name] for name in SCRIPT], abs=1e-9
    )


def test_our_rows_average_to_the_toolkits_figures(asked) -> None:
    cases: dict[str, list[float]] = {}
    for key, value in per_case(asked["llama"].rows()).items():
        if key.category == ALL:
            cases.setdefault(key.metric, []).append(value)
    # One record has no portability and one no locality: each is out of that mean, not a 0 in it.
    assert {metric: len(values) for metric, values in cases.items()} == {
        "edit_success": 12,
        "paraphrase": 5,
        "portability": 11,
        "locality": 11,
    }
    ours = [mean(cases[metric]) for metric in ("edit_success", "portability", "locality")]
    script = GOLDEN["theirs"]["llama"]["script"]
    assert ours == pytest.approx([script[name] for name in SCRIPT], abs=1e-6)


# --- what differs on purpose ----------------------------------------------------------------


def test_padding_moves_the_toolkits_scores_on_absolute_positions(asked) -> None:
    """Padded on the left, a short probe of a group is read at other positions than alone."""
    alone, grouped = theirs("gpt2", "alone"), theirs("gpt2", "grouped")
    moved = [place for place, value in grouped.items() if abs(value - alone[place]) > 1e-9]
    said = dict(zip(asked["gpt2"].places, asked["gpt2"].items, strict=True))
    encode = toy("gpt2").tokenizer

    def length(place: Place) -> int:
        item = said[place]
        return len(encode(f"{item.prompt} {item.answers[0][0]}").input_ids)

    assert len(moved) == 8
    for place in moved:
        assert length(place) < max(length(mate) for mate in grouped if mate[:3] == place[:3])
    figures = [aggregate_reference(GOLDEN["theirs"]["gpt2"][way]) for way in ("alone", "grouped")]
    assert [figure["portability"] for figure in figures] == pytest.approx([19.04, 21.94], abs=0.01)
    assert [figure["locality"] for figure in figures] == pytest.approx([63.54, 61.49], abs=0.01)


def from_file(
    architecture: str, case: dict[str, Any], folder: Path
) -> list[tuple[float | None, Answer]]:
    """Score and answer of a prompt that a file holds, as an edit's own and as a probe's."""
    probe = {"prompt": case["prompt"], "ground_truth": [[case["answer"]]]}
    record = {"subject": "Bela Cole", "prompt": case["prompt"], "target_new": case["answer"]}
    asked = items(read([{**record, "portability": {"Reasoning": [probe]}}], folder))
    said = answer(toy(architecture), list(enumerate(asked)), ["teacher_forced"], 1)
    made = rows("toy", "toy", 0, ["teacher_forced"], asked, said, said)
    return list(zip(map(score_row, made), said, strict=True))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", ["plain", "pad_token_in_prompt"])
def test_one_prompt_alone_scores_the_same(architecture, name, tmp_path) -> None:
    """A pad token in a prompt does no harm: it is missing from one count and in the other."""
    case = GOLDEN["odd"][architecture][name]
    found = from_file(architecture, case, tmp_path)
    assert len(found) == 2
    for score, said in found:
        assert score == pytest.approx(case["acc"][0], abs=1e-6)
        assert list(said.argmax) == case["argmax"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", ["blank_after_prompt", "blank_before_answer"])
def test_blanks_at_the_edges_of_texts_are_dropped(architecture, name, tmp_path) -> None:
    """The toolkit writes two blanks between prompt and answer then, and another text is asked."""
    case, plain = (GOLDEN["odd"][architecture][key] for key in (name, "plain"))
    assert case["argmax"] != plain["argmax"]
    for score, said in from_file(architecture, case, tmp_path):
        assert score == pytest.approx(plain["acc"][0], abs=1e-6)
        assert list(said.argmax) == plain["argmax"]


def test_blanks_at_the_edges_in_numbers() -> None:
    cases = GOLDEN["odd"]["gpt2"]
    found = [cases[key]["acc"][0] for key in ("plain", "blank_after_prompt", "blank_before_answer")]
    assert found == pytest.approx([0.6, 0.4, 1 / 3])


@pytest.mark.parametrize(
    ("name", "error"),
    [("empty_group", "ValueError"), ("no_answer", "IndexError"), ("no_locality_key", "KeyError")],
)
def test_records_that_stop_the_toolkit_are_read(name, error, tmp_path) -> None:
    odd = GOLDEN["odd"]["refused"][name]
    assert odd["error"].startswith(error)
    (case,) = read(odd["records"], tmp_path)
    usable = {"empty_group": [], "no_answer": ["London"], "no_locality_key": ["London"]}[name]
    probes = case.portability.get("Subject_Aliasing", ())
    assert [probe.answers[0][0] for probe in probes] == usable


def test_an_empty_first_answer_gives_way_to_the_next(tmp_path) -> None:
    odd = GOLDEN["odd"]["refused"]["first_answer_empty"]
    (case,) = read(odd["records"], tmp_path)
    assert odd["asked"] == [1]  # the toolkit leaves this probe out
    assert [p.answers for p in case.portability["Subject_Aliasing"]] == [(("London",),)] * 2


def test_an_answer_that_melts_into_the_prompt_is_scored() -> None:
    """The toolkit cuts by counts of tokens: such an answer has none left and its probe is gone."""
    case = GOLDEN["odd"]["seam"]
    assert case["alone"][0] == "IndexError: list index out of range"
    assert len(case["grouped"]) == 1  # of two
    lm = LocalLM(toy("llama").model, seamless_tokenizer())
    pairs = [Pair(ask(p), a) for p, a in zip(case["prompts"], case["answers"], strict=True)]
    scored = lm.logprobs(pairs)
    assert [lm.tokenizer.decode(each.tokens) for each in scored] == [" London", " Vell"]
    hits = [float(a == b) for a, b in zip(scored[1].argmax, scored[1].tokens, strict=True)]
    assert [mean(hits)] == pytest.approx(case["grouped"], abs=1e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_chat_model_reads_the_answer_as_its_template_writes_it(architecture) -> None:
    """The toolkit puts a blank after the template, and its locality has no template at all."""
    case = GOLDEN["odd"][architecture]["chat"]
    lm = toy(architecture, chat=True)
    chat = ask(case["prompt"])
    prompt, reply = lm.renderer.prompt_ids(chat), lm.renderer.answer_ids(chat, case["answer"])
    plain = lm.tokenizer(case["prompt"]).input_ids
    blank = lm.tokenizer(" " + case["answer"], add_special_tokens=False).input_ids
    begin = plain[: len(plain) - len(lm.tokenizer(case["prompt"], add_special_tokens=False)[0])]
    assert case["read"] == [*begin, *prompt, *blank]
    assert case["locality_read"] == [*plain, *blank]
    assert "".join(lm.tokenizer.batch_decode(prompt + reply)).endswith("assistant\nAcme Works")


@pytest.mark.parametrize(
    ("architecture", "toolkit", "own"), [("gpt2", 0.4, 1 / 3), ("llama", 0.6, 1 / 3)]
)
def test_chat_scores_in_numbers(architecture, toolkit, own) -> None:
    case = GOLDEN["odd"][architecture]["chat"]
    (scored,) = toy(architecture, chat=True).logprobs([Pair(ask(case["prompt"]), case["answer"])])
    hits = [float(a == b) for a, b in zip(scored.argmax, scored.tokens, strict=True)]
    assert case["acc"] == pytest.approx([toolkit])
    assert mean(hits) == pytest.approx(own)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_style_plain_asks_a_chat_model_as_published_tables_did(architecture) -> None:
    case = GOLDEN["odd"][architecture]["plain"]
    lm = toy(architecture, chat=True)
    plain = LocalLM(lm.model, lm.tokenizer, style="plain")
    (scored,) = plain.logprobs([Pair(ask(case["prompt"]), case["answer"])])
    assert scored.argmax == case["argmax"]
    hits = [float(a == b) for a, b in zip(scored.argmax, scored.tokens, strict=True)]
    assert mean(hits) == pytest.approx(case["acc"][0], abs=1e-6)


def test_teacher_forcing_takes_the_first_alias_and_generation_any(asked) -> None:
    item = next(i for i in asked["llama"].items if i.answers == (("Vell", "Vell City"),))
    swapped = item.model_copy(update={"answers": (("Vell City", "Vell"),)})
    lm = toy("llama")
    targets = [answer(lm, [(0, i)], ["teacher_forced"], 1)[0].target for i in (item, swapped)]
    assert len(targets[0]) < len(targets[1])
    for each in (item, swapped):
        said = [Answer(item=0, text="Vell City.")]
        (row,) = rows("toy", "toy", 0, ["generate"], [each], said, said)
        assert score_row(row) == 1
