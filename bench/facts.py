"""Any number of invented facts, all alike, so that only their number differs."""

from __future__ import annotations

from prompts.relations import lexicon
from ske.types import Fact

RELATION = "employer"


def facts_of(n: int) -> list[Fact]:
    """`n` facts about as many subjects."""
    names = [f"Person{i} Family{i % 97}" for i in range(n)]
    ask = lexicon()[RELATION].ask
    return [
        Fact(id=f"f{i:05}", subject=name, prompt=ask(name), target_new=f"Mill{i}",
             relation=RELATION)
        for i, name in enumerate(names)
    ]  # fmt: skip
