"""The figures beside the main metrics, against numbers worked out by hand."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import tiny

from eval.ask import Answer, Item, answer, rows
from eval.divergence import Told, divergence, told
from eval.further import further, strengths
from eval.score import ALL, CaseKey, Row
from eval.tables import comparisons, results
from ske.lm import Pair, Scored, ask

GENERATE, FORCED = "generate", "teacher_forced"


def row(metric: str, **changes: Any) -> Row:
    fields = {
        "method": "lora",
        "dataset": "world",
        "case": "c0",
        "metric": metric,
        "probe": 0,
        "prompt": "Asked",
        "protocol": GENERATE,
        "seed": 0,
        "answers": (("Vell", "Old Vell"),),
        "text": "Vell",
        "base_text": "Vell",
    }
    return Row.model_validate(fields | changes)


def values(found: dict[CaseKey, float], metric: str, category: str = ALL) -> dict[str, float]:
    return {k.case: v for k, v in found.items() if (k.metric, k.category) == (metric, category)}


# -- divergence ------------------------------------------------------------------------------------


def distribution(own: int, logprob: float, **top: float) -> Told:
    """One position; keyword t5=0.2: token 5 with probability 0.2."""
    return Told(
        tokens=(own,),
        logprobs=(logprob,),
        top_ids=(tuple(int(name[1:]) for name in top),),
        top_logprobs=(tuple(math.log(p) for p in top.values()),),
    )


def test_divergence_by_hand() -> None:
    before = distribution(1, math.log(0.5), t1=0.5, t2=0.25)
    after = distribution(1, math.log(0.25), t1=0.25, t2=0.25)
    # 0.5 ln 2 + 0.25 ln 1 + 0.25 ln (0.25 / 0.5) = 0.25 ln 2
    assert divergence(before, after) == pytest.approx((0.25 * math.log(2),))
    assert divergence(before, before) == (0.0,)


def test_the_answers_own_token_counts_though_it_left_the_list() -> None:
    before = distribution(1, math.log(0.5), t1=0.5, t2=0.5)
    after = distribution(1, math.log(0.125), t3=0.875)
    # Known of both: token 1. The bucket of all others: 0.5 against 0.875.
    wanted = 0.5 * math.log(4) + 0.5 * math.log(0.5 / 0.875)
    assert divergence(before, after) == pytest.approx((wanted,))


def test_the_figure_is_never_above_that_of_the_whole_distributions() -> None:
    p, q = (0.4, 0.3, 0.2, 0.1), (0.1, 0.2, 0.3, 0.4)
    whole = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    before = distribution(0, math.log(0.4), t0=0.4, t1=0.3)
    after = distribution(0, math.log(0.1), t3=0.4, t2=0.3)
    [found] = divergence(before, after)
    assert 0 < found <= whole
    full = [distribution(0, math.log(d[0]), **{f"t{i}": d[i] for i in range(4)}) for d in (p, q)]
    assert divergence(*full) == pytest.approx((whole,))


def test_two_answers_have_no_divergence_and_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="two answers"):
        divergence(distribution(1, -1.0, t1=0.4), distribution(2, -1.0, t1=0.4))
    with pytest.raises(ValueError, match="NaN"):
        told(Scored([1], [-1.0], [1], [[1]], [[math.nan]]))
    assert told(Scored([], [], [], [], [])) is None


def test_locality_kl_is_a_mean_over_tokens_then_probes_then_categories() -> None:
    found = further(
        [
            row("locality", category="A", divergence=(0.1, 0.3)),
            row("locality", category="A", probe=1, divergence=(0.4,)),
            row("locality", category="B", divergence=(0.9,)),
            row("locality", case="c1", category="A"),  # no distribution: no figure
        ]
    )
    assert values(found, "locality_kl", "A") == pytest.approx({"c0": 0.3})
    assert values(found, "locality_kl") == pytest.approx({"c0": 0.6})


def test_nats_are_not_percentages_in_either_table() -> None:
    made = [
        row("locality", method=m, case=f"c{i}", category="A", divergence=(nats,))
        for m, scale in (("base", 0.0), ("ske", 1.0), ("lora", 200.0))
        for i, nats in enumerate((0.5 * scale, 1.5 * scale))
    ]
    [line] = [
        r
        for r in results(made)
        if (r["method"], r["metric"], r["category"]) == ("lora", "locality_kl", ALL)
    ]
    assert (line["n"], line["mean"]) == (2, 200)
    assert line["ci_high"] > 200
    [pair] = [
        r
        for r in comparisons(made)
        if (r["metric"], r["method_b"]) == ("locality_kl", "lora") and r["method_a"] == "ske"
    ]
    assert (pair["n"], pair["diff"], pair["test"]) == (2, -199, "sign-flip")


# -- correctness, claims, belief -------------------------------------------------------------------


def test_agreement_and_correctness_are_two_things() -> None:
    found = further(
        [
            row("locality", case="right", text="Old Vell.", base_text="Sorn"),
            row("locality", case="wrong", text="Sorn", base_text="Sorn"),
            row("locality", case="unknown", answers=(), text="Sorn", base_text="Sorn"),
            row("locality", case="half", protocol=FORCED, hits=(1, 1), gold_hits=(1, 0)),
        ]
    )
    assert values(found, "locality_correct") == {"right": 100, "wrong": 0, "half": 50}


def claim(case: str, text: str, answer: str = "no", **changes: Any) -> Row:
    fields = {"category": "Claims", "answers": ((answer,),), "text": text}
    return row("hard", case=case, **(fields | changes))


def test_self_refutation_counts_who_agrees_with_the_old_value() -> None:
    found = further(
        [
            claim("agrees", "Yes, it is."),
            claim("denies", "No."),
            claim("rambles", "Vell is nice"),
            claim("new value", "Yes.", answer="yes"),
            claim("broken", "Yes.", error="timeout"),
            claim("forced", "", protocol=FORCED, hits=(0,)),
            claim("other", "Yes.", category="False_Claims"),
        ]
    )
    assert values(found, "self_refutation") == {"agrees": 100, "denies": 0, "rambles": 0}


def edits(priors: Sequence[float | None], right: str) -> list[Row]:
    made = []
    for number, (prior, mark) in enumerate(zip(priors, right, strict=True)):
        case = {"case": f"c{number}"}
        made.append(row("edit_success", method="base", text="Sorn", prior=prior, **case))
        made.append(row("edit_success", text="Vell" if mark == "1" else "Sorn", **case))
    return made


def test_edits_are_told_apart_by_how_firm_the_old_belief_was() -> None:
    made = edits([0.9, 0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.95, None], "011111001")
    found = further(made)
    lora = {k: v for k, v in found.items() if k.method == "lora"}
    by = [values(lora, "edit_success_by_belief", f"strength_{q}") for q in (1, 2, 3, 4)]
    assert by == [
        {"c1": 100, "c2": 100},
        {"c3": 100, "c4": 100},
        {"c5": 100, "c6": 0},
        {"c0": 0, "c7": 0},
    ]
    table = {
        r["category"]: (r["n"], r["mean"])
        for r in results(made)
        if (r["method"], r["metric"]) == ("lora", "edit_success_by_belief")
    }
    assert table[ALL] == (8, 62.5)  # of the eight cases that have an old answer
    assert table["strength_3"] == (2, 50)


def test_equal_beliefs_share_a_quarter_and_three_cases_make_none() -> None:
    same = strengths(edits([1.0] * 6 + [0.5, 0.5], "1" * 8))
    assert {same["world", f"c{i}"] for i in range(6)} == {same["world", "c0"]}
    assert strengths(edits([0.1, 0.2, 0.3, None], "1111")) == {}


# -- asked of a model ------------------------------------------------------------------------------


def item(metric: str, prompt: str, *answers: str, old: str | None = None) -> Item:
    texts = tuple((text,) for text in answers)
    return Item(
        case="c0", metric=metric, category=ALL, probe=0, prompt=prompt, answers=texts, old=old
    )


def test_a_model_is_as_far_from_itself_as_nothing_and_from_another_it_is_not() -> None:
    asked = [
        item("edit_success", "The capital of Ruria is", "London", old="Vell"),
        item("locality", "The employer of Bela Cole is", "Acme Works"),
        item("perplexity", "", "The capital of Ruria is Vell."),
    ]
    numbered = list(enumerate(asked))
    lm, other = tiny.lm("qwen3"), tiny.lm("gpt2")
    before = answer(lm, numbered, [GENERATE, FORCED], 4)
    same = answer(lm, numbered, [GENERATE, FORCED], 4, before)
    moved = answer(other, numbered, [GENERATE, FORCED], 4, before)
    assert before[0].prior is not None and 0 < before[0].prior < 1
    assert same[0].prior is None  # of the base model alone
    assert before[2].loss == same[2].loss and before[2].text == ""

    def nats(said: list[Answer], method: str) -> list[Row]:
        made = rows(method, "world", 0, [GENERATE, FORCED], asked[:2], said[:2], before[:2])
        return [r for r in made if r.metric == "locality" and r.protocol == GENERATE]

    [unmoved], [far] = nats(same, "lora"), nats(moved, "lora")
    assert len(unmoved.divergence) == len(far.divergence) > 1
    assert set(unmoved.divergence) == {0.0}
    assert all(value > 0 for value in far.divergence)
    made = list(rows("base", "world", 0, [FORCED], asked[:2], before[:2], before[:2]))
    assert made[0].prior == before[0].prior
    assert len(made[1].gold_hits) == len(made[1].hits)


def test_the_prior_is_the_probability_of_the_whole_old_answer() -> None:
    lm = tiny.lm("llama")
    asked = item("edit_success", "The capital of Ruria is", "London", old="Vell City")
    [said] = answer(lm, [(0, asked)], [GENERATE], 2)
    [scored] = lm.logprobs([Pair(ask(asked.prompt), "Vell City")])
    assert len(scored.tokens) > 1
    assert said.prior == pytest.approx(math.prod(math.exp(value) for value in scored.logprobs))
