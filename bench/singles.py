"""ROME's edits of single facts, each of the untouched model: made side by side against one by one.

Both have the same statistics at hand. One by one, every edit has the model write its contexts
anew and optimises one value; side by side that is done once, and for all.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from bench.facts import facts_of
from bench.row import Row
from bench.timing import Work, paired
from methods.base import Workshop
from methods.delta import DeltaEdit, LowRank
from methods.rome import Rome
from ske.backends.local import LocalLM, load
from ske.config import ModelConfig
from ske.types import Fact

FACTS, ALONE, SAME = 64, 4, 1e-5


def measure(long: bool) -> list[Row]:
    """Edits a second, on the embedded world's base model."""
    few = facts_of(4 * ALONE if long else ALONE)
    with tempfile.TemporaryDirectory() as folder:
        lm, editor = load(ModelConfig()), Rome({}, Workshop(cache=Path(folder)))
        editor.edit(lm, few[:1])  # The statistics are counted.
        ours = Work(lambda: together(editor, lm, facts_of(FACTS)), FACTS)
        reference = Work(lambda: [editor.edit(lm, [fact]) for fact in few], len(few))
        found = paired(ours, reference, 3, warm=lambda: editor.edit(lm, few[:1]))
        off = difference()
    wrong = f"edits differ by {off:.1g}" if off > SAME else ""
    what = f"ROME: {FACTS} single edits side by side"
    return [Row(what, *found.rates("edits"), found.ratios, at_least=1, wrong=wrong)]


def together(editor: Rome, lm: LocalLM, facts: list[Fact]) -> list[DeltaEdit]:
    """All of them."""
    return editor.alone(lm, facts, [lambda kind, texts: None] * len(facts))


def difference() -> float:
    """The largest difference in fp64 between updates made side by side and alone."""
    lm, facts = load(ModelConfig()), facts_of(ALONE)
    lm.model.double()
    editor = Rome({"moment_texts": 64}, Workshop())
    pairs = zip(together(editor, lm, facts), facts, strict=True)
    return max(_apart(edit, editor.edit(lm, [fact])) for edit, fact in pairs)


def _apart(one: DeltaEdit, other: DeltaEdit) -> float:
    (mine,), (theirs,) = one.deltas.values(), other.deltas.values()
    dense = [d.dense() if isinstance(d, LowRank) else d for d in (mine, theirs)]
    return torch.dist(*dense, p=float("inf")).item()
