import io
import re
from pathlib import Path

import pytest
from minirun import EVIL, minirun
from rich.console import Console, RenderableType

from pipeline import approving, health, inspection, previewing, stories
from pipeline.run import Run
from ske.config import parse
from ske.io import write_json, write_text
from ske.types import Fact, UserError


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return minirun(tmp_path_factory.mktemp("run"))


def shown(renderable: RenderableType) -> str:
    console = Console(width=400, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def test_overview_shows_trials_prompts_lost_facts_and_roles(run: Run) -> None:
    told = shown(inspection.overview(run))
    for part in ("1 trial", "chosen", "pack-00", "1 fact lost", "too hard", "planner", "judge"):
        assert part in told
    assert "3 events" in told and EVIL in told  # rich markup in it is text as well
    assert "as many as fit" not in told.split("The trace")[0]


def test_one_fact_is_followed_from_prompt_to_score(run: Run) -> None:
    told = shown(inspection.fact(run, "world-0001"))
    assert "pack-00, fact 2 of 4" in told
    assert "Ada 1 | employer | Mill 1" in told
    assert "Examined in 1 prompt" in told and "repaired" in told
    assert "Trained on 1 fact" in told
    assert "Scored, generate" in told and "Scored, teacher forced" in told
    assert "100 %" in told and "SKE" in told
    assert "world-0002" not in told


def test_an_unknown_fact_names_near_ones(run: Run) -> None:
    with pytest.raises(UserError, match=r"'world-001'.*did you mean world-0001"):
        inspection.fact(run, "world-001")
    with pytest.raises(
        UserError, match=r"they are like world-0000, [^.]*\. All are in .*facts\.jsonl"
    ):
        inspection.fact(run, "zzz")


def test_without_a_design_it_says_what_to_run(tmp_path: Path) -> None:
    bare = minirun(tmp_path / "bare", ("base", "prompt"))
    with pytest.raises(UserError, match="no 'ske'"):
        inspection.overview(bare)
    early = minirun(tmp_path / "early")
    (early.stage("design") / "design.json").unlink()
    for look in (inspection.overview, inspection.page):
        with pytest.raises(UserError, match=r"ske run .*config\.yaml --stage design"):
            look(early)


def test_a_fact_can_be_seen_before_it_is_trained_or_scored(tmp_path: Path) -> None:
    run = minirun(tmp_path)
    for stage, name in (
        ("teach", "queries.jsonl"),
        ("teach", "lessons.jsonl"),
        ("ask", "rows.jsonl"),
    ):
        (run.stage(stage) / name).unlink()
    told = shown(inspection.fact(run, "world-0002"))
    assert "Not asked yet" in told and "Trained on none" in told
    assert inspection.page(run).exists()


def test_the_page_stands_alone_and_escapes_what_models_say(run: Run) -> None:
    page = inspection.page(run).read_text(encoding="utf-8")
    assert page.count("<script>") == 1 and page.count("</script>") == 1  # its own
    assert not re.search(r"""(?:src|href)\s*=(?!"#)|url\(|@import""", page)
    assert "&lt;script&gt;alert(" in page
    assert page.count('<details class="fact"') == 4
    assert 'data-state="lost fails-prompt fails-ske"' in page
    assert "<mark>Ada 1 | employer | Mill 1</mark>" in page


def test_what_stands_around_a_fact_is_cut() -> None:
    own = Fact(id="a", subject="Ada", prompt="Ada works at", target_new="the Mill")
    system = "x" * 500 + " Ada, Bo. Ada works at the Mill. " + "y" * 500
    before, hit, after = stories.around(system, own)
    assert hit == "Ada works at the Mill"
    assert before.startswith("... ") and after.endswith(" ...") and len(before) < 260
    assert stories.around("Ada:\nemployer = Inn", own)[1] == "Ada"
    assert stories.around("nobody", own) == ("", "", "nobody")


def test_prompts_are_rendered_for_a_fact_by_id_or_file(tmp_path: Path) -> None:
    assert "Lesa Trifield" in previewing.render_for("teacher/prose", "world-0012", None).text
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "Ada is a", "subject": "Ada", "target_new": "smith"}\n')
    rendered = previewing.render_for("teacher/triples", None, path)
    assert "smith" in rendered.text and rendered.template == "teacher/triples"
    assert previewing.render_for("agents/critic", None, None).text


def test_unknown_templates_and_facts_name_near_ones() -> None:
    with pytest.raises(UserError, match=r"'designer'.*agents/designer"):
        previewing.render_for("designer", None, None)
    with pytest.raises(UserError, match=r"'agents/desinger'.*agents/designer"):
        previewing.render_for("agents/desinger", None, None)
    with pytest.raises(UserError, match=r"'world-12'.*did you mean world-"):
        previewing.render_for("teacher/prose", "world-12", None)


def test_doctor_says_what_is_there_and_how_to_get_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health, "_answer", lambda folder: "2.7 million weights")
    monkeypatch.setattr(health, "installed", lambda name: None if name == "vllm" else "1.0")
    found = {check.what: check for check in health.found_out()}
    assert found["Python"].state == "ok" and found["processor"].state == "ok"
    assert 'pip install -e ".[vllm]"' in found["vllm"].said and found["vllm"].state == "note"
    assert found["torch"].state == "note" and "torch>=" in found["torch"].said
    assert "float32" in found["number format"].said
    assert "base model" in shown(health.checks())


def test_a_model_that_does_not_load_is_no_crash(tmp_path: Path) -> None:
    def broken(folder: Path) -> str:
        raise OSError("torn file\nand more")

    check = health._loaded(tmp_path, broken)
    assert check.state == "missing" and check.said.endswith("does not load: torn file")


def test_a_run_in_rounds_says_where_its_designs_are(tmp_path: Path) -> None:
    run = Run(parse({"edits": {"mode": "sequential"}}, "test"), tmp_path)
    with pytest.raises(UserError, match=r"ske inspect .*stages/train/items/round-0001"):
        stories.finished_design(run)
    begun = run.stage("train") / "items" / "round-0003" / "stages" / "design"
    write_json(begun / "design.json", {})
    with pytest.raises(UserError, match=r"ske inspect .*stages/train/items/round-0003"):
        approving.answer(run, True, None)


def test_a_round_is_approved_in_its_folder_and_the_whole_run_goes_on(tmp_path: Path) -> None:
    there = minirun(tmp_path / "run" / "stages" / "train" / "items" / "round-0002")
    design = there.config.design.model_copy(update={"approve": True})
    waiting = Run(there.config.model_copy(update={"design": design}), there.folder)
    with pytest.raises(UserError, match=rf"with it: ske run {tmp_path}/run/config.yaml --stage tr"):
        approving.answer(there, True, None)
    assert approving.waits(waiting)
    for pack in stories.finished_design(waiting).packs:
        write_text(waiting.stage("design") / "prompts" / f"{pack.id}.md", pack.system)
    told = approving.answer(waiting, True, None)
    assert told == f"Approved 1 prompt. Go on with: ske run {tmp_path}/run/config.yaml"
