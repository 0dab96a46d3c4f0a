"""The page of `ske inspect` in a real browser: its script runs, it is not blank, nothing overflows.

Needs Chromium (`apt-get install chromium`); without it these tests are skipped.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from minirun import minirun
from PIL import Image
from scripted import ScriptedLM, make_facts

from agents.graph import design
from pipeline import inspection
from pipeline.drawing import Part, marked, panels, recall_map
from pipeline.run import Run
from pipeline.stories import chronicle, finished_design
from ske.config import DesignConfig
from ske.io import write_rows

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")


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


def chromium(page: str, folder: Path, *options: str) -> str:
    """What Chromium prints."""
    assert CHROMIUM is not None
    plain = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
    own = (*plain, "--no-first-run", f"--user-data-dir={folder / 'profile'}", *options)
    done = subprocess.run([CHROMIUM, *own, page], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@browser
def test_the_script_compares_prompts_and_opens_the_fact_that_is_asked_for(
    run: Run, tmp_path: Path
) -> None:
    page = inspection.page(run)
    dom = chromium(f"{page.as_uri()}#f4", tmp_path, "--dump-dom")
    assert re.search(r'<details class="fact" id="f4"[^>]* open', dom)
    assert not re.search(r'<details class="fact" id="f3"[^>]* open', dom)
    assert 'class="cut">- ' in dom and 'class="add">+ ' in dom


@browser
@pytest.mark.parametrize("dark", [False, True])
def test_it_is_painted_on_paper_light_or_dark(run: Run, tmp_path: Path, dark: bool) -> None:
    picture = tmp_path / "page.png"
    mode = ["--force-dark-mode"] if dark else []
    size = "--window-size=500,1600"
    chromium(inspection.page(run).as_uri(), tmp_path, *mode, size, f"--screenshot={picture}")
    with Image.open(picture) as image:
        assert image.size == (500, 1600)
        colours = image.convert("L").histogram()
    paper = max(range(256), key=lambda level: colours[level])
    assert paper < 60 if dark else paper > 240
    assert sum(colours) - colours[paper] > 0.02 * sum(colours), "something is painted on it"


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
