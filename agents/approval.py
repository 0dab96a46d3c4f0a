"""A person's word on finished prompts: which prompts it is about, and yes or no.

Reads `design.json` and `prompts/` of the design's folder; writes `work/approval.json` there and
adds to its trace. A design that waits (`design.approve`) is finished by a yes to its prompts; with
a no it goes on, and the reason goes to the Planner, the Packer and the Writer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from agents.records import Design, Pack, Rejected
from ske.io import read_json, record_of, write_json
from ske.trace import Event, Trace
from ske.types import Frozen, UserError, content_hash

FILE = "work/approval.json"
"""In `work`, which is no output: whether somebody read the prompts changes nothing about them."""


class Approval(Frozen):
    """What a person said."""

    prompts: str
    """The hash of the prompts that were read."""
    approved: bool
    reason: str = ""
    """Why not."""


def prompts_hash(packs: Sequence[Pack]) -> str:
    """What tells prompts from others: their names and every character of them."""
    return content_hash([[pack.id, pack.system] for pack in packs])


def say(folder: Path, approved: bool, reason: str = "") -> int:
    """Write down what a person says about the prompts that wait; returns how many there are.

    Args:
        folder: The design's.
        approved: Yes or no; the last word counts.
        reason: Why not.

    Raises:
        UserError: No prompts are there, or a file is not the prompt that was designed.
    """
    path = folder / "design.json"
    if not path.exists():
        raise UserError(f"{folder}: no prompts wait for approval here; the design is not done")
    design = record_of(read_json(path), path, Design)
    for pack in design.packs:
        _check_file(folder / "prompts" / f"{pack.id}.md", pack)
    word = Approval(prompts=prompts_hash(design.packs), approved=approved, reason=reason)
    write_json(folder / FILE, word.model_dump(mode="json"))
    Trace(folder / "trace.jsonl").add(
        Event(
            stage="design",
            role="approval",
            brain="person",
            template="",
            template_hash="",
            reply="yes" if approved else f"no: {reason}",
            parsed=word.model_dump(mode="json"),
            notes=[] if approved else [f"rejected: {reason}"],
        )
    )
    return len(design.packs)


def _check_file(path: Path, pack: Pack) -> None:
    text = path.read_bytes().decode("utf-8", "replace") if path.exists() else None
    if text != pack.system:
        what = "is missing" if text is None else "was changed since it was designed"
        raise UserError(
            f"{path} {what}; approval is for the prompts as they were designed. Change what the "
            "agents do with the keys of `design`, or run the design stage again to have it back"
        )


def spoken(folder: Path, packs: Sequence[Pack], rejected: Sequence[Rejected]) -> Approval | None:
    """What was said about these prompts; None if nothing yet.

    Args:
        folder: The design's.
        packs: The prompts that wait.
        rejected: The rejections that the design knows of: such a word has done its work.

    Raises:
        UserError: The word is for other prompts, or cannot be read.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        word = Approval.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: this is no approval; {_AGAIN}") from error
    if not word.approved and word.prompts in {r.prompts for r in rejected}:
        return None
    if word.prompts != prompts_hash(packs):
        raise UserError(
            f"{path}: this approval is for other prompts ({word.prompts}) than those in "
            f"{folder / 'prompts'} ({prompts_hash(packs)}); {_AGAIN}"
        )
    return word


def approved(folder: Path) -> bool:
    """Whether a person's last word on a design was yes."""
    try:
        word = Approval.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError, UnicodeDecodeError):
        return False
    return word.approved


def refused(folder: Path) -> str:
    """The hash of the prompts that a person said no to; "" if there is no such word."""
    try:
        word = Approval.model_validate_json((folder / FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError, UnicodeDecodeError):
        return ""  # A broken file is told by `spoken`.
    return "" if word.approved else word.prompts


_AGAIN = "read the prompts and approve them again with: ske inspect RUN --approve"
