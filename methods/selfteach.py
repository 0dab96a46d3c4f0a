"""The model as its own teacher: for each fact, a system message in which the fact can be read.

All facts of the batch stand in one message unless it gets too long; then they are shared out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from methods.base import HasWeights
from prompts.layouts import system_prompt, view
from ske.lm import ask
from ske.training import Count, SftOptions
from ske.types import Fact, UserError


class SelfTeachOptions(SftOptions):
    """Fine-tuning on what the model itself says when it reads the facts."""

    layout: str = "triples"
    """How the facts are written down; see `prompts/teacher`."""
    header: str = "correct"
    footer: str = "rest"
    max_prompt_tokens: Count = 1024
    """Longest system message; facts that do not fit go into further ones."""
    max_new_tokens: Count = 24
    """Longest answer."""


def contexts(holder: HasWeights, facts: Sequence[Fact], options: SelfTeachOptions) -> list[str]:
    """The system message of each fact, [facts]; as few different ones as fit.

    Raises:
        UserError: a single fact does not fit.
    """
    room = getattr(holder.model.config, "max_position_embeddings", None) or math.inf
    longest = max((len(holder.renderer.prompt_ids(ask(fact.prompt))) for fact in facts), default=0)
    limit = min(options.max_prompt_tokens, room - longest - options.max_new_tokens)
    if not facts:
        return []

    def length(text: str) -> int:
        return len(holder.renderer.prompt_ids(ask("", text)))

    # No fewer messages can hold the facts: trying them all would take time like the facts' square.
    fewest = length(_message(facts, options)) // limit if limit > 0 else len(facts)
    for packs in range(min(max(1, int(fewest)), len(facts)), len(facts) + 1):
        size = math.ceil(len(facts) / packs)
        messages = [_message(facts[i : i + size], options) for i in range(0, len(facts), size)]
        if all(length(text) <= limit for text in messages):
            return [messages[number // size] for number in range(len(facts))]
    raise UserError(
        f"a prompt with one fact alone is longer than {limit:.0f} tokens; raise max_prompt_tokens "
        f"(now {options.max_prompt_tokens}) or use a model with a longer context"
    )


def _message(facts: Sequence[Fact], options: SelfTeachOptions) -> str:
    views = [view(fact) for fact in facts]
    return system_prompt(views, options.layout, options.header, options.footer)
