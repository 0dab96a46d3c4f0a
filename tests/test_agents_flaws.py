"""What no decision may do to a design; and that what the rules decide never does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scripted import ScriptedLM, make_facts

from agents import critic, examiner, graph, judge, packer, planner, questioner, writer
from agents.batch import Batch, Query
from agents.brain import Brain, Decided, Decision, RulesBrain
from agents.examiner import Answer, Marks, mark
from agents.graph import design
from agents.judge import Verdict
from agents.packer import Packed, Packing
from agents.planner import repair_plan
from agents.questioner import ExamLimits, Questions
from agents.records import Plan, Scores, Trial
from agents.state import Held, State, start
from prompts.layouts import LAYOUTS, system_prompt, view
from ske.config import DesignConfig
from ske.lm import Message
from ske.types import ERASED, Fact


class Strict(RulesBrain):
    """Rules whose every decision is held to what a model's is held to."""

    def __init__(self) -> None:
        self.roles: set[str] = set()

    def decide(
        self,
        role: str,
        messages: list[Message],
        schema: type[Decision],
        rule: Callable[[], Decision],
        flaw: Callable[[Decision], str],
    ) -> Decided[Decision]:
        decision = rule()
        assert flaw(decision) == "", (role, decision)
        self.roles.add(role)
        return Decided(decision, self.name)


@pytest.mark.parametrize(
    ("n", "capacity", "cure", "more"),
    [
        (20, 30, {"f004": "move"}, {}),
        (20, 30, {"f004": "repeat", "f007": "own"}, {}),
        (9, 4, {"f004": "never"}, {"layouts": LAYOUTS[:3]}),
        (4, 0, {}, {"max_trials": 2}),
        (300, 20, {}, {"max_trials": 5, "max_facts": 40}),
        (12, 3, {}, {"search": "gepa", "layouts": LAYOUTS[:2]}),
    ],
)
def test_rules_have_no_flaw(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    n: int,
    capacity: int,
    cure: dict[str, str],
    more: dict[str, Any],
) -> None:
    strict = Strict()
    made: Callable[..., Brain] = lambda *_: strict  # noqa: E731
    monkeypatch.setattr(graph, "brain_for", made)
    facts = make_facts(min(n, 64))
    facts += [f.model_copy(update={"id": f"g{i:03}", "relation": None, "prompt": f"The age of "
              f"{f.subject} {i} is", "subject": f"{f.subject} {i}"})
              for i, f in enumerate(facts * 4)][: n - len(facts)]  # fmt: skip
    wanted = DesignConfig.model_validate({"layouts": ("triples",), "max_trials": 10, **more})
    result = design(facts, ScriptedLM(facts, capacity, cure=cure), wanted, tmp_path)
    assert sorted(i for pack in result.packs for i in pack.fact_ids) == sorted(f.id for f in facts)
    assert strict.roles >= {"planner", "packer", "writer", "questioner", "examiner", "judge"}
    assert ("critic" in strict.roles) == bool(cure or capacity < n)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_states_all_facts(layout: str) -> None:
    facts = [*make_facts(3), make_facts(1, "spouse")[0]]
    facts.append(Fact(id="e", subject="Zed", prompt="The boss of Zed is", target_new=ERASED))
    views = [view(fact) for fact in [*facts, facts[1]]]  # The second one is stated twice.
    text = system_prompt(views, layout)
    assert writer.flaw(writer.Draft(system=text), views, text) == ""
    once = system_prompt(views[:-1], layout)
    found = writer.flaw(writer.Draft(system=once), views, text)
    assert found.startswith("a fact is missing: ")
    assert "'Bela Brook'" in found or "'Target001'" in found


def test_a_message_keeps_facts_together_and_short() -> None:
    views = [view(fact) for fact in make_facts(3)]
    text = system_prompt(views, "triples")

    def flaw(system: str) -> str:
        return writer.flaw(writer.Draft(system=system), views, text)

    swapped = text.replace("Target000", "?").replace("Target001", "Target000")
    assert "no line has both" in flaw(swapped.replace("?", "Target001"))
    assert "'Target002' is not stated" in flaw(text.replace("Target002", "Target02"))
    assert "at most" in flaw(text + "\nNote well!" * 60)
    assert flaw("Hello.\n" + text) == ""


def test_a_packing_places_every_fact_once() -> None:
    facts = make_facts(4)
    facts[3] = facts[3].model_copy(update={"subject": facts[2].subject})
    plan = Plan(purpose="search", layout="triples", capacity=2, sample=4)

    def flaw(*packs: list[str], plan: Plan = plan, **more: Any) -> str:
        made = Packing(packs=[Packed(fact_ids=ids, **more) for ids in packs])
        return packer.flaw(made, plan, facts, start()["held"])

    assert flaw(["f001", "f000"], ["f002", "f003"]) == ""
    assert "missing: ['f003']" in flaw(["f001", "f000"], ["f002"])
    assert "more than once: ['f000']" in flaw(["f001", "f000"], ["f002", "f003", "f000"])
    assert "unknown: ['x']" in flaw(["f001", "f000"], ["f002", "f003"], ["x"])
    assert "empty" in flaw(["f001", "f000"], ["f002", "f003"], [])
    assert "a prompt has 3 facts; at most 2" in flaw(["f001", "f000", "f002"], ["f003"])
    one = plan.model_copy(update={"capacity": 1})
    assert flaw(["f000"], ["f001"], ["f002", "f003"], plan=one) == "", "one subject may be too much"
    naive = plan.model_copy(update={"packer": "naive"})
    assert flaw(["f000", "f001"], ["f002", "f003"], plan=naive) == ""
    assert "keeps the order" in flaw(["f001", "f000"], ["f002", "f003"], plan=naive)


def held(lost: str) -> Held:
    """Two prompts of two facts each; one fact is lost."""
    packs: Any = [
        {"index": i, "origin": -1, "fact_ids": ids, "repeated": [], "system": ""}
        for i, ids in enumerate([["f000", "f001"], ["f002", "f003"]])
    ]
    exams: Any = [
        {"trial": 0, "pack": p["index"], "tokens": 1,
         "facts": [{"id": i, "recall": i != lost} for i in p["fact_ids"]]}
        for p in packs
    ]  # fmt: skip
    plan = Plan(purpose="search", layout="triples", capacity=2, sample=4)
    return {
        "trial": 0,
        "plan": plan.model_dump(mode="json"),
        "packs": packs,
        "exams": exams,
        "reasons": {},
    }


def test_a_repair_rearranges_only_what_lost() -> None:
    facts, now = make_facts(4), held("f002")
    plan = repair_plan(Plan(**now["plan"]), "own")

    def flaw(*packs: tuple[int, list[str], list[str]]) -> str:
        made = [Packed(origin=o, fact_ids=ids, repeated=twice) for o, ids, twice in packs]
        return packer.flaw(Packing(packs=made), plan, facts, now)

    assert flaw((1, ["f003"], []), (1, ["f002"], [])) == flaw() == ""
    assert flaw((1, ["f003", "f002"], ["f002"])) == ""
    assert "none of the prompts that lost facts: [1]" in flaw((0, ["f001", "f000"], []))
    assert "missing: ['f003']" in flaw((1, ["f002"], []))
    assert "unknown: ['f000']" in flaw((1, ["f002", "f003", "f000"], []))
    assert "repeats a fact that it has not" in flaw((1, ["f003", "f002"], ["f000"]))
    assert "more than once" in flaw((1, ["f003", "f002"], ["f002", "f002"]))


CONFIG = DesignConfig(layouts=("triples", "prose"), max_trials=4, max_facts=8)


def tried(index: int, plan: Plan, recall: float = 1.0) -> Trial:
    scores = Scores(recall=recall, drift=0.0, tokens_per_fact=9.0)
    return Trial(
        index=index, plan=plan, n=plan.sample, prompts=1, scores=scores, passed=recall > 0.9
    )


def state_after(*trials: Trial, **more: Any) -> State:
    return start() | {"trials": [t.model_dump(mode="json") for t in trials], **more}  # type: ignore[return-value]


FIRST = Plan(purpose="search", layout="triples", capacity=4, sample=4)
NAIVE = Plan(purpose="naive", packer="naive", layout="prose", header="none", footer="none",
             capacity=4, sample=4)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, ""),
        ({"reason": "whatever"}, ""),
        ({"capacity": 0}, "capacity 0 is not between 1 and 8"),
        ({"capacity": 9}, "capacity 9 is not between 1 and 8"),
        ({"sample": 5}, "sample 5 is not between the capacity 4 and 4"),
        ({"sample": 3}, "sample 3 is not between the capacity 4 and 4"),
        ({"layout": "qa"}, "layout 'qa' is unknown; there are: triples, prose"),
        ({"header": "shout"}, "header 'shout' is unknown; there are: none, correct"),
        ({"purpose": "repair", "step": "move"}, "nothing is repaired"),
        ({"purpose": "naive"}, "purpose `naive` and packer `naive` go together"),
        ({"purpose": "curve"}, "the first trial has purpose `search`"),
    ],
)
def test_a_first_plan(change: dict[str, Any], why: str) -> None:
    found = planner.flaw(FIRST.model_copy(update=change), state_after(), 4, CONFIG)
    assert found.startswith(why) if why else found == ""


def test_later_plans() -> None:
    def flaw(plan: Plan, *trials: Trial, **more: Any) -> str:
        return planner.flaw(plan, state_after(*trials, **more), 4, CONFIG)

    first, half = tried(0, FIRST), FIRST.model_copy(update={"capacity": 2})
    assert flaw(FIRST, first) == "trial 0 was just this"
    assert flaw(half, first) == ""
    assert flaw(NAIVE, first) == ""
    wrong = half.model_copy(update={"purpose": "verify"})
    assert "the best trial's plan" in flaw(wrong, first)
    # Two of four trials are kept for the naive packer.
    assert "budget for this trial only" in flaw(half, first, tried(1, half, 0.5))
    assert flaw(NAIVE, first, tried(1, half, 0.5)) == ""
    lost = held("f002")
    right = repair_plan(FIRST.model_copy(update={"capacity": 2}), "repeat")
    assert flaw(right, first, phase="repair", held=lost) == ""
    moved = right.model_copy(update={"layout": "prose"})
    assert "held plan" in flaw(moved, first, phase="repair", held=lost)


def test_verdicts(tmp_path: Path) -> None:
    facts = make_facts(4)
    context = graph._context(facts, ScriptedLM(facts, 4), CONFIG, tmp_path, None, (), "")
    first, naive = tried(0, FIRST), tried(1, NAIVE, 0.5)

    def flaw(*trials: Trial, lost: str = "", gains: tuple[int, ...] = (), **change: Any) -> str:
        right = {"winner": 0, "passed": True, "front": [0], "phase": "done", "reason": ""}
        verdict = Verdict.model_validate(right | change)
        return judge.flaw(verdict, trials, held(lost), gains, context)

    assert flaw(first, naive) == ""
    assert "by rules 1 and 2 it is 0, passed True" in flaw(first, naive, winner=1)
    assert "by rules 1 and 2 it is 0, passed True" in flaw(first, naive, passed=False)
    assert "trials [1] are beaten" in flaw(first, naive, front=[0, 1])
    assert "trials [0] are missing" in flaw(first, naive, front=[])
    assert "the naive packer, for comparison" in flaw(first)
    assert flaw(first, phase="search") == ""
    assert "no fact is lost" in flaw(first, naive, phase="repair")
    assert flaw(first, naive, phase="repair", lost="f001") == ""
    used = (0,) * (3 * CONFIG.max_repairs)
    assert "6 repairs were made" in flaw(first, naive, phase="repair", lost="f001", gains=used)
    repair = tried(2, repair_plan(FIRST, "move"))
    assert "the search is over" in flaw(first, naive, repair, phase="search")


def test_questions() -> None:
    facts = make_facts(2)
    own = Query(prompt=facts[0].prompt, kind="fact", fact_id="f000", expected="Target000")

    def flaw(*more: Query, first: Query = own) -> str:
        made = Questions(queries=[first, *more])
        return questioner.flaw(made, facts[0], Batch(facts), ExamLimits())

    def query(kind: str, prompt: str, expected: str | None, fact_id: str = "f000") -> Query:
        row = {"kind": kind, "prompt": prompt, "expected": expected, "fact_id": fact_id}
        return Query.model_validate(row)

    good = [
        query("paraphrase", "Ada Abel works at", "Target000"),
        query("consequence", "The industry of the employer of Ada Abel is", "steel"),
        query("neighbour", "The spouse of Ada Abel is", None),
    ]
    assert flaw(*good) == ""
    assert "is the prompt itself" in flaw(first=good[0])
    assert "`expected` is 'Target000'" in flaw(query("paraphrase", "Ada works at", "Target001"))
    assert "at most 1 questions of kind `paraphrase`" in flaw(
        good[0], query("paraphrase", "Who pays Ada Abel?", "Target000")
    )
    assert "asked twice" in flaw(good[2], query("neighbour", "The spouse of Ada Abel is ", None))
    assert "`fact_id` is 'f000'" in flaw(query("neighbour", "The age of X is", None, "f001"))
    assert "own answer counts" in flaw(query("neighbour", "The age of X is", "3"))
    assert "`expected` is missing" in flaw(query("consequence", "The age of X is", " "))
    assert "no neighbour" in flaw(query("neighbour", facts[1].prompt, None))
    assert "gives its own answer away" in flaw(
        query("paraphrase", "Target000 is where Ada Abel works:", "Target000")
    )


def test_marks_and_reasons() -> None:
    rows = [("fact", "Rome", "Rome."), ("fact", "Rome", "Paris"), ("neighbour", "Oslo", "oslo"),
            ("consequence", "the river Tiber", "Tiber")]  # fmt: skip
    answers = [
        Answer.model_validate(
            {"fact": "f", "kind": k, "question": f"q{i}", "expected": e, "answer": a}
        )
        for i, (k, e, a) in enumerate(rows)
    ]

    def flaw(*ok: bool) -> str:
        marks = [mark(a).model_copy(update={"ok": o}) for a, o in zip(answers, ok, strict=False)]
        return examiner.flaw(Marks(rows=marks), answers)

    assert flaw(True, False, True, True) == flaw(True, False, True, False) == ""
    assert "4 rows were asked for" in flaw(True, False, True)
    assert flaw(False, False, True, True).startswith("row 1: the answer is the expected one")
    assert flaw(True, True, True, True).startswith("row 2: the answer has no word")
    assert flaw(True, False, False, True).startswith("row 3: the answer is the expected one")
    turned = Marks(rows=[mark(a) for a in reversed(answers)])
    assert "row 1 is not the one" in examiner.flaw(turned, answers)

    def told(*facts: str, why: str = "hard") -> str:
        made = [critic.Reason(fact=f, why=why, change="") for f in facts]
        return critic.flaw(critic.Critique(reasons=made), ["a", "b"])

    assert told("b", "a") == ""
    assert "just these facts" in told("a")
    assert "just these facts" in told("a", "b", "b")
    assert "`why` is empty for ['a', 'b']" in told("a", "b", why=" ")
