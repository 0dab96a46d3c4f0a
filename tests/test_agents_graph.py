"""The whole graph with a scripted teacher: capacity search, repair, resume, approval, trace."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from scripted import ScriptedLM, make_facts

from agents.approval import say
from agents.critic import reason
from agents.examiner import Answer, mark
from agents.graph import build, design
from agents.planner import balanced
from agents.preview import EXAMPLES, preview
from agents.publish import NeedsApproval
from agents.records import Design
from agents.state import FactScore
from prompts.layouts import system_prompt, view
from prompts.loader import names
from ske.config import DesignConfig
from ske.io import read_rows
from ske.lm import Chat, Reply, Sampling
from ske.trace import Event
from ske.types import ERASED, Fact, TooLong, UserError


def config(**more: object) -> DesignConfig:
    return DesignConfig.model_validate({"layouts": ("triples",), "max_repairs": 0, **more})


def reachable(n: int, capacity: int) -> int:
    """The largest evenly filled prompt that a teacher of this capacity can use."""
    return max(balanced(n, c) for c in range(1, n + 1) if balanced(n, c) <= capacity)


@pytest.mark.parametrize(("n", "true"), [(1, 1), (7, 7), (24, 5), (40, 13), (64, 32)])
def test_capacity_search_finds_the_teachers_capacity(tmp_path: Path, n: int, true: int) -> None:
    facts = make_facts(n)
    # No budget for the curve: only the search and the naive packer.
    wanted = config(max_trials=10, recall=1.0)
    result = design(facts, ScriptedLM(facts, true), wanted, tmp_path)
    assert result.passed
    assert not result.lost
    found = result.packs[0].capacity
    assert found <= reachable(n, true) <= 1.25 * found
    assert sorted(i for pack in result.packs for i in pack.fact_ids) == [f.id for f in facts]
    assert max(len(pack.fact_ids) for pack in result.packs) == found
    assert "naive" in {row.packer for row in result.curve}


class Narrow(ScriptedLM):
    """Reads prompts of at most so many facts."""

    window = 9

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Reply]:
        if any(chat[0]["content"].count("\n") > self.window for chat in chats):
            raise TooLong("more than the context window")
        return super().generate(chats, sampling)


def test_no_prompt_is_longer_than_the_models_window(tmp_path: Path) -> None:
    facts = make_facts(24)
    result = design(facts, Narrow(facts, 24), config(recall=1.0), tmp_path)
    assert result.passed and not result.lost
    assert 1 < max(len(pack.fact_ids) for pack in result.packs) <= Narrow.window


def test_where_nothing_passes_what_could_not_be_read_is_not_the_best(tmp_path: Path) -> None:
    facts = make_facts(24)
    result = design(facts, Narrow(facts, 0), config(), tmp_path)
    assert not result.passed
    assert max(len(pack.fact_ids) for pack in result.packs) <= Narrow.window


def test_the_better_layout_wins_and_the_curve_is_filled(tmp_path: Path) -> None:
    facts = make_facts(16)
    lm = ScriptedLM(facts, {"triples": 4, "prose": 16, "by_subject": 2})
    wanted = config(layouts=("triples", "prose", "by_subject"))
    lines: list[str] = []
    result = design(facts, lm, wanted, tmp_path, lines.append)
    assert len(lines) == result.trials
    assert {pack.layout for pack in result.packs} == {"prose"}
    assert len(result.packs) == 1
    designer = [row for row in result.curve if row.packer == "designer"]
    for layout in wanted.layouts:
        assert {1, 4, 16} <= {row.facts_per_prompt for row in designer if row.layout == layout}
    assert sum(row.packer == "naive" for row in result.curve) == 1
    assert len(result.curve) <= wanted.max_trials
    assert set(result.front) <= set(result.curve)
    assert result.packs[0].tokens > 16


def test_drift_decides_between_equal_layouts(tmp_path: Path) -> None:
    facts = make_facts(8)
    lm = ScriptedLM(facts, 8, drifting=("triples",))
    result = design(facts, lm, config(layouts=("triples", "prose")), tmp_path)
    assert result.packs[0].layout == "prose"
    drift = {row.layout: row.drift for row in result.curve if row.facts_per_prompt == 8
             and row.packer == "designer"}  # fmt: skip
    assert (drift["triples"] or 0) > (drift["prose"] or 0) == 0


@pytest.mark.parametrize("cure", ["move", "repeat", "own", "never"])
def test_repair(tmp_path: Path, cure: str) -> None:
    facts = make_facts(20)
    lm = ScriptedLM(facts, 30, cure={"f004": cure})
    result = design(facts, lm, config(max_repairs=2, max_trials=3, recall=0.99), tmp_path)
    assert sorted(i for pack in result.packs for i in pack.fact_ids) == [f.id for f in facts]
    if cure == "never":
        assert list(result.lost) == ["f004"]
        assert "strong prior" in result.lost["f004"]
        assert "repair no longer helps" in result.verdict
        assert len(result.packs) == 1
        return
    assert not result.lost
    sizes = {"move": [20], "repeat": [20], "own": [1, 19]}
    assert sorted(len(pack.fact_ids) for pack in result.packs) == sizes[cure]
    if cure == "move":
        assert result.packs[0].fact_ids[-1] == "f004"
    if cure == "repeat":
        assert result.packs[0].repeated == ("f004",)
        assert result.packs[0].system.count("Target004") == 2


def test_a_few_lost_facts_get_no_prompt_of_their_own(tmp_path: Path) -> None:
    facts = make_facts(20)
    lm = ScriptedLM(facts, 30, cure={"f004": "own"})
    result = design(facts, lm, config(max_repairs=2, max_trials=3), tmp_path)
    assert (result.passed, list(result.lost), len(result.packs)) == (True, ["f004"], 1)
    assert "too few for a prompt of their own" in result.verdict


@pytest.mark.parametrize("repairs", [2, 0])
def test_what_repairs_can_save_is_not_given_up(tmp_path: Path, repairs: int) -> None:
    facts = make_facts(40)  # Three of them, 7.5 %, are lost until they are stated twice.
    lm = ScriptedLM(facts, 40, cure={f"f{i:03}": "repeat" for i in (4, 9, 30)})
    result = design(facts, lm, config(max_repairs=repairs, max_trials=6), tmp_path)
    assert result.passed is (repairs > 0)
    assert len(result.lost) == (0 if repairs else 3)
    assert repairs == 0 or [len(pack.fact_ids) for pack in result.packs] == [40]


def test_nothing_passes(tmp_path: Path) -> None:
    facts = make_facts(4)
    result = design(facts, ScriptedLM(facts, 0), config(), tmp_path)
    assert not result.passed
    assert "no prompt reaches the wanted recall" in result.verdict
    assert set(result.lost) == {f.id for f in facts}


@pytest.mark.parametrize("crash_after", [0, 4, 9])
def test_a_crashed_run_ends_in_the_same_design(tmp_path: Path, crash_after: int) -> None:
    facts = make_facts(12)
    wanted = config(max_trials=8, max_repairs=1)
    whole = design(facts, ScriptedLM(facts, 5, cure={"f003": "own"}), wanted, tmp_path / "whole")
    folder = tmp_path / "crashed"
    dying = ScriptedLM(facts, 5, cure={"f003": "own"}, crash_after=crash_after)
    with pytest.raises(ConnectionError):
        design(facts, dying, wanted, folder)
    assert not (folder / "design.json").exists()
    again = ScriptedLM(facts, 5, cure={"f003": "own"})
    assert design(facts, again, wanted, folder) == whole
    finished = ScriptedLM(facts, 5)
    assert design(facts, finished, wanted, folder) == whole
    assert finished.calls == 0, "a finished design asks nothing"


def test_other_facts_start_afresh(tmp_path: Path) -> None:
    facts = make_facts(6)
    design(facts, ScriptedLM(facts, 2), config(max_trials=4), tmp_path)
    fewer = facts[:2]
    result = design(fewer, ScriptedLM(fewer, 2), config(max_trials=4), tmp_path)
    assert sorted(p.name for p in (tmp_path / "prompts").iterdir()) == ["pack-00.md"]
    seen = {fact for row in read_rows(tmp_path / "trace.jsonl") for fact in row["facts"]}
    assert seen == {"f000", "f001"}
    assert len(result.packs) == 1


def test_approval(tmp_path: Path) -> None:
    facts = make_facts(5)
    waiting = config(approve=True, max_trials=3)
    lm = ScriptedLM(facts, 9)
    for _ in range(2):
        with pytest.raises(NeedsApproval, match=r"ske inspect RUN --approve"):
            design(facts, lm, waiting, tmp_path)
    assert (tmp_path / "prompts" / "pack-00.md").exists()
    calls = lm.calls
    assert say(tmp_path, True) == 1
    approved = design(facts, lm, waiting, tmp_path)
    assert lm.calls == calls
    assert approved == design(facts, lm, config(max_trials=3), tmp_path / "plain")
    assert approved == design(facts, lm, waiting, tmp_path), "approval is asked for once"


def test_the_last_word_counts(tmp_path: Path) -> None:
    facts = make_facts(3)
    waiting, lm = config(approve=True, max_trials=2), ScriptedLM(facts, 9)
    with pytest.raises(NeedsApproval):
        design(facts, lm, waiting, tmp_path)
    say(tmp_path, False, "too terse")
    say(tmp_path, True)
    assert design(facts, lm, waiting, tmp_path).passed


def test_an_approval_of_other_prompts_is_refused(tmp_path: Path) -> None:
    few, many = make_facts(3), make_facts(4)
    waiting = config(approve=True, max_trials=2)
    for facts, name in ((few, "few"), (many, "many")):
        with pytest.raises(NeedsApproval):
            design(facts, ScriptedLM(facts, 9), waiting, tmp_path / name)
    say(tmp_path / "few", True)
    (tmp_path / "many/work").mkdir()
    shutil.copy(tmp_path / "few/work/approval.json", tmp_path / "many/work/approval.json")
    with pytest.raises(UserError, match="for other prompts"):
        design(many, ScriptedLM(many, 9), waiting, tmp_path / "many")
    (tmp_path / "many/work/approval.json").write_text('{"approved": true}')
    with pytest.raises(UserError, match=r"approval\.json: this is no approval.*--approve"):
        design(many, ScriptedLM(many, 9), waiting, tmp_path / "many")
    say(tmp_path / "many", True)
    assert design(many, ScriptedLM(many, 9), waiting, tmp_path / "many").passed


def test_a_changed_prompt_cannot_be_approved(tmp_path: Path) -> None:
    facts = make_facts(2)
    with pytest.raises(UserError, match="no prompts wait"):
        say(tmp_path, True)
    with pytest.raises(NeedsApproval):
        design(facts, ScriptedLM(facts, 9), config(approve=True, max_trials=2), tmp_path)
    prompt = tmp_path / "prompts/pack-00.md"
    prompt.write_text(prompt.read_text() + "!")
    with pytest.raises(UserError, match=r"pack-00\.md was changed since it was designed"):
        say(tmp_path, True)
    prompt.unlink()
    with pytest.raises(UserError, match=r"pack-00\.md is missing"):
        say(tmp_path, True)


def test_switching_approval_off_goes_on(tmp_path: Path) -> None:
    facts = make_facts(3)
    with pytest.raises(NeedsApproval):
        design(facts, ScriptedLM(facts, 9), config(approve=True, max_trials=2), tmp_path)
    assert design(facts, ScriptedLM(facts, 9), config(max_trials=2), tmp_path).passed


def test_files_and_trace(tmp_path: Path) -> None:
    facts = [
        *make_facts(5),
        Fact(id="u", subject="Zed", prompt="The shoe size of Zed is", target_new="44"),
    ]
    result = design(facts, ScriptedLM(facts, 9), config(), tmp_path)
    for pack in result.packs:
        assert (tmp_path / "prompts" / f"{pack.id}.md").read_text() == pack.system
    saved = json.loads((tmp_path / "design.json").read_text())
    assert Design.model_validate(saved) == result
    assert json.loads((tmp_path / "curve.json").read_text()) == saved["curve"]
    events = [Event(**row) for row in read_rows(tmp_path / "trace.jsonl")]
    roles = {event.role for event in events}
    assert roles == {"planner", "packer", "writer", "questioner", "examiner", "judge"}
    assert all(e.messages and e.template_hash for e in events if e.brain == "rules")
    assert all(json.loads(e.reply) == e.parsed for e in events if e.brain == "rules"
               and "more characters" not in e.reply)  # fmt: skip
    noted = [e for e in events if any("unknown relation" in note for note in e.notes)]
    assert [e.facts for e in noted] == [["u"]]
    exam = next(e for e in events if e.role == "examiner" and e.brain == "rules")
    row = exam.parsed["rows"][0]
    assert {"fact", "kind", "question", "expected", "answer", "ok"} == set(row)
    assert exam.scores["recall"] == 1.0


class Watched(ScriptedLM):
    """Keeps what each call asked: the system messages, and the questions without one."""

    def __init__(self, facts: list[Fact], holds: int) -> None:
        super().__init__(facts, holds)
        self.systems: list[set[str]] = []
        self.plain: list[str] = []

    def generate(self, chats, sampling):  # type: ignore[no-untyped-def]
        self.systems.append({c[0]["content"] for c in chats if len(c) > 1})
        self.plain.extend(c[0]["content"] for c in chats if len(c) == 1)
        return super().generate(chats, sampling)


def test_prompts_of_few_questions_are_asked_in_one_call_with_the_same_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = make_facts(6)
    together, apart = Watched(facts, 3), Watched(facts, 3)
    made = design(facts, together, config(), tmp_path / "together")
    monkeypatch.setattr("agents.questioner.FEW", 0)
    assert design(facts, apart, config(), tmp_path / "apart") == made
    assert max(map(len, apart.systems)) == 1
    assert max(map(len, together.systems)) > 1
    assert len(together.systems) < len(apart.systems)
    for lm in (together, apart):
        assert len(lm.plain) == len(set(lm.plain)), "the base model is asked nothing twice"
    rows = [
        [{**row, "seconds": 0} for row in read_rows(tmp_path / name / "trace.jsonl")]
        for name in ("together", "apart")
    ]
    assert rows[0] == rows[1]


def test_nothing_is_asked_ahead_of_a_budget(tmp_path: Path) -> None:
    facts = make_facts(6)
    lm = Watched(facts, 3)
    design(facts, lm, config(max_calls=10_000), tmp_path)
    assert max(map(len, lm.systems)) == 1


def test_bad_facts_are_refused(tmp_path: Path) -> None:
    fact = make_facts(1)[0]
    with pytest.raises(UserError, match="no facts"):
        design([], ScriptedLM([], 1), config(), tmp_path)
    with pytest.raises(UserError, match="same id"):
        design([fact, fact], ScriptedLM([], 1), config(), tmp_path)


def _score(fact: Fact, position: int, size: int, reply: str, prior: str = "old") -> FactScore:
    return {
        "id": fact.id,
        "position": position,
        "size": size,
        "recall": False,
        "paraphrase": None,
        "consequences": [],
        "drift": [],
        "reply": reply,
        "prior": prior,
    }


def test_the_critic_says_why() -> None:
    facts = make_facts(18)
    mixed = reason(_score(facts[0], 0, 18, "Target003"), facts, "triples")
    assert "mixed up with f003" in mixed.why
    assert "first third" in mixed.why
    assert "different prompts" in mixed.change
    prior = reason(_score(facts[5], 8, 18, "old"), facts, "triples")
    assert "strong prior" in prior.why
    assert "middle third" in prior.why
    assert "collision: same surname and relation as f013" in prior.why
    strange = Fact(id="u", subject="Zed", prompt="The shoe size of Zed is", target_new="44")
    unknown = reason(_score(strange, 0, 1, "7"), [strange], "qa")
    assert "unknown relation" in unknown.why
    assert "layout qa" in unknown.why


def test_marks() -> None:
    def ok(kind: str, expected: str, answer: str) -> bool:
        row = {"fact": "f", "kind": kind, "question": "q", "expected": expected, "answer": answer}
        return mark(Answer.model_validate(row)).ok

    assert ok("fact", "Rome", "Rome, of course.")
    assert not ok("fact", "Rome", "Paris")
    assert ok("consequence", ERASED, "I don't know.")
    assert ok("neighbour", "Rome.", "rome")
    assert not ok("neighbour", "Rome", "Rome or Paris")


def test_every_template_can_be_previewed() -> None:
    fact = make_facts(1)[0]
    ours = [n for n in names() if n.startswith(("agents/", "teacher/"))]
    assert {n for n in ours if n.startswith("agents/")} == set(EXAMPLES)
    for name in ours:
        rendered = preview(name, fact)
        assert fact.subject in rendered.text or name in (
            "agents/planner",
            "agents/judge",
            "agents/hello",
        )
        assert "object at 0x" not in rendered.text
    assert (
        system_prompt([view(fact)], "triples").splitlines()[1]
        in preview("agents/designer", fact).text
    )
    with pytest.raises(UserError, match="no preview"):
        preview("agents/nobody", fact)


def test_the_readme_shows_the_graph_as_it_is() -> None:
    drawing = build().compile().get_graph().draw_mermaid().strip()
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    assert f"```mermaid\n{drawing}\n```" in readme, drawing
