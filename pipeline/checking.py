"""Is what a run has saved complete, and of one data set? Asked before anything is written from it.

Reads `stages/facts` and `stages/ask` of a run; writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from eval.capability import SkillRow, values
from eval.judge import FILE as JUDGED
from eval.judge import JudgedRow
from eval.judge import values as judged_values
from eval.retention import FILE as RETENTION
from eval.retention import RetentionRow
from eval.saved import read_saved
from eval.score import CaseKey, Row
from eval.sentiment import FILE as OPINIONS
from eval.sentiment import OpinionRow
from eval.sentiment import values as turned
from pipeline.facts import read_facts, summary_of
from pipeline.run import Run
from ske.types import UserError


class Asked(NamedTuple):
    """What scores are made of."""

    rows: list[Row]
    capability: list[SkillRow]
    retention: list[RetentionRow]
    """Of a sequential run: the answers after each round."""
    opinions: list[OpinionRow]
    """Of ConvSent: what people say of the topics."""
    judged: list[JudgedRow]
    """Where there is a judge: its verdicts."""

    @property
    def beside(self) -> dict[CaseKey, float]:
        """Values of what is no probe of a case."""
        return values(self.capability) | turned(self.opinions) | judged_values(self.judged)


def asked(run: Run) -> Asked:
    """The saved answers of a run.

    Raises:
        UserError: a file is missing or a line of it is broken; or the answers are those of another
            data set, of other edits or of fewer methods than the configuration names.
    """
    folder = run.stage("ask")
    # Replies are kept under items/, so this costs nothing but what is really missing.
    again = f"delete {folder}/manifest.json, then: ske run {run.folder}/config.yaml"
    rows = read_saved(folder / "rows.jsonl", Row, again)
    capability = read_saved(folder / "capability.jsonl", SkillRow, again)
    if not rows:
        raise UserError(f"{folder}/rows.jsonl is empty: nothing was asked yet; {again}")
    for name in ("facts.jsonl", "summary.json"):
        if not (run.stage("facts") / name).exists():
            raise UserError(f"{run.stage('facts')}/{name} is missing; {again}")
    in_rounds = run.config.edits.mode == "sequential"
    retention = read_saved(folder / RETENTION, RetentionRow, again) if in_rounds else []
    kept = [item.row for item in retention]
    opinions, judged = folder / OPINIONS, folder / JUDGED
    said = read_saved(opinions, OpinionRow, again) if opinions.exists() else []
    marks = read_saved(judged, JudgedRow, again) if judged.exists() else []
    _same_data(run, "capability.jsonl", capability)
    _same_data(run, OPINIONS, said)
    _same_data(run, JUDGED, marks)
    for name, probes in (("rows.jsonl", rows), *([(RETENTION, kept)] if in_rounds else [])):
        _same_data(run, name, probes)
        _same_edits(run, name, probes)
        _all_methods(run, name, probes, again)
    return Asked(rows, capability, retention, said, marks)


def _same_data(
    run: Run, name: str, found: Sequence[Row | SkillRow | OpinionRow | JudgedRow]
) -> None:
    dataset = summary_of(run)["dataset"]
    for row in found:
        if row.dataset != dataset:
            raise UserError(
                f"{run.stage('ask')}/{name} holds answers for data set {row.dataset!r}, but the "
                f"facts of {run.folder} are of {dataset!r}; give the folder that they belong to"
            )


def _same_edits(run: Run, name: str, found: Sequence[Row]) -> None:
    """Ids of the embedded world are positions in what was drawn, so prompts are compared, too."""
    prompts = {fact.id: fact.prompt for fact in read_facts(run)}
    for row in found:
        edit = row.metric == "edit_success" and row.probe == 0
        if row.case not in prompts or (edit and row.prompt != prompts[row.case]):
            raise UserError(
                f"{run.stage('ask')}/{name}: case {row.case!r} with the prompt {row.prompt!r} is "
                f"none of the edits in {run.stage('facts')}/facts.jsonl; the answers are another "
                "run's"
            )


def _all_methods(run: Run, name: str, found: Sequence[Row], again: str) -> None:
    said = {row.method for row in found}
    if missing := [method for method in run.config.methods if method not in said]:
        raise UserError(
            f"{run.stage('ask')}/{name} has no answers of {', '.join(missing)}, which "
            f"{run.folder}/config.yaml names; {again}"
        )
