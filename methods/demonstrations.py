"""IKE's demonstrations: which practice examples are shown for a fact, as what, and in which order.

Pure functions on practice examples; nothing here knows a model or a prompt's wording.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Any

from methods.base import Practice
from methods.retrievers import words
from ske.types import Fact, Frozen, UserError

SHARES = {"copy": 1, "update": 3, "retain": 4}
"""Demonstrations of each kind, as published: 4, 12 and 16 of 32."""


class Demonstration(Frozen):
    """A new fact, something asked about it or about something else, and the right answer."""

    kind: str
    """copy (the fact itself), update (its paraphrase) or retain (what it must not change)."""
    fact: str
    prompt: str
    answer: str


def statement(fact: Fact) -> str:
    """A fact as a sentence without its period, as IKE writes it."""
    return f"{fact.prompt} {fact.target_new.strip()}"


def copy_of(fact: Fact) -> Demonstration:
    """The demonstration that a fact's own prompt is answered by its target."""
    answer = fact.target_new.strip()
    return Demonstration(kind="copy", fact=statement(fact), prompt=fact.prompt, answer=answer)


def apart_from(practice: Iterable[Practice], facts: Sequence[Fact]) -> list[Practice]:
    """The practice that mentions no edited fact's subject.

    An example whose own fact does is left out; of the others, paraphrases and unrelated pairs
    that do. Otherwise a demonstration could show an edited subject's old or new answer.
    """
    subjects = {tuple(words(fact.subject)) for fact in facts} - {()}
    lengths = {len(subject) for subject in subjects}

    def clean(*texts: str) -> bool:
        for found in map(words, texts):
            for size in lengths:
                runs = (tuple(found[i : i + size]) for i in range(len(found) - size + 1))
                if not subjects.isdisjoint(runs):
                    return False
        return True

    return [
        example.model_copy(
            update={
                "paraphrases": tuple(text for text in example.paraphrases if clean(text)),
                "unrelated": tuple(pair for pair in example.unrelated if clean(*pair)),
            }
        )
        for example in practice
        if clean(example.fact.subject, statement(example.fact))
    ]


def counts(total: int) -> dict[str, int]:
    """How many demonstrations of each kind: `SHARES`, the largest remainders rounded up."""
    whole = sum(SHARES.values())
    each = {kind: total * share // whole for kind, share in SHARES.items()}
    remainder = {kind: total * share % whole for kind, share in SHARES.items()}
    for kind in sorted(SHARES, key=lambda kind: -remainder[kind])[: total - sum(each.values())]:
        each[kind] += 1
    return each


_OTHERS = (
    "set practice.path to a data set with other subjects, paraphrases and unrelated questions "
    "(`ske datasets` lists the forms), set options.ike.demonstrations: 0, or leave ike out of "
    "`methods`"
)


def require_kinds(practice: Sequence[Practice]) -> None:
    """Raises UserError if the practice cannot give each kind of demonstration."""
    if not practice:
        raise UserError(
            f"method 'ike': practice: every example mentions an edited subject; {_OTHERS}"
        )
    if not any(example.paraphrases for example in practice):
        raise UserError(
            f"method 'ike': practice: none of the {len(practice)} examples has paraphrases; "
            f"{_OTHERS}"
        )
    if not any(example.unrelated for example in practice):
        raise UserError(
            f"method 'ike': practice: none of the {len(practice)} examples has unrelated pairs; "
            f"{_OTHERS}"
        )


def choose(
    practice: Sequence[Practice], ranked: Sequence[int], total: int, seed: Any
) -> list[Demonstration]:
    """Up to `total` demonstrations, the most similar last.

    Kinds are dealt out at random, each to the most similar example that is left and has it; an
    example is shown once. Fewer come back if the practice has fewer.

    Args:
        practice: the examples.
        ranked: places in `practice`, most similar first.
        total: how many.
        seed: makes the same choice again; an int or str.
    """
    chance = random.Random(seed)
    kinds = [kind for kind, count in counts(total).items() for _ in range(count)]
    chance.shuffle(kinds)
    left, shown = list(range(len(ranked))), {}
    for kind in kinds:
        rank = next((rank for rank in left if _has(practice[ranked[rank]], kind)), None)
        if rank is not None:
            left.remove(rank)
            shown[rank] = _demonstration(practice[ranked[rank]], kind, chance)
    return [shown[rank] for rank in sorted(shown, reverse=True)]


def _has(example: Practice, kind: str) -> bool:
    return bool({"copy": True, "update": example.paraphrases, "retain": example.unrelated}[kind])


def _demonstration(example: Practice, kind: str, chance: random.Random) -> Demonstration:
    own = copy_of(example.fact)
    if kind == "copy":
        return own
    if kind == "update":
        return own.model_copy(update={"kind": kind, "prompt": chance.choice(example.paraphrases)})
    prompt, answer = chance.choice(example.unrelated)
    return own.model_copy(update={"kind": kind, "prompt": prompt, "answer": answer})
