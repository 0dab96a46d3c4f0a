"""From the graph's last state to a `Design` and its files: prompts, design.json, curve.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agents.approval import FILE as APPROVAL
from agents.records import CurveRow, Design, Pack, Plan, Trial, Turns, curve_row
from agents.state import Exam, PackState, State, lost_ids
from ske.io import write_json, write_text
from ske.types import UserError


class NeedsApproval(UserError):
    """The prompts are written and wait for a person: nothing is wrong, and nothing is lost."""

    def __init__(self, folder: Path, count: int) -> None:
        """`count` prompts lie in `folder`/prompts."""
        super().__init__(
            f"{folder / 'prompts'}: {count} prompts wait for your approval (design.approve: true); "
            "read them, then say `ske inspect RUN --approve` or `ske inspect RUN --reject REASON`, "
            "and run the same command again"
        )
        self.folder = folder


def design_of(state: State, trials: Sequence[Trial], turns: Turns) -> Design:
    """The finished design; it holds no times, so that a resumed run gives the same one."""
    held = state["held"]
    plan = Plan(**held["plan"])
    front = set(state["front"])
    pairs = zip(held["packs"], held["exams"], strict=True)
    return Design(
        packs=tuple(_pack(pack, exam, plan) for pack, exam in pairs),
        curve=_rows([t for t in trials if t.plan.purpose != "repair"]),
        front=_rows([t for t in trials if t.index in front]),
        lost={i: held["reasons"].get(i, "not answered") for i in lost_ids(held)},
        trials=len(trials),
        passed=state["passed"],
        verdict=state["verdict"],
        turns=turns,
    )


def _rows(trials: Sequence[Trial]) -> tuple[CurveRow, ...]:
    return tuple(
        sorted(
            (curve_row(trial) for trial in trials),
            key=lambda row: (row.packer, row.layout, row.facts_per_prompt, row.header, row.footer),
        )
    )


def _pack(pack: PackState, exam: Exam, plan: Plan) -> Pack:
    recalled = sum(fact["recall"] for fact in exam["facts"])
    return Pack(
        id=f"pack-{pack['index']:02}",
        fact_ids=tuple(pack["fact_ids"]),
        repeated=tuple(pack["repeated"]),
        system=pack["system"],
        layout=plan.layout,
        header=plan.header,
        footer=plan.footer,
        capacity=plan.capacity,
        recall=round(recalled / len(exam["facts"]), 4),
        tokens=exam["tokens"],
    )


def publish(design: Design, folder: Path) -> None:
    """Write what people and later stages read; prompts of an earlier design go away."""
    prompts = folder / "prompts"
    wanted = {f"{pack.id}.md": pack.system for pack in design.packs}
    for old in prompts.glob("pack-*.md"):
        if old.name not in wanted:
            old.unlink()
    for name, system in wanted.items():
        write_text(prompts / name, system)
    write_json(folder / "curve.json", [row.model_dump(mode="json") for row in design.curve])
    write_json(folder / "design.json", design.model_dump(mode="json"))


def clear(folder: Path) -> None:
    """Forget what an earlier, different design left, so that its trace is not mixed with ours."""
    for name in ("trace.jsonl", "design.json", "curve.json", APPROVAL):
        (folder / name).unlink(missing_ok=True)
    for old in (folder / "prompts").glob("pack-*.md"):
        old.unlink()
