"""What `ske inspect` shows beside the overview: turns, comparisons, a design as it runs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from minirun import EVIL, minirun
from rich.console import Console, RenderableType
from scripted import ScriptedLM, make_facts

from agents.calls import Call
from agents.graph import build, design
from agents.model_brain import CALLS
from pipeline import following, inspection, looking, telling, turns
from pipeline.design import examined
from pipeline.looking import Wish
from pipeline.run import Run
from pipeline.stories import chronicle
from pipeline.trials import Prompt, Tried
from ske.config import DesignConfig
from ske.io import append_rows, locked, write_rows, write_text
from ske.trace import Event, Trace
from ske.types import UserError


@pytest.fixture(scope="module")
def designed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose design the agents really made: 12 facts, a teacher that can use 5 of them."""
    run = minirun(tmp_path_factory.mktemp("designed"), n=12)
    facts = make_facts(12)
    write_rows(run.stage("facts") / "facts.jsonl", [f.model_dump(mode="json") for f in facts])
    wanted = DesignConfig.model_validate({"max_repairs": 1, "layouts": ["triples", "prose"]})
    config = run.config.model_copy(update={"design": wanted})
    design(facts, ScriptedLM(facts, 5, cure={"f003": "own"}), wanted, run.stage("design"))
    return Run(config, run.folder)


def shown(renderable: RenderableType) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(renderable, markup=False)
    return console.export_text()


def look(run: Run, **wish: object) -> str:
    return "".join(map(shown, looking.look(run, Wish(**wish))))  # pyright: ignore[reportArgumentType]


def test_every_trial_is_there_however_many_with_its_prompts(designed: Run) -> None:
    found = chronicle(designed)
    assert len(found.trials) == found.design.trials > 8
    assert [trial.chosen for trial in found.trials].count(True) == 1
    curve = {(r.layout, r.facts_per_prompt, r.header, r.recall) for r in found.design.curve}
    for trial in found.trials:
        row = trial.row
        assert row["n"] == sum(len(p.fact_ids) for p in trial.prompts)
        if row["purpose"] != "repair":
            key = (row["layout"], row["facts_per_prompt"], row["header"], row["recall"])
            assert key in curve
        marks = [ok for prompt in trial.prompts for ok in prompt.recalled.values()]
        assert sum(marks) / len(marks) == pytest.approx(row["recall"], abs=1e-4)
        assert trial.questions > 0 or row["purpose"] == "repair"


def test_the_graph_that_is_told_is_the_graph_that_runs(designed: Run) -> None:
    graph = build().compile().get_graph()
    assert set(graph.nodes) == {"__start__", "__end__", *telling.ROLES}
    edges = {(edge.source, edge.target) for edge in graph.edges}
    assert set(zip(telling.ROLES, telling.ROLES[1:], strict=False)) <= edges
    assert {("judge", "planner"), ("approval", "planner")} <= edges
    found = chronicle(designed)
    rows = {row[0]: row[1:] for row in telling.graph_rows(found.visits, found.trials, 0)}
    trials = str(found.design.trials)
    assert rows["planner"][0] == rows["judge"][0] == trials
    assert rows["planner"][1] == trials and rows["approval"][0] == "1"
    assert int(rows["examiner"][0]) == sum(len(trial.prompts) for trial in found.trials)


def test_one_turn_is_shown_in_full(designed: Run) -> None:
    events = list(Trace(designed.stage("design") / "trace.jsonl").events())
    number = next(i for i, e in enumerate(events) if e.role == "writer")
    told = look(designed, turn=number)
    assert f"turn {number}: writer, decided by rules" in told
    assert "prompts/agents/designer.md" in told and "You are the Writer of a team" in told
    assert "Everything else is as it was." in told and "parsed" in told
    with pytest.raises(
        UserError, match=rf"--turn 9999: the trace has turns 0 to {len(events) - 1}"
    ):
        look(designed, turn=9999)


def test_the_trials_can_be_read_on_a_terminal_of_80_columns(designed: Run) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(inspection.overview(designed), markup=False)
    told = console.export_text()
    assert "\u2026" not in told, "nothing is cut"
    first = next(line for line in told.splitlines() if line.strip().startswith("0 search"))
    assert first.split()[1:4] == ["search", "triples", "designer"]


def test_a_turn_can_be_read_before_the_design_is_done(designed: Run, tmp_path: Path) -> None:
    run = minirun(tmp_path)
    folder = run.stage("design")
    for name in ("trace.jsonl", "design.json"):
        (folder / name).unlink()
    with pytest.raises(UserError, match=r"--turn 0: no agent has said anything yet; first: ske"):
        look(run, turn=0)
    first = (designed.stage("design") / "trace.jsonl").read_bytes().splitlines(keepends=True)[0]
    (folder / "trace.jsonl").write_bytes(first)
    assert "turn 0: planner, decided by rules" in look(run, turn=0)
    with pytest.raises(UserError, match=r"the design is not done"):
        look(run, diff=("0.0", "0.0"))


def test_a_turn_of_a_model_shows_the_whole_question(tmp_path: Path) -> None:
    run = minirun(tmp_path)
    long = "x" * 5000 + "END"
    message = {"role": "user", "content": long}
    call = Call(key="k", role="judge", model="m", messages=[message], reply="r")  # pyright: ignore
    append_rows(run.stage("design") / CALLS, [call.model_dump(mode="json")])
    event = {"stage": "design", "role": "judge", "brain": "m", "template": "", "call": "k"}
    cut = [{"role": "user", "content": long[:4000]}]
    Trace(run.stage("design") / "trace.jsonl").add(
        Event.model_validate({**event, "template_hash": "", "messages": cut})
    )
    assert "xEND" in look(run, turn=3).replace("\n", "")


def test_two_prompts_are_compared(designed: Run) -> None:
    told = look(designed, diff=("0.0", "pack-00"))
    assert "0.0  ->  pack-00" in told
    changed = [line[0] for line in told.splitlines()[1:] if line[:1] in "+-"]
    assert "-" in changed
    assert "the same, word for word" in look(designed, diff=("0.0", "0.0"))
    with pytest.raises(UserError, match=r"'pack-99': no such prompt; did you mean pack-0"):
        look(designed, diff=("0.0", "pack-99"))


def test_prose_is_compared_sentence_by_sentence() -> None:
    assert turns.diff_lines("A is B. C is D.", "A is B. C is E.") == [
        "@@ -1,2 +1,2 @@", " A is B.", "-C is D.", "+C is E."
    ]  # fmt: skip


def test_one_view_at_a_time(designed: Run) -> None:
    with pytest.raises(UserError, match=r"--html and --turn: say one of them"):
        look(designed, html=True, turn=1)


def test_a_design_is_followed_as_it_runs(designed: Run, tmp_path: Path) -> None:
    run = minirun(tmp_path)
    folder, source = run.stage("design"), designed.stage("design")
    for name in ("trace.jsonl", "design.json"):
        (folder / name).unlink()
    lines = (source / "trace.jsonl").read_bytes().splitlines(keepends=True)
    steps = [lines[:2], [*lines[2:-1], lines[-1][:20]], [lines[-1][20:]]]

    def pause(seconds: float) -> None:
        if not steps:
            write_text(folder / "design.json", (source / "design.json").read_text())
            return
        with (folder / "trace.jsonl").open("ab") as file:
            file.write(b"".join(steps.pop(0)))

    told = list(following.follow(run, pause))
    assert told[0].startswith("waiting for the design to begin: ske run")
    assert len(told) == len(lines) + 2, "every turn once, also one that was half-written"
    assert "planner" in told[1] and "search: triples x 12" in told[1]
    assert "trial 0 " in told[1] and "judge" in told[-2]
    assert told[-1].startswith("the prompts are written")


def test_following_ends_when_nobody_designs_any_more(designed: Run, tmp_path: Path) -> None:
    run = minirun(tmp_path)
    folder, source = run.stage("design"), designed.stage("design")
    (folder / "design.json").unlink()
    (folder / "trace.jsonl").write_bytes((source / "trace.jsonl").read_bytes())
    waited: list[float] = []
    with locked(run.folder):
        working = following.follow(run, waited.append)
        seen = [next(working) for _ in Trace(folder / "trace.jsonl").events()]
        with pytest.raises(TimeoutError):
            following_pauses(run, 3 * following.QUIET)
    assert "judge" in seen[-1]
    told = list(following.follow(run, waited.append))
    assert told[-1].startswith("nobody works on this design; it goes on with: ske run")


def following_pauses(run: Run, most: int) -> None:
    """Follow for so many pauses."""
    left = iter(range(most))

    def pause(seconds: float) -> None:
        if next(left, None) is None:
            raise TimeoutError

    list(following.follow(run, pause))


def test_every_kind_of_turn_has_a_line(designed: Run) -> None:
    trace = designed.stage("design") / "trace.jsonl"
    events = list(Trace(trace).events())
    told = {e.role: following.line(0, 0, e) for e in events if e.brain == "rules"}
    assert set(told) == {"planner", "packer", "writer", "questioner", "examiner", "critic", "judge"}
    assert "recall" in told["examiner"] and "f003" in told["critic"]


def test_the_guard_sees_prompts_whole(tmp_path: Path) -> None:
    run = minirun(tmp_path)
    path = run.stage("design") / "trace.jsonl"
    end = "The employer of Ada 9 is asked for in these words"
    system = "\n".join([f"line {i} of a long prompt" for i in range(400)]) + f"\n{end}"
    own = {"stage": "design", "role": "writer", "brain": "rules", "template": "agents/designer"}
    Trace(path).add(
        Event.model_validate({**own, "template_hash": "", "parsed": {"system": system}})
    )
    found = examined(run)
    assert end in found["prompts"] and len(system) > 4000
    assert any(EVIL in part for part in found["prompts"]), "the finished prompts are there too"
    assert json.loads(path.read_text().splitlines()[0])["role"] == "planner"


def test_recall_by_place_is_counted_over_prompts_of_a_size(designed: Run) -> None:
    def trial(recalled: list[bool]) -> Tried:
        ids = tuple(f"f{i}" for i in range(len(recalled)))
        marks = dict(zip(ids, recalled, strict=True))
        prompt = Prompt("0.0", "text", ids, marks)
        row = {"facts_per_prompt": len(recalled)}
        return Tried(row, "", "", True, False, [prompt], 1, 1)

    six = trial([True, True, False, True, False, False])
    told = telling.place_rows([six, trial([True] * 6), trial([True] * 3)])
    assert told == [("6", "100", "75", "50", "12")]
    assert "Recall by place" in shown(inspection.overview(designed))
