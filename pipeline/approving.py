"""`ske inspect --approve | --reject`: a person's word on the prompts of a design that waits."""

from __future__ import annotations

from agents.approval import approved, say
from pipeline.labels import counted
from pipeline.places import whole_run
from pipeline.run import Run
from pipeline.stage import read_manifest
from pipeline.stories import check_designed
from ske.io import locked
from ske.types import UserError


def waits(run: Run) -> bool:
    """Whether prompts are there that nobody has approved yet, or that were rejected."""
    return (
        run.config.design.approve
        and (run.stage("design") / "design.json").exists()
        and not read_manifest(run.folder, "design")
    )


def answer(run: Run, approve: bool, reject: str | None) -> str:
    """Write the word down; returns how to go on.

    Raises:
        UserError: A no without a reason, a design that does not wait, prompts that are not those
            that were designed, a run that is under way, or one whose rounds have designs of their
            own.
    """
    # A round's design is approved in its own folder; what goes on then is the run it belongs to.
    whole = whole_run(run.folder)
    again, stage = f"ske run {whole}/config.yaml", "design" if whole == run.folder else "train"
    if reject is not None and not reject.strip():
        raise UserError("--reject '': say why, e.g. --reject 'the footer is missing'")
    check_designed(run)
    if read_manifest(run.folder, "design"):
        raise _done(run, f"{again} --stage {stage} --set design.approve=true")
    if not run.config.design.approve:
        raise UserError(
            f"{run.folder}: design.approve is false, so no prompts wait for approval; "
            f"with it: {again} --stage {stage} --set design.approve=true"
        )
    with locked(run.folder):
        count = say(run.stage("design"), approve, (reject or "").strip())
    prompts = counted(count, "prompt")
    if approve:
        return f"Approved {prompts}. Go on with: {again}"
    return (
        f"Rejected {prompts}. The agents go on with the reason and propose others: {again} "
        f"--stage {stage}\nOr change the design, which starts afresh, e.g. with: "
        "--set design.max_facts=32"
    )


def _done(run: Run, again: str) -> UserError:
    """Why no prompts of a finished design wait: it goes on from the end, and asks nobody."""
    if approved(run.stage("design")):
        return UserError(f"{run.folder}: the design is done, its prompts were approved before")
    whole, gone = whole_run(run.folder), [run.stage("design")]
    if whole != run.folder:
        gone.append(whole / "stages" / "train" / "manifest.json")
    return UserError(
        f"{run.folder}: the design is done, and nobody was to approve its prompts; to be asked, "
        f"have it made again: delete {' and '.join(map(str, gone))}, then: {again}"
    )
