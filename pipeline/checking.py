"""Is what a run has saved complete, and of one data set? Asked before anything is written from it.

Reads `stages/facts` and `stages/ask` of a run; writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from eval import judge, sentiment
from eval.answers import Answers, read_answers
from eval.capability import SkillRow
from eval.judge import JudgedRow
from eval.retention import FILE as RETENTION
from eval.score import Row
from eval.sentiment import OpinionRow
from pipeline.facts import read_facts, summary_of
from pipeline.run import Run
from pipeline.stage import read_manifest
from ske.paths import same_place
from ske.types import UserError

Saved = Sequence[Row] | Sequence[SkillRow] | Sequence[OpinionRow] | Sequence[JudgedRow]


def asked(run: Run) -> Answers:
    """The saved answers of a run.

    Raises:
        UserError: a file is missing or a line of it is broken; or the answers are those of another
            data set, of other edits or of fewer methods than the configuration names.
    """
    again = how_again(run)
    found = read_answers(run.folder, run.config, again)
    if not found.rows:
        raise UserError(f"{run.stage('ask')}/rows.jsonl is empty: nothing was asked yet; {again}")
    for name in ("facts.jsonl", "summary.json"):
        if not (run.stage("facts") / name).exists():
            raise UserError(f"{run.stage('facts')}/{name} is missing; {again}")
    _same_source(run)
    for name, rows in _by_file(found).items():
        if rows:
            _same_data(run, name, rows)
            _same_edits(run, name, rows)
            _all_methods(run, name, rows, again)
    return found


def how_again(run: Run) -> str:
    """What a user can do about answers that are missing or broken.

    Replies are kept under `items/`, so this costs nothing but what is really missing.
    """
    return f"delete {run.stage('ask')}/manifest.json, then: ske run {run.folder}/config.yaml"


def _by_file(found: Answers) -> dict[str, Saved]:
    return {
        "rows.jsonl": found.rows,
        RETENTION: [item.row for item in found.retention],
        "capability.jsonl": found.beside.capability,
        sentiment.FILE: found.beside.opinions,
        judge.FILE: found.beside.judged,
    }


def _same_source(run: Run) -> None:
    """The configuration of a folder may be another's, though facts and answers belong together."""
    drawn = read_manifest(run.folder, "facts").get("ingredients", {}).get("data", {})
    for key, now in run.config.data.model_dump(mode="json").items():
        if key in drawn and not same_place(drawn[key], now):
            raise UserError(
                f"{run.folder}/config.yaml: data.{key} = {now!r}, but the facts of this run were "
                f"drawn with {drawn[key]!r}; put that back, or make a run of its own: "
                f"ske run {run.folder}/config.yaml --out runs/NAME"
            )


def _same_data(run: Run, name: str, found: Saved) -> None:
    dataset = summary_of(run)["dataset"]
    for row in found:
        if row.dataset != dataset:
            raise UserError(
                f"{run.stage('ask')}/{name} holds answers for data set {row.dataset!r}, but the "
                f"facts of {run.folder} are of {dataset!r}; give the folder that they belong to"
            )


def _same_edits(run: Run, name: str, found: Saved) -> None:
    """Ids of the embedded world are positions in what was drawn, so prompts are compared, too."""
    prompts = {fact.id: fact.prompt for fact in read_facts(run)}
    for row in found:
        told, same = "", True
        if isinstance(row, Row) and row.metric == "edit_success" and row.probe == 0:
            told = f" with the prompt {row.prompt!r}"
            same = row.prompt == prompts.get(row.case)
        # Questions of the suite belong to no case.
        if row.case and not (same and row.case in prompts):
            raise UserError(
                f"{run.stage('ask')}/{name}: case {row.case!r}{told} is none of the edits in "
                f"{run.stage('facts')}/facts.jsonl; the answers are another run's"
            )


def _all_methods(run: Run, name: str, found: Saved, again: str) -> None:
    said = {row.method for row in found}
    if missing := [method for method in run.config.methods if method not in said]:
        raise UserError(
            f"{run.stage('ask')}/{name} has no answers of {', '.join(missing)}, which "
            f"{run.folder}/config.yaml names; {again}"
        )
