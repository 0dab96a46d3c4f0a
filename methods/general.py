"""General text, which an edit is to leave alone: what the user gives, or what the model says.

Sampled text holds what the model knows without being asked, and no benchmark's questions.
"""

from __future__ import annotations

from collections.abc import Sequence

from methods.base import HasWeights, Workshop
from ske.lm import LM
from ske.texts import free_texts
from ske.types import UserError

NEW_TOKENS = 48


def general_texts(holder: HasWeights, workshop: Workshop, count: int, method: str) -> Sequence[str]:
    """The first `count` of the workshop's texts; without any, as many draws from the model.

    Draws are at temperature 1 from an empty question; empty and repeated ones are left out.

    Raises:
        UserError: there are no texts and the model cannot be sampled from.
    """
    if workshop.texts is not None:
        return list(workshop.texts())[:count]
    if not isinstance(holder, LM):
        raise UserError(
            f"method {method!r} needs general texts, and {type(holder).__name__} cannot be "
            "sampled from; name a text file (texts.path)"
        )
    texts = free_texts(holder, count, NEW_TOKENS, workshop.seed)
    workshop.used("general text", texts)
    return texts
