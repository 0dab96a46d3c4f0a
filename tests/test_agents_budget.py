"""Budgets of a design are hard, every fact is still placed, and what was spent is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chatserver import ChatServer, good
from scripted import ScriptedLM, make_facts

from agents.graph import design
from agents.meter import Meter, Spent
from agents.records import Design
from ske.config import DesignConfig
from ske.trace import Event, Trace

N = 24


def config(**more: object) -> DesignConfig:
    plain = {"layouts": ("triples", "prose"), "max_repairs": 1, "max_trials": 8}
    return DesignConfig.model_validate({**plain, **more})


def made(folder: Path, **more: object) -> tuple[Design, ScriptedLM]:
    facts = make_facts(N)
    lm = ScriptedLM(facts, 10, cure={"f003": "own"})
    return design(facts, lm, config(**more), folder), lm


def placed(result: Design) -> list[str]:
    return sorted(i for pack in result.packs for i in pack.fact_ids)


@pytest.mark.parametrize("budget", [1, 20, 150, 700, 1500])
def test_no_question_is_put_beyond_the_budget(tmp_path: Path, budget: int) -> None:
    result, lm = made(tmp_path, max_calls=budget)
    assert lm.questions <= budget
    assert placed(result) == [f.id for f in make_facts(N)]
    assert json.loads((tmp_path / "costs.json").read_text())["calls"] == lm.questions
    if budget < 150:
        assert set(result.lost.values()) == {f"the budget design.max_calls = {budget} is spent"}
        assert not result.passed and result.curve == ()
    if budget >= 700:
        assert len(result.lost) <= N - 10, "the first trial at least was paid for"


def test_tokens_are_foreseen(tmp_path: Path) -> None:
    _, free = made(tmp_path / "free")
    total = json.loads((tmp_path / "free/costs.json").read_text())["tokens"]
    for share in (0.1, 0.4, 0.8):
        folder = tmp_path / str(share)
        result, _ = made(folder, max_tokens=int(share * total))
        assert json.loads((folder / "costs.json").read_text())["tokens"] <= share * total
        assert placed(result) == [f.id for f in make_facts(N)]
    assert free.questions > 400


def test_seconds_end_a_design_too(tmp_path: Path) -> None:
    result, lm = made(tmp_path, max_seconds=1e-9)
    assert lm.calls <= 1 and len(result.lost) == N
    assert "design.max_seconds = 1e-09 is spent" in result.verdict


def test_an_ample_budget_changes_nothing_and_costs_are_what_was_asked(tmp_path: Path) -> None:
    plain, lm = made(tmp_path / "plain")
    ample, _ = made(tmp_path / "ample", max_calls=10**6, max_tokens=10**9, max_seconds=10**6)
    assert plain == ample
    costs = json.loads((tmp_path / "plain/costs.json").read_text())
    assert costs["calls"] == lm.questions
    events = list(Trace(tmp_path / "plain/trace.jsonl").events())
    assert costs["tokens"] == sum(event.tokens for event in events) > 0


def test_a_design_that_goes_on_remembers_what_it_spent(tmp_path: Path) -> None:
    facts, budget = make_facts(N), 500
    dying = ScriptedLM(facts, 10, crash_after=2)
    with pytest.raises(ConnectionError):
        design(facts, dying, config(max_calls=budget), tmp_path)
    again = ScriptedLM(facts, 10)
    design(facts, again, config(max_calls=budget), tmp_path)
    events = Trace(tmp_path / "trace.jsonl").events()
    asked = sum(int(e.scores["questions"]) for e in events if e.brain == "teacher")
    assert asked <= budget and again.questions < asked


def test_a_model_that_decides_is_not_asked_beyond_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    spent: dict[int | None, tuple[int, int]] = {}
    with ChatServer(good) as server:
        place = {"base_url": server.url, "model": "scripted"}
        for budget in (None, 900):
            before, folder = len(server.asked), tmp_path / str(budget)
            result, _ = made(folder, brain="model", endpoint=place, max_tokens=budget)
            assert placed(result) == [f.id for f in make_facts(N)]
            tokens = json.loads((folder / "costs.json").read_text())["tokens"]
            spent[budget] = len(server.asked) - before, tokens
    assert spent[900][0] < spent[None][0] and spent[900][1] <= 900 < spent[None][1]
    told = [e for e in Trace(tmp_path / "900/trace.jsonl").events() if e.notes]
    assert any("max_tokens = 900 is spent: scripted is not asked" in e.notes[0] for e in told)


def test_the_meter_by_hand() -> None:
    meter = Meter(config(max_calls=10, max_tokens=100))
    own = {"stage": "design", "role": "examiner", "template": "", "template_hash": ""}
    event = {
        **own,
        "brain": "teacher",
        "scores": {"questions": 4},
        "tokens": 40,
        "facts": ["a", "b"],
    }
    meter.add(Event.model_validate(event), characters=80)
    assert (meter.calls, meter.tokens, meter.calls_a_fact, meter.tokens_a_fact) == (4, 40, 2, 20)
    assert meter.allows(3) and not meter.allows(4)  # 4 + 8 calls would be 12
    meter.check(6, 90)  # 10 calls; 40 + 1.25 x 45 tokens
    with pytest.raises(Spent, match=r"design\.max_calls = 10"):
        meter.check(7, 1)
    with pytest.raises(Spent, match=r"design\.max_tokens = 100"):
        meter.check(1, 100)  # 40 + 1.25 x 50
    assert meter.spent() == ""
