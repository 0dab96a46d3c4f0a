"""The page of `ske inspect`: its script runs in a browser, it fits a phone, and it is right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from browser import DESK, PHONE, browse, look, needs_browser, unreadable
from minirun import minirun
from scripted import ScriptedLM, make_facts

from agents.graph import design
from pipeline import inspection
from pipeline.drawing import Part, marked, panels, recall_map
from pipeline.run import Run
from pipeline.stories import chronicle, finished_design
from ske.config import DesignConfig
from ske.io import write_rows


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Eight facts, of which the teacher never answers one."""
    run = minirun(tmp_path_factory.mktemp("page"), n=8)
    facts = make_facts(8)
    write_rows(run.stage("facts") / "facts.jsonl", [f.model_dump(mode="json") for f in facts])
    wanted = DesignConfig.model_validate({"layouts": ["triples", "prose"], "recall": 0.8})
    lm = ScriptedLM(facts, 9, cure={"f004": "never"}, drifting=("triples",))
    design(facts, lm, wanted, run.stage("design"))
    return Run(run.config.model_copy(update={"design": wanted}), run.folder)


READ = ("h1", ".soft", "td", "th", "summary", "pre", "mark", "mark.lost", ".flow small", ".key li")
READ += (".map a", ".cn", ".add", ".cut", ".tag", "nav a")


@needs_browser
def test_the_script_compares_prompts_and_opens_the_fact_that_is_asked_for(
    run: Run, tmp_path: Path
) -> None:
    page = inspection.page(run)
    dom = browse(f"{page.as_uri()}#f4", tmp_path, "--dump-dom")
    assert re.search(r'<details class="fact" id="f4"[^>]* open', dom)
    assert not re.search(r'<details class="fact" id="f3"[^>]* open', dom)
    assert 'class="cut">- ' in dom and 'class="add">+ ' in dom


@needs_browser
@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_is_legible_and_fetches_nothing(
    run: Run, tmp_path: Path, width: int, dark: bool
) -> None:
    page = inspection.page(run).read_text(encoding="utf-8")
    seen = look(page, tmp_path, width, dark, READ)
    assert seen.told["inner"] == width
    assert seen.told["scroll"] <= width
    assert seen.told["fetched"] == []
    assert {name for name, *_ in seen.told["pairs"]} == set(READ)
    assert unreadable(seen) == set()
    assert (seen.brightness < 0.4) == dark
    assert (seen.brightness > 0.75) == (not dark)


def test_the_map_shows_the_hardest_fact_first(run: Run) -> None:
    found = chronicle(run)
    rows = recall_map([f"f{i:03}" for i in range(8)], found.trials)
    assert rows[0].fact == "f004" and "y" not in rows[0].cells and "n" in rows[0].cells
    assert all(len(row.cells) == len(found.trials) for row in rows)
    assert [row.fact for row in rows[1:]] == [f"f{i:03}" for i in range(8) if i != 4]


def test_each_fact_is_marked_where_it_stands_and_the_text_is_kept(run: Run) -> None:
    made, facts = finished_design(run), {fact.id: fact for fact in make_facts(8)}
    for pack in made.packs:
        parts = marked(pack, facts, made.lost)
        assert "".join(part.text for part in parts) == pack.system
        told = [part for part in parts if part.fact]
        assert [part.fact for part in told if not part.recalled] == [
            i for i in pack.fact_ids if i == "f004"
        ]
        assert {part.fact for part in told} == set(pack.fact_ids)
        assert all(facts[part.fact].target_new in part.text for part in told)


def test_facts_of_one_subject_are_marked_beside_each_other(run: Run) -> None:
    made = (
        finished_design(run)
        .packs[0]
        .model_copy(
            update={"system": "Ada: job = smith; city = Rome\nrest", "fact_ids": ("a", "b")}
        )
    )
    one = make_facts(1)[0].model_copy(update={"id": "a", "subject": "Ada", "target_new": "smith"})
    two = one.model_copy(update={"id": "b", "target_new": "Rome"})
    assert marked(made, {"a": one, "b": two}, {"b": "why"}) == [
        Part("Ada: job = smith", "a", True),
        Part("; city = Rome", "b", False),
        Part("\nrest"),
    ]


def test_curves_are_drawn_to_scale(run: Run) -> None:
    curve = finished_design(run).curve
    recall = panels(curve)[0]
    assert {line.label for line in recall.lines} == {"triples", "prose", "naive packer"}
    first = next(line for line in recall.lines if line.label == "triples")
    sizes = sorted({r.facts_per_prompt for r in curve if r.layout == "triples"})
    assert len(first.dots) == len(sizes)
    assert first.dots[0].x == recall.across[0][0] == 38 and first.dots[-1].x == 448
    low, high = recall.up[0][0], recall.up[-1][0]
    shown = [float(re.findall(r"(\d+)%", dot.told)[0]) / 100 for dot in first.dots]
    for dot, value in zip(first.dots, shown, strict=True):
        assert dot.y == pytest.approx(low + value * (high - low), abs=1.1)
