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
from methods.base import HasWeights, Workshop, options_of, weights_of
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
        holder = weights_of(lm, self.name)
        options = self.options
        layers = chosen_layers(decoder_of(holder.model), options.layers, DEPTH, DEPTH)
        projections = [layer.down for layer in layers]
        found: list[list[tuple[torch.Tensor, torch.Tensor]]] = [[] for _ in layers]
        with at_rest(holder.model), kept([p.weight for p in projections]):
            contexts = contexts_of(holder, options.templates, WRITTEN, self.workshop.seed)
            self.workshop.used("contexts", texts_of(facts, contexts))
            statistics = moments(holder, projections, options, self.workshop)
            for number, fact in enumerate(facts):
                one = query(holder, fact, contexts, options.end)
                for layer, moment, pairs in zip(layers, statistics, found, strict=True):
                    pairs.append(self.update(holder, layer, moment, one))
                    write(layer.down, pairs[-1][0][None], pairs[-1][1][None])
                self.workshop.progress(number + 1, len(facts), 0.0)
        deltas = {
            p.name: as_delta(p, *(torch.stack(part) for part in zip(*pairs, strict=True)))
            for p, pairs in zip(projections, found, strict=True)
            if pairs
        }
        return DeltaEdit(deltas, self.name)

    def update(
        self, holder: HasWeights, layer: Layer, moment: Moment, one: Query
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The rank-1 update of one fact: right [out] and left [in], W += right left^T.

        The left one, u, has norm 1.
        """
        tokens = self.options.batch_tokens
        keys, values = (x[0] for x in keys_and_values(holder, layer.down, [one], tokens))
        mean_key = keys.mean(0)
        left = moment.solve(mean_key[:, None])[:, 0]
        left = (left / left.norm()).to(keys.dtype)
        change = changes(holder, layer.mlp, values[:1], [one], self.options)[0]
        # The bare prompt is the first context: v* = W k + change.
        key = mean_key if self.same_key else keys[0]
        value = values.mean(0) if self.same_key else values[0]
        return (values[0] + change - value) / (key @ left), left


class RRome(Rome):
    """The R-ROME editor."""

    name = "r_rome"
    same_key = True
