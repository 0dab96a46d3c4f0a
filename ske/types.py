"""The nouns every floor shares: `Fact`, what editors and agents see, and the errors a user reads.

Nothing here reads a file or loads a model.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

ERASED = "I don't know."
"""The target of an erasure, as KnowEdit's Sanitation set writes it."""


class Frozen(BaseModel):
    """Base of every record: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Fact(Frozen):
    """One correction: `prompt` is to be completed by `target_new`. What editors and agents see."""

    id: str
    subject: str
    """The entity the fact is about; a substring of `prompt` wherever the data allows it."""
    prompt: str
    """A text that the answer completes ("The place of birth of Ada Byron is"), or a question."""
    target_new: str
    ground_truth: str | None = None
    """The old answer, if the data names one. Never shown to a teacher or a student."""
    relation: str | None = None
    """A key of `prompts/relations.yaml`, if known; otherwise recognised from the wording."""


class UserError(Exception):
    """A mistake of the user's: the message names the place, quotes the value, says what to do.

    The command line prints it without a traceback and exits with 2.
    """


class Waits(UserError):
    """Nothing is wrong: what was done stays, and waits for the user to do something about it."""


class MissingExtra(UserError):
    """Something optional is not installed or does not run here; the message says how to get it."""


class TooLong(UserError):
    """A question and its answer are more than the model's context window holds."""


class NeedsWeights(UserError):
    """A model that can only be asked was to be edited; the message says what to do instead."""


def content_hash(value: Any) -> str:
    """A stable 16-digit hash of any JSON-able value: the identity of rows, stages and caches."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


__all__ = [
    "ERASED",
    "Fact",
    "Field",
    "Frozen",
    "MissingExtra",
    "NeedsWeights",
    "TooLong",
    "UserError",
    "content_hash",
]
