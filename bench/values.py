"""MEMIT's values: those of all facts optimised together against one fact after the other.

The reference is the plain way (`bench.plain.change`): for each fact, whole forward passes over its
prompts. Rounding differs between batches, and twenty steps of Adam make much of it in fp32; that
both are the same is checked in fp64.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import nn

from bench.facts import facts_of
from bench.plain import change
from bench.row import Row
from bench.timing import Work, paired
from methods.arch import chosen_layers, decoder_of
from methods.keyvalue import Query, contexts_of, query, said_at
from methods.memit import FIRST, LAST, WRITTEN, MemitOptions
from methods.values import changes
from ske.backends.local import LocalLM, load
from ske.config import ModelConfig

FACTS, ALONE, SAME = 256, 8, 1e-5


def measure(long: bool) -> list[Row]:
    """Values a second, on the embedded world's base model."""
    alone = 4 * ALONE if long else ALONE
    task = Task.of(load(ModelConfig()), FACTS)
    few = range(0, FACTS, FACTS // alone)
    ours, reference = Work(task.run, FACTS), Work(lambda: [task.plain(i) for i in few], alone)
    found = paired(ours, reference, 3, warm=lambda: task.plain(0))
    off = difference(ALONE)
    wrong = f"values differ by {off:.1g}" if off > SAME else ""
    what = f"MEMIT: values of {FACTS} facts at once"
    return [Row(what, *found.rates("facts"), found.ratios, at_least=5, wrong=wrong)]


class Task(NamedTuple):
    """The values of some facts, to be found."""

    lm: LocalLM
    module: nn.Module
    before: torch.Tensor
    queries: list[Query]

    @staticmethod
    def of(lm: LocalLM, count: int) -> Task:
        """As MEMIT has it."""
        module = chosen_layers(decoder_of(lm.model), None, FIRST, LAST)[-1].block
        contexts = contexts_of(lm, None, WRITTEN, 0)
        queries = [query(lm, fact, contexts, end=True) for fact in facts_of(count)]
        before = said_at(lm, module, queries, MemitOptions().batch_tokens)
        return Task(lm, module, before, queries)

    def plain(self, number: int) -> torch.Tensor:
        """Find that of one fact, in the plain way."""
        options = MemitOptions()
        return change(self.lm, self.module, self.before[number], self.queries[number], options)

    def run(self) -> torch.Tensor:
        """Find them."""
        return changes(self.lm, self.module, self.before, self.queries, MemitOptions())


def difference(count: int) -> float:
    """The largest difference in fp64 between values found together and alone, as a share of them.

    Norms and positions are computed in fp32 all the same, which is what is left.
    """
    lm = load(ModelConfig())
    task = Task.of(LocalLM(copy.deepcopy(lm.model).double(), lm.tokenizer), count)
    alone = torch.stack([task.plain(number) for number in range(count)])
    return ((task.run() - alone).norm(dim=1) / alone.norm(dim=1)).max().item()
