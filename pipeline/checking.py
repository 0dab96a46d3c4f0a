"""Is what a run has saved complete, and of one data set? Asked before anything is written from it.

Reads `stages/facts` and `stages/ask` of a run; writes nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from eval.capability import SkillRow
from eval.saved import read_saved
from eval.score import Row
from pipeline.facts import read_facts, summary_of
from pipeline.run import Run
from ske.types import UserError


class Asked(NamedTuple):
    """What scores are made of."""

    rows: list[Row]
    capability: list[SkillRow]


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
    _same_data(run, rows, capability)
    said = {row.method for row in rows}
    if missing := [method for method in run.config.methods if method not in said]:
        raise UserError(
            f"{folder}/rows.jsonl has no answers of {', '.join(missing)}, which "
            f"{run.folder}/config.yaml names; {again}"
        )
    return Asked(rows, capability)


def _same_data(run: Run, rows: list[Row], capability: list[SkillRow]) -> None:
    """Ids of the embedded world are positions in what was drawn, so prompts are compared, too."""
    folder, dataset = run.stage("ask"), summary_of(run)["dataset"]
    for name, found in (("rows.jsonl", rows), ("capability.jsonl", capability)):
        for row in found:
            if row.dataset != dataset:
                raise UserError(
                    f"{folder}/{name} holds answers for data set {row.dataset!r}, but the facts "
                    f"of {run.folder} are of {dataset!r}; give the folder that they belong to"
                )
    prompts = {fact.id: fact.prompt for fact in read_facts(run)}
    for row in rows:
        edit = row.metric == "edit_success" and row.probe == 0
        if row.case not in prompts or (edit and row.prompt != prompts[row.case]):
            raise UserError(
                f"{folder}/rows.jsonl: case {row.case!r} with the prompt {row.prompt!r} is none of "
                f"the edits in {run.stage('facts')}/facts.jsonl; the answers are another run's"
            )
