"""ROME and R-ROME: one fact, one rank-1 update of one MLP (Meng et al. 2022, arXiv 2202.05262).

W gets (v* - W k) / (k^T u) u^T with u = C^-1 k*, where k* is the mean key over contexts (section
3.1, equation 2). The authors' ROME takes k and W k from the bare prompt; R-ROME (Gupta et al. 2024,
arXiv 2403.07175) takes k* in both places, which makes W k* = v* hold and keeps long sequences of
edits from collapsing. Several facts are edited one after the other, each on the model that the last
one left.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from methods.arch import Layer, chosen_layers, decoder_of
from methods.base import HasWeights, Used, Workshop, options_of, weights_of
from methods.delta import DeltaEdit
from methods.hooks import at_rest, kept
from methods.keyvalue import (
    KeyValueOptions,
    Query,
    as_delta,
    contexts_of,
    keys_and_values,
    query,
    texts_of,
    write,
)
from methods.moments import Moment, moments
from methods.values import changes
from ske.lm import LM
from ske.types import Fact

DEPTH = 1 / 6
"""Layer 5 of 28 (GPT-J) and of 32 (Llama), as published; GPT-2 XL's authors take 17 of 48."""
WRITTEN = (("", 5, 10), ("", 10, 10))


class Rome:
    """The ROME editor."""

    name = "rome"
    same_key = False
    """Whether the mean key is used in both places."""

    def __init__(self, options: dict[str, Any], workshop: Workshop) -> None:
        """Raises UserError on unknown options."""
        self.options: KeyValueOptions = options_of(KeyValueOptions, options, self.name)
        self.workshop = workshop

    def edit(self, lm: LM, facts: Sequence[Fact]) -> DeltaEdit:
        """One rank-1 update a fact and layer."""
        return self._in_order(lm, facts, self.workshop.used)

    def alone(self, lm: LM, facts: Sequence[Fact], used: Sequence[Used]) -> list[DeltaEdit]:
        """Each fact's own edit of the untouched model.

        In one layer their keys are read and their values optimised side by side. A second layer's
        update depends on the first one's, so with several each fact goes by itself.
        """
        holder, layers = self._layers(lm)
        if len(layers) != 1:
            pairs = zip(facts, used, strict=True)
            return [self._in_order(lm, [fact], own) for fact, own in pairs]
        (layer,) = layers
        with at_rest(holder.model):
            contexts = self._contexts(holder)
            for fact, own in zip(facts, used, strict=True):
                own("contexts", texts_of([fact], contexts))
            (statistic,) = moments(holder, [layer.down], self.options, self.workshop)
            queries = [query(holder, fact, contexts, self.options.end) for fact in facts]
            rights, lefts = self.updates(holder, layer, statistic, queries)
        deltas = [
            as_delta(layer.down, r[None], u[None]) for r, u in zip(rights, lefts, strict=True)
        ]
        return [DeltaEdit({layer.down.name: delta}, self.name) for delta in deltas]

    def _in_order(self, lm: LM, facts: Sequence[Fact], used: Used) -> DeltaEdit:
        """Each fact on the model that the last one left."""
        holder, layers = self._layers(lm)
        projections = [layer.down for layer in layers]
        found: list[list[tuple[torch.Tensor, torch.Tensor]]] = [[] for _ in layers]
        with at_rest(holder.model), kept([p.weight for p in projections]):
            contexts = self._contexts(holder)
            used("contexts", texts_of(facts, contexts))
            statistics = moments(holder, projections, self.options, self.workshop)
            for number, fact in enumerate(facts):
                one = query(holder, fact, contexts, self.options.end)
                for layer, moment, pairs in zip(layers, statistics, found, strict=True):
                    pairs.append(self.updates(holder, layer, moment, [one]))
                    write(layer.down, *pairs[-1])
                self.workshop.progress(number + 1, len(facts), 0.0)
        deltas = {
            p.name: as_delta(p, *(torch.cat(part) for part in zip(*pairs, strict=True)))
            for p, pairs in zip(projections, found, strict=True)
            if pairs
        }
        return DeltaEdit(deltas, self.name)

    def updates(
        self, holder: HasWeights, layer: Layer, moment: Moment, queries: Sequence[Query]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The rank-1 updates of facts, each of the model as it is.

        Returns:
            Rights [n, out] and lefts [n, in]: W += right left^T. The left one, u, has norm 1.
        """
        tokens = self.options.batch_tokens
        keys, values = keys_and_values(holder, layer.down, queries, tokens)
        mean_keys = keys.mean(1)
        lefts = moment.solve(mean_keys.T).T
        lefts = (lefts / lefts.norm(dim=1, keepdim=True)).to(keys.dtype)
        told = self.workshop.progress if len(queries) > 1 else _silent
        change = changes(holder, layer.mlp, values[:, 0], queries, self.options, told)
        # The bare prompt is the first context: v* = W k + change.
        key = mean_keys if self.same_key else keys[:, 0]
        value = values.mean(1) if self.same_key else values[:, 0]
        along = (key * lefts).sum(1, keepdim=True)
        return (values[:, 0] + change - value) / along, lefts

    def _layers(self, lm: LM) -> tuple[HasWeights, list[Layer]]:
        holder = weights_of(lm, self.name)
        return holder, chosen_layers(decoder_of(holder.model), self.options.layers, DEPTH, DEPTH)

    def _contexts(self, holder: HasWeights) -> list[str]:
        return contexts_of(holder, self.options.templates, WRITTEN, self.workshop.seed)


def _silent(step: int, total: int, loss: float) -> None:
    """Facts in order are told of one by one."""


class RRome(Rome):
    """The R-ROME editor."""

    name = "r_rome"
    same_key = True
