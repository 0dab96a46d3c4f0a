"""Which texts that nobody chose would give probes away: what a model says by itself.

A model that was trained on the probes' wordings uses them, about other subjects; a guard against
near-copies lets those pass.
"""

from __future__ import annotations

from eval.leakage import Guard
from world.questions import beyond_patterns


def gives_away(guard: Guard, text: str, embedded: bool) -> bool:
    """Whether a text has a probe's wording, whoever it is about.

    `embedded`: or is a chain, in whatever wording, of a kind that the embedded world keeps out of
    training edits (`hard` / `Beyond`): its base model knows these kinds and would tell them.
    """
    return guard.has_wording(text) or (embedded and _kept_out(text))


def _kept_out(text: str) -> bool:
    return any(wording.search(text) for wording, _ in beyond_patterns())
