"""The bench of the agents, with a scripted teacher: it compares, goes on, fills its document."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from scripted import ScriptedLM, make_facts

from agents.packer import Packed, Packing
from bench import agents as bench
from bench import agents_cost
from bench.agents_cost import Cost
from bench.document import filled
from bench.measuring import measured
from bench.variants import VARIANTS, Task, file_order, naive_of, written
from ske.config import DesignConfig

N = 16


def task(seed: int, folder: Path) -> Task:
    facts = make_facts(N)
    lm = ScriptedLM(facts, {"triples": 8, "prose": 4}, drifting=("prose",))
    short = {"layouts": ("triples", "prose"), "max_trials": 8, "max_repairs": 1, "max_facts": 16}
    return Task(facts, lm, (), DesignConfig.model_validate(short), folder, seed)


def test_cells_are_made_once_and_the_designer_beats_the_naive_packer(tmp_path: Path) -> None:
    made: list[int] = []

    def counting(seed: int, folder: Path) -> Task:
        made.append(seed)
        return task(seed, folder)

    names = ["designer", "naive", "no examiner"]
    first = bench.grid(tmp_path, names, range(2), counting)
    assert len(made) == len(list(tmp_path.glob("*.json"))) == 6
    (tmp_path / "naive-s1.json").unlink()
    again = bench.grid(tmp_path, names, range(2), counting)
    assert made == [0, 0, 0, 1, 1, 1, 1]
    cells = {(c["variant"], c["seed"]): c for c in again}
    assert cells["designer", 0] == next(c for c in first if c["variant"] == "designer")
    assert cells["designer", 0]["facts_per_prompt"] == 8 and cells["designer", 0]["reached"]
    assert cells["naive", 0]["facts_per_prompt"] == 4 and cells["naive", 0]["reached"]
    assert not cells["no examiner", 0]["reached"] and cells["no examiner", 0]["questions"] == 0
    assert cells["designer", 0]["drift"] == 0 < cells["naive", 0]["drift"]
    assert cells["designer", 0]["questions"] > N
    told = bench.table(again)
    designer = next(line for line in told.splitlines() if line.startswith("| designer"))
    assert "| 8.0 [8.0, 8.0] | 2.00 [2.00, 2.00] | 2 of 2 |" in designer


@pytest.mark.parametrize("name", ["random", "no planner", "no packer", "no writer", "no judge"])
def test_a_way_without_a_role_still_places_every_fact(tmp_path: Path, name: str) -> None:
    pack = VARIANTS[name][1]
    assert pack is not None
    prompts = pack(task(0, tmp_path))
    ids = [i for prompt in prompts for i in prompt.fact_ids]
    assert sorted(ids) == [fact.id for fact in make_facts(N)]
    if name == "no packer":
        assert ids == sorted(ids)
    if name == "no writer":
        assert all(p.system.startswith("The") and "Everything" not in p.system for p in prompts)
    if name == "no judge":
        assert {len(p.fact_ids) for p in prompts} != {4}


def test_the_measure_is_the_examiner_s_by_hand(tmp_path: Path) -> None:
    own = task(0, tmp_path)
    half = [written(own, [f.id for f in own.facts], "triples")]
    scores = measured(own, half)
    assert (scores["recall"], scores["prompts"], scores["reached"]) == (0.5, 1, False)
    assert scores["facts_per_prompt"] == 8
    assert [scores["facts"][f.id]["recall"] for f in own.facts] == [True] * 8 + [False] * 8
    fours = measured(own, naive_of(own, 4))
    assert (fours["recall"], fours["prompts"], fours["facts_per_prompt"]) == (1.0, 4, 4)


def test_figures_go_between_the_marks_and_nowhere_else() -> None:
    begin, end = "<!-- figures -->", "<!-- end of figures -->"
    text = f"before\n{begin}\nold\n{end}\nafter"
    new = filled(text, "a \\1 table\n")
    assert new == f"before\n{begin}\na \\1 table\n{end}\nafter"
    document = bench.DOCS.read_text(encoding="utf-8")
    assert document.count(begin) == document.count(end) == 1
    for name in VARIANTS:
        assert name.removeprefix("no ") in document


def test_questions_do_not_grow_faster_than_n_log_n() -> None:
    config = DesignConfig.model_validate(
        {"layouts": ["triples"], "max_repairs": 0, "max_trials": 4}
    )
    costs = [agents_cost.cost(n, config) for n in (32, 160)]
    assert not agents_cost.grows_too_fast(costs), costs
    assert costs[0].questions > 32
    assert agents_cost.grows_too_fast([Cost(4, 8, 0, 0, 1), Cost(8, 25, 0, 0, 1)])
    told = agents_cost.growth([Cost(n, 3 * n, n * n, 0, 1) for n in (4, 16, 256)])
    assert "questions n^1.00, tokens n^2.00; n log n is n^1." in told


def test_a_switched_off_packer_leaves_repairs_alone() -> None:
    config = DesignConfig()
    repair = Packing(packs=[Packed(fact_ids=["b", "a"], origin=0)])
    assert file_order(repair, random.Random(0), config).packs == []
    mixed = Packing(packs=[Packed(fact_ids=["d", "a"]), Packed(fact_ids=["c", "b"])])
    cut = file_order(mixed, random.Random(0), config)
    assert json.loads(cut.model_dump_json())["packs"][0]["fact_ids"] == ["a", "b"]
