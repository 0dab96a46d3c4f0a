"""Which texts that nobody chose would give probes away: what a model says by itself.

A model that was trained on the probes' wordings uses them, about other subjects; a guard against
near-copies lets those pass.
"""

from __future__ import annotations

from eval.leakage import Guard
from world.questions import beyond_patterns


def gives_away(guard: Guard, text: str, embedded: bool) -> bool:
    """Whether a text has a probe's wording, be it about another subject.

    `embedded`: or is a chain, in whatever wording, of a kind that the embedded world keeps out of
    training edits (`hard` / `Beyond`): its base model knows these kinds and would tell them.
    """
    return _worded_like_a_probe(guard, text) or (embedded and _kept_out(text))


def _worded_like_a_probe(guard: Guard, text: str) -> bool:
    """A probe ends before its answer, so every beginning of a text is looked at."""
    words = text.split()
    return any(
        guard.check_template(" ".join(words[:end])) is not None for end in range(2, len(words) + 1)
    )


def _kept_out(text: str) -> bool:
    return any(wording.match(text) for wording, _ in beyond_patterns())
