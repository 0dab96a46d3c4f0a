"""MEMIT: many facts at once, spread over several layers (Meng et al. 2023, arXiv 2210.07229).

A hidden state z is found for every fact at the last edited layer. Then each layer, from below,
takes on its share of what is still missing of z: the least-squares update against all that the
layer stores, R K^T (lambda C + K K^T)^-1 (section 4, algorithm 1). Keys and missing parts are
measured on the model as the lower layers' updates have left it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field

from methods.arch import Layer, Projection, chosen_layers, decoder_of
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
    said_at,
    texts_of,
    write,
)
from methods.moments import Moment, moments
from methods.taught import by_fact, joined
from methods.values import changes
from ske.lm import LM
from ske.types import Fact, UserError

FIRST, LAST = 1 / 8, 1 / 4
"""Layers 4 to 8 of 32 (Llama), as published; GPT-J's authors take 3-8 of 28, GPT-2 XL's 13-17."""
WRITTEN = tuple((word, 10, 1) for word in ("The", "Therefore", "Because", "I", "You"))


class SpreadOptions(KeyValueOptions):
    """What MEMIT and AlphaEdit share."""

    clamp: float = Field(default=0.75, gt=0)
    batch_facts: int = Field(default=0, ge=0)
    """Facts edited at a time, batch after batch on the edited model; 0 is all at once."""
    taught: int = Field(default=0, ge=0)
    """As a student's start: so many of its lessons about what is new of each fact (other wordings,
    consequences) count beside the fact's own prompt, in keys and values (`methods.taught`)."""
    held: int = Field(default=0, ge=0)
    """The same of lessons about what stays of the subject, in values alone."""


class MemitOptions(SpreadOptions):
    """MEMIT's own."""

    moment_weight: float = Field(default=15000.0, gt=0)
    """Lambda: how much what a layer stores weighs against the facts. GPT-2 XL's authors: 20000."""


class Solver:
    """How a layer's update follows from keys; one for every layer."""

    @abstractmethod
    def lefts(self, keys: torch.Tensor) -> torch.Tensor:
        """The [n, in] factor of the update that writes residuals under keys [n, in]."""
        ...

    def remember(self, keys: torch.Tensor) -> None:
        """Keys [n, in] as they are after a batch's update; later batches may respect them."""
        del keys


class LeastSquares(Solver):
    """(lambda C + K K^T)^-1 K in fp64, by a system of size n or of the keys, whichever is less."""

    def __init__(self, moment: Moment, weight: float) -> None:
        """`weight` is lambda."""
        self.moment, self.weight = moment, weight

    def lefts(self, keys: torch.Tensor) -> torch.Tensor:
        """With B = (lambda C)^-1 K, it is B (1 + K^T B)^-1: C is factorised once a layer."""
        wide = keys.double()
        if len(wide) > wide.shape[1]:
            factor = self.moment.factor()
            system = self.weight * (factor @ factor.T) + wide.T @ wide
            return torch.cholesky_solve(wide.T, torch.linalg.cholesky(system)).T
        solved = self.moment.solve(wide.T) / self.weight
        inner = torch.eye(len(wide), dtype=wide.dtype, device=wide.device) + wide @ solved
        return torch.linalg.solve(inner, solved.T)


class Memit:
    """The MEMIT editor."""

    name = "memit"
    schema: type[SpreadOptions] = MemitOptions

    def __init__(self, options: dict[str, Any], workshop: Workshop) -> None:
        """Raises UserError on unknown options."""
        self.options: Any = options_of(self.schema, options, self.name)
        self.workshop = workshop

    def solver(self, moment: Moment, projection: Projection) -> Solver:
        """What a layer is solved by."""
        return LeastSquares(moment, self.options.moment_weight)

    def edit(self, lm: LM, facts: Sequence[Fact]) -> DeltaEdit:
        """One update a layer, of rank len(facts)."""
        holder, options = weights_of(lm, self.name), self.options
        layers = chosen_layers(decoder_of(holder.model), options.layers, FIRST, LAST)
        projections = [layer.down for layer in layers]
        found: list[list[tuple[torch.Tensor, torch.Tensor]]] = [[] for _ in layers]
        size = options.batch_facts or max(1, len(facts))
        with at_rest(holder.model), kept([p.weight for p in projections]):
            contexts = contexts_of(holder, options.templates, WRITTEN, self.workshop.seed)
            self.workshop.used("contexts", texts_of(facts, contexts))
            statistics = moments(holder, projections, options, self.workshop)
            solvers = [self.solver(m, p) for m, p in zip(statistics, projections, strict=True)]
            for start in range(0, len(facts), size):
                batch = facts[start : start + size]
                queries = self._queries(holder, batch, contexts)
                self._spread(holder, layers, solvers, queries, found)
        deltas = {
            p.name: as_delta(p, *(torch.cat(part) for part in zip(*pairs, strict=True)))
            for p, pairs in zip(projections, found, strict=True)
            if pairs
        }
        return DeltaEdit(deltas, self.name)

    def _queries(
        self, holder: HasWeights, facts: Sequence[Fact], contexts: Sequence[str]
    ) -> list[Query]:
        """The facts as they are asked, with what is taught about them if that is wanted."""
        options = self.options
        found = [query(holder, fact, contexts, options.end) for fact in facts]
        if not options.taught and not options.held:
            return found
        if self.workshop.lessons is None:
            raise UserError(
                f"{self.name}: taught = {options.taught}, held = {options.held}: nobody teaches "
                "this method; these are for `train.start_options`, where a student's teacher does"
            )
        lessons = by_fact(self.workshop.lessons())
        return [
            joined(
                holder,
                fact,
                own,
                lessons.get(fact.id, ()),
                taught=options.taught,
                held=options.held,
                end=options.end,
                seed=self.workshop.seed,
            )
            for fact, own in zip(facts, found, strict=True)
        ]

    def _spread(
        self,
        holder: HasWeights,
        layers: list[Layer],
        solvers: list[Solver],
        queries: list[Query],
        found: list[list[tuple[torch.Tensor, torch.Tensor]]],
    ) -> None:
        """Write one batch of facts into the layers; the updates are appended to `found`."""
        top = layers[-1]
        state = said_at(holder, top.block, queries, self.options.batch_tokens)
        change = changes(holder, top.block, state, queries, self.options, self.workshop.progress)
        wanted = state + change
        for number, (layer, solver, pairs) in enumerate(zip(layers, solvers, found, strict=True)):
            keys = self.keys(holder, layer, queries)
            missing = wanted - said_at(holder, top.block, queries, self.options.batch_tokens)
            rights = missing.double() / (len(layers) - number)
            pairs.append((rights, solver.lefts(keys)))
            write(layer.down, *pairs[-1])
        for layer, solver in zip(layers, solvers, strict=True):
            solver.remember(self.keys(holder, layer, queries))

    def keys(self, holder: HasWeights, layer: Layer, queries: list[Query]) -> torch.Tensor:
        """Each fact's key, [n, in]: the bare prompt's counts as much as all other contexts'."""
        keys, _ = keys_and_values(holder, layer.down, queries, self.options.batch_tokens)
        if keys.shape[1] == 1:
            return keys[:, 0]
        return (keys[:, 0] + keys[:, 1:].mean(1)) / 2
