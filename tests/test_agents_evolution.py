"""The search by GEPA: it finds more than its seed, survives kills, keeps budgets, and is seen."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from chatserver import ChatServer, data, good, message_of, role_of
from scripted import ScriptedLM, make_facts

from agents.evolution import chosen, search
from agents.graph import design
from agents.planner import balanced
from agents.records import Design, Plan, Scores, Trial
from pipeline.mistakes import check_options
from pipeline.trials import Trials
from ske.config import DesignConfig, parse
from ske.trace import Event, Trace
from ske.types import MissingExtra

CAPACITY = {"triples": 2, "prose": 6}
N = 12


def config(**more: object) -> DesignConfig:
    plain = {"layouts": ("triples", "prose"), "max_repairs": 0, "max_trials": 10}
    return DesignConfig.model_validate({**plain, "search": "gepa", **more})


def events(folder: Path, role: str) -> list[Event]:
    return [e for e in Trace(folder / "trace.jsonl").events() if e.role == role and e.parsed]


def plans(folder: Path) -> list[dict[str, Any]]:
    return [event.parsed for event in events(folder, "planner")]


def prompts(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / "prompts").iterdir()}


@pytest.mark.parametrize("seed", [0, 1])
def test_it_finds_fuller_prompts_than_its_seed(tmp_path: Path, seed: int) -> None:
    facts = make_facts(N)
    result = design(facts, ScriptedLM(facts, CAPACITY), config(search_seed=seed), tmp_path)
    found = plans(tmp_path)
    assert (found[0]["layout"], found[0]["capacity"]) == ("triples", N)
    assert not [row for row in result.curve if row.facts_per_prompt == N and row.recall >= 0.95]
    assert result.passed and not result.lost
    # The seed's own layout holds 2; the other one was found, and filled.
    assert {(pack.layout, pack.capacity) for pack in result.packs} == {("prose", 6)}
    ways = [tuple(p[k] for k in ("purpose", "layout", "header", "footer", "capacity"))
            for p in found]  # fmt: skip
    assert len(set(ways)) == len(ways), "nothing is tried twice"


@pytest.mark.parametrize("crash_after", [0, 3, 11])
def test_a_killed_search_ends_in_the_same_prompts(tmp_path: Path, crash_after: int) -> None:
    facts, wanted = make_facts(N), config(max_repairs=1)
    cure = {"f003": "own"}
    whole = design(facts, ScriptedLM(facts, CAPACITY, cure=cure), wanted, tmp_path / "whole")
    folder = tmp_path / "killed"
    dying = ScriptedLM(facts, CAPACITY, cure=cure, crash_after=crash_after)
    with pytest.raises(ConnectionError):
        design(facts, dying, wanted, folder)
    again = ScriptedLM(facts, CAPACITY, cure=cure)
    assert design(facts, again, wanted, folder) == whole
    assert prompts(folder) == prompts(tmp_path / "whole")
    assert plans(folder) == plans(tmp_path / "whole")


@pytest.mark.parametrize("budget", [1, 80, 300])
def test_budgets_stay_hard(tmp_path: Path, budget: int) -> None:
    facts, lm = make_facts(N), ScriptedLM(make_facts(N), CAPACITY)
    result = design(facts, lm, config(max_calls=budget), tmp_path)
    assert lm.questions <= budget
    assert json.loads((tmp_path / "costs.json").read_text())["calls"] == lm.questions
    assert sorted(i for pack in result.packs for i in pack.fact_ids) == [f.id for f in facts]


@pytest.mark.parametrize("most", [1, 6])
def test_trials_are_counted(tmp_path: Path, most: int) -> None:
    facts = make_facts(N)
    design(facts, ScriptedLM(facts, CAPACITY), config(max_trials=most), tmp_path)
    purposes = [plan["purpose"] for plan in plans(tmp_path)]
    assert purposes.count("search") == max(1, most - 2)
    assert 1 <= purposes.count("naive") <= 2
    assert len(purposes) - purposes.count("verify") <= max(2, most)


def test_every_trial_is_in_the_trace_like_any_other(tmp_path: Path) -> None:
    facts = make_facts(N)
    result = design(facts, ScriptedLM(facts, CAPACITY), config(), tmp_path)
    for role in ("planner", "packer", "judge"):
        assert len(events(tmp_path, role)) == result.trials
    assert (
        events(tmp_path, "critic") and events(tmp_path, "writer") and events(tmp_path, "examiner")
    )
    told = [plan["reason"] for plan in plans(tmp_path) if plan["purpose"] == "search"]
    assert told[0] == "as many as fit" and all("GEPA's choice" in why for why in told[1:])
    shown = Trials(0.95)  # What `ske inspect` shows.
    for event in Trace(tmp_path / "trace.jsonl").events():
        shown.hear(event)
    assert [t.why for t in shown.all() if t.row["purpose"] == "search"] == told
    assert len(shown.all()) == result.trials and all(t.prompts for t in shown.all())


def test_the_seed_decides_and_nothing_else(tmp_path: Path) -> None:
    facts = make_facts(N)

    def made(name: str, seed: int) -> list[dict[str, Any]]:
        folder = tmp_path / name
        design(facts, ScriptedLM(facts, CAPACITY), config(search_seed=seed), folder)
        return plans(folder)

    first = made("a", 0)
    assert made("b", 0) == first
    assert any(made(f"seed-{seed}", seed) != first for seed in (1, 2))


def trial(index: int, capacity: int, known: int, layout: str = "triples") -> Trial:
    """The first `known` of 64 facts are answered."""
    lost = tuple(f"f{i:03}" for i in range(known, 64))
    plan = Plan(purpose="search", layout=layout, capacity=capacity, sample=64)
    scores = Scores(recall=known / 64, drift=0.0, tokens_per_fact=9.0)
    passed = known == 64
    return Trial(index=index, plan=plan, n=64, prompts=1, scores=scores, passed=passed, lost=lost)


def test_only_what_is_best_at_something_is_changed() -> None:
    # Nobody is served best by the third: others are fuller, or know more.
    trials = [trial(0, 64, 8), trial(1, 16, 64), trial(2, 8, 60)]
    drawn = {found.index for seed in range(20) if (found := chosen(trials, 64, seed))}
    assert drawn == {0, 1}
    assert chosen([], 64, 0) is None


def test_a_prompt_that_fails_and_one_that_passes_grow_towards_each_other() -> None:
    trials = [trial(0, 64, 8), trial(1, 16, 64)]
    plan = search(trials, 64, config())
    assert plan is not None and 16 < plan.capacity < 64
    settled = [*trials, trial(2, 32, 12), trial(3, 22, 20), trial(4, 19, 20)]
    for seed in range(5):
        plan = search(settled, 64, config(search_seed=seed))
        assert plan is not None and plan.capacity in {t.plan.capacity for t in settled}
        assert plan != settled[-1].plan


def test_nothing_is_left_of_a_single_fact() -> None:
    wanted, trials = config(layouts=("triples",)), []
    while (plan := search(trials, 1, wanted)) is not None:
        scores = Scores(recall=1.0, drift=0.0, tokens_per_fact=9.0)
        trials.append(
            Trial(index=len(trials), plan=plan, n=1, prompts=1, scores=scores, passed=True)
        )
    assert len({(t.plan.header, t.plan.footer) for t in trials}) == len(trials) == 12


# -- a model as the Planner -------------------------------------------------------------------


def evolving(request: dict[str, Any]) -> str:
    """Halves what GEPA chose until one passes; then measures the naive packer."""
    message = message_of(request)
    if role_of(message) != "planner":
        return good(request)
    plan = {"purpose": "search", "layout": "prose", "capacity": N, "sample": N}
    if "This search is an evolution" in message:
        parent = data(message)[0]
        size = balanced(N, parent["facts_per_prompt"] // 2)
        plan |= {"capacity": size, "header": "use", "reason": f"half of {parent['trial']}"}
        if "recall 1.0, " in message:
            plan |= {"purpose": "naive", "packer": "naive", "capacity": N}
            plan |= {"header": "none", "footer": "none"}
    return json.dumps(plan)


def by_model(folder: Path, server: ChatServer, crash_after: int | None = None) -> Design:
    facts = make_facts(N)
    endpoint = {"base_url": server.url, "model": "scripted"}
    wanted = config(brain="model", endpoint=endpoint)
    return design(facts, ScriptedLM(facts, CAPACITY, crash_after=crash_after), wanted, folder)


def test_a_model_changes_what_gepa_chose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ChatServer(evolving) as server:
        whole = by_model(tmp_path / "whole", server)
        asked = [message_of(r) for r in server.asked]
        with pytest.raises(ConnectionError):
            by_model(tmp_path / "killed", server, crash_after=4)
        assert by_model(tmp_path / "killed", server) == whole
    assert prompts(tmp_path / "killed") == prompts(tmp_path / "whole")
    assert {(pack.layout, pack.header, pack.capacity) for pack in whole.packs} == {
        ("prose", "use", 6)
    }
    assert "planner" not in whole.turns.by_rules
    first, second, *_ = [m for m in asked if role_of(m) == "planner"]
    assert "evolution" not in first
    parent, missed = data(second)[:2]
    assert (parent["trial"], parent["facts_per_prompt"], parent["recall"]) == (0, N, 0.5)
    assert missed and all(set(row) == {"prompt", "answer"} for row in missed)


# -- without the package ----------------------------------------------------------------------


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gepa", None)
    facts = make_facts(2)
    lm = ScriptedLM(facts, 2)
    told = r"design\.search = 'gepa'.*pip install -e '\.\[gepa\]'.*bisect"
    with pytest.raises(MissingExtra, match=told):
        design(facts, lm, config(), tmp_path)
    assert lm.calls == 0 and not list(tmp_path.iterdir())
    with pytest.raises(MissingExtra, match=told):
        check_options(parse({"design": {"search": "gepa"}}, "test"))
    assert design(facts, lm, config(search="bisect"), tmp_path).passed
