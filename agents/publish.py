"""From the graph's last state to a `Design` and its files: prompts, design.json, curve.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agents.approval import FILE as APPROVAL
from agents.records import CurveRow, Design, Rejected, Trial, Turns, curve_row
from agents.state import State, lost_ids, packs_of, rejections
from ske.io import write_json, write_text
from ske.types import Waits


class NothingLeft(Waits):
    """Everything that could be proposed was rejected; the last prompts are still there."""

    def __init__(self, folder: Path, rejected: Sequence[Rejected], layouts: Sequence[str]) -> None:
        """`rejected` is what a person said no to, and `layouts` what was searched."""
        said = "; ".join(f"{r.layout} x {r.capacity}: {r.reason!r}" for r in rejected[-3:])
        super().__init__(
            f"{folder / 'prompts'}: all {len(rejected)} proposals were rejected, and nothing else "
            f"is left to propose with the layouts {', '.join(layouts)} (last: {said}). Change the "
            "keys of `design` (layouts, max_facts, recall, brain) and run again, which designs "
            "afresh, or approve the last prompts after all: ske inspect RUN --approve"
        )


class NeedsApproval(Waits):
    """The prompts are written and wait for a person: nothing is wrong, and nothing is lost."""

    def __init__(self, folder: Path, count: int) -> None:
        """`count` prompts lie in `folder`/prompts."""
        super().__init__(
            f"{folder / 'prompts'}: {count} prompts wait for your approval (design.approve: true); "
            "read them, then say `ske inspect RUN --approve` or `ske inspect RUN --reject REASON`, "
            "and run the same command again"
        )
        self.folder = folder


def design_of(state: State, trials: Sequence[Trial], turns: Turns, recall: float) -> Design:
    """The finished design; it holds no times, so that a resumed run gives the same one.

    Args:
        state: The last one.
        trials: All of them.
        turns: Who decided how often.
        recall: The share of facts that was to be recalled.
    """
    held = state["held"]
    answered = [fact["recall"] for exam in held["exams"] for fact in exam["facts"]]
    front = set(state["front"])
    return Design(
        packs=packs_of(held),
        curve=_rows([t for t in trials if t.plan.purpose != "repair" and t.n]),
        front=_rows([t for t in trials if t.index in front and t.n]),
        lost={i: held["reasons"].get(i, "not answered") for i in lost_ids(held)},
        trials=len(trials),
        passed=bool(answered) and sum(answered) >= recall * len(answered),
        verdict=state["verdict"],
        turns=turns,
        rejected=tuple(rejections(state)),
    )


def _rows(trials: Sequence[Trial]) -> tuple[CurveRow, ...]:
    return tuple(
        sorted(
            (curve_row(trial) for trial in trials),
            key=lambda row: (row.packer, row.layout, row.facts_per_prompt, row.header, row.footer),
        )
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
