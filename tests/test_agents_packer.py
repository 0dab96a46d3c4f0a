"""Laws of the Packer, and of the search that decides its capacity."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.bisection import next_capacity
from agents.front import pareto, winner
from agents.packer import collides, naive, pack, repack
from agents.planner import balanced, propose
from agents.records import Plan, Scores, Trial
from agents.state import Held
from ske.config import DesignConfig
from ske.types import Fact

RELATIONS = ("employer", "occupation", "spouse")


@st.composite
def fact_lists(draw: st.DrawFn) -> list[Fact]:
    pairs = draw(st.lists(st.tuples(st.integers(0, 11), st.sampled_from(RELATIONS)), min_size=1,
                          max_size=40, unique=True))  # fmt: skip
    return [
        Fact(
            id=f"f{i:02}",
            subject=f"Name{number} Family{number % 4}",
            prompt=f"{relation} of Name{number}",
            target_new=f"T{i}",
            relation=relation,
        )
        for i, (number, relation) in enumerate(pairs)
    ]


@given(fact_lists(), st.integers(1, 20), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_pack_laws(facts: list[Fact], capacity: int, rng: random.Random) -> None:
    packs = pack(facts, capacity)
    assert sorted(i for p in packs for i in p) == sorted(f.id for f in facts)
    by_id = {fact.id: fact for fact in facts}
    home: dict[str, int] = {}
    for index, ids in enumerate(packs):
        subjects = {by_id[i].subject for i in ids}
        assert ids
        assert len(ids) <= capacity or len(subjects) == 1
        for subject in subjects:
            assert home.setdefault(subject, index) == index
    shuffled = facts[:]
    rng.shuffle(shuffled)
    assert pack(shuffled, capacity) == packs


@given(st.integers(1, 70), st.integers(1, 70))
@settings(max_examples=40, deadline=None)
def test_pack_is_balanced_without_constraints(n: int, capacity: int) -> None:
    facts = [Fact(id=f"{i:02}", subject=f"s{i}", prompt=f"p{i}", target_new=f"t{i}")
             for i in range(n)]  # fmt: skip
    sizes = [len(p) for p in pack(facts, capacity)]
    assert len(sizes) == -(-n // capacity)
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) == balanced(n, capacity)


def test_near_collisions_go_apart() -> None:
    facts = [
        Fact(id=f"{i}", subject=f"{first} {last}", prompt=f"q{i}", target_new="x",
             relation="employer")
        for i, (first, last) in enumerate(
            [("Ada", "Holt"), ("Bo", "Holt"), ("Cy", "Ray"), ("Di", "Ray")]
        )
    ]  # fmt: skip
    by_id = {fact.id: fact for fact in facts}
    for ids in pack(facts, 2):
        assert not collides(by_id[ids[0]], by_id[ids[1]])


def test_a_chain_shares_a_prompt() -> None:
    facts = [
        Fact(id=f"{i}", subject=f"P{i}", prompt=f"q{i}", target_new="Acme" if i == 3 else f"x{i}")
        for i in range(5)
    ] + [Fact(id="9", subject="Acme", prompt="where", target_new="Rome")]
    home = next(p for p in pack(facts, 3) if "9" in p)
    assert "3" in home


def test_naive_keeps_file_order() -> None:
    facts = [Fact(id=i, subject=i, prompt=i, target_new=i) for i in "zyxw"]
    assert naive(facts, 3) == [["z", "y", "x"], ["w"]]


@pytest.mark.parametrize(
    ("step", "expected"),
    [("move", [["a", "c", "b"]]), ("repeat", [["a", "b", "c"]]), ("own", [["a", "c"], ["b"]])],
)
def test_repair_steps(step: str, expected: list[list[str]]) -> None:
    held = _held(["a", "b", "c"], lost={"b"})
    packs = repack(held, step)  # type: ignore[arg-type]
    assert [p.fact_ids for p in packs] == expected
    assert packs[0].repeated == (["b"] if step == "repeat" else [])
    assert {p.origin for p in packs} == {0}


def test_a_single_lost_fact_alone_cannot_be_repaired_by_moving() -> None:
    held = _held(["a"], lost={"a"})
    assert repack(held, "move") == []
    assert repack(held, "own") == []


def _held(ids: list[str], lost: set[str]) -> Held:
    return {
        "trial": 0,
        "plan": {},
        "packs": [{"index": 0, "origin": -1, "fact_ids": ids, "repeated": [], "system": ""}],
        "exams": [
            {
                "trial": 0,
                "pack": 0,
                "tokens": 1,
                "facts": [
                    {
                        "id": i,
                        "position": 0,
                        "size": len(ids),
                        "recall": i not in lost,
                        "paraphrase": None,
                        "consequences": [],
                        "drift": [],
                        "reply": "",
                        "prior": "",
                    }
                    for i in ids
                ],
            }
        ],
        "reasons": {},
    }


@given(st.integers(1, 128), st.integers(0, 128))
@settings(max_examples=80, deadline=None)
def test_bisection_finds_the_capacity(n: int, true: int) -> None:
    own: dict[int, bool] = {}
    top = balanced(n, 128)
    while (capacity := next_capacity(own, n, top, 0)) is not None:
        assert capacity not in own, "a capacity is never tried twice"
        own[capacity] = capacity <= true
    passed = max((c for c, ok in own.items() if ok), default=0)
    best = max((balanced(n, c) for c in range(1, n + 1) if balanced(n, c) <= true), default=0)
    assert passed <= best
    assert best <= passed * 1.25
    assert len(own) <= 10


def test_another_layout_must_reach_the_best() -> None:
    assert next_capacity({64: False}, 64, 64, 16) == 16
    assert next_capacity({64: False, 16: False}, 64, 64, 16) is None
    assert next_capacity({64: False}, 64, 64, 64) is None


def _trial(index: int, capacity: int, recall: float, **more: float) -> Trial:
    plan = Plan(purpose="search", layout="triples", capacity=capacity, sample=64)
    scores = Scores(recall=recall, tokens_per_fact=more.pop("tokens", 9.0), **more)
    return Trial(index=index, plan=plan, n=64, prompts=1, scores=scores, passed=recall >= 0.95)


def test_winner_and_front() -> None:
    config = DesignConfig.model_validate({})
    small, large = _trial(0, 16, 1.0, drift=0.0), _trial(1, 64, 0.96, drift=0.1)
    beaten = _trial(2, 16, 0.9, drift=0.1)
    assert winner([small, large, beaten], config) == large
    assert pareto([small, large, beaten]) == [small, large]
    better = _trial(3, 56, 0.96, drift=0.1, consequences=1.0)
    assert winner([small, large, better], config) == better
    assert winner([beaten], config) == beaten
    assert winner([], config) is None


def test_naive_is_measured_even_without_budget() -> None:
    config = DesignConfig.model_validate({"max_trials": 1})
    first = _trial(0, 64, 1.0)
    plan = propose([first], 64, config, held=0)
    assert plan is not None
    assert (plan.packer, plan.capacity) == ("naive", 64)


def test_a_sampled_winner_is_verified_on_all_facts() -> None:
    config = DesignConfig.model_validate({"max_trials": 1})
    first = _trial(0, 128, 1.0)
    naive_plan = first.plan.model_copy(update={"packer": "naive", "purpose": "naive"})
    compared = first.model_copy(update={"index": 1, "plan": naive_plan})
    plan = propose([first, compared], 1000, config, held=0)
    assert plan is not None
    assert (plan.purpose, plan.capacity, plan.sample) == ("verify", 128, 1000)
    verified = first.model_copy(update={"index": 2, "n": 1000, "plan": plan})
    assert propose([first, compared, verified], 1000, config, held=2) is None
