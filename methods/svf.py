"""SVF, the editor (Sun, Cetin and Tang 2025, arXiv 2501.06252, section 3.1).

Each targeted matrix W = U diag(s) V^T becomes U diag(s * z * c) V^T, and z alone is trained. From
the authors' code: z = sigmoid(p), c keeps the sum of the singular values, MLP projections are the
targets. Different: factor space instead of dense gradients, and cross-entropy by default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from methods.base import Edit, HasWeights, Workshop, options_of, weights_of
from methods.cem import Score, search
from methods.experts import OTHER, ExpertsEdit, kind_of, question_about
from methods.general import general_texts
from methods.hooks import at_rest
from methods.svf_edit import Laying, SvfEdit, Z, parts_of
from methods.svf_layers import FactorSpace, scaled
from methods.svf_losses import Example, row_of, scores
from methods.svf_options import SvfOptions
from methods.svf_train import SvfTrainer
from ske.lm import LM, ask
from ske.types import Fact


class Svf:
    """The SVF editor."""

    def __init__(self, options: dict[str, Any], workshop: Workshop) -> None:
        """Raises UserError on unknown options."""
        self.options: SvfOptions = options_of(SvfOptions, options, "svf")
        self.workshop = workshop

    def edit(self, lm: LM, facts: Sequence[Fact]) -> Edit:
        """Train one z on (prompt, new target) pairs, or one for each relation among the facts."""
        holder, options = weights_of(lm, "svf"), self.options
        workshop = self._with_texts(holder)
        parts = parts_of(holder.model, options.targets, workshop.cache, options.rank)
        # A few singular values do not stand in for a weight; all of them do.
        space = FactorSpace(parts, beside=options.rank > 0)
        with at_rest(holder.model), space.installed():
            maker = _Maker(space, holder, options, workshop)
            return maker.single(facts) if options.experts == "one" else maker.experts(facts)

    def _with_texts(self, holder: HasWeights) -> Workshop:
        """General texts drawn once for all experts, if something is going to need them."""
        options, workshop = self.options, self.workshop
        held = options.kl_weight > 0 and options.objective == "sft"
        named = options.experts == "relation" and options.dispatch == "classifier"
        if not held and not named:
            return workshop
        texts = general_texts(holder, workshop, options.texts, "svf")
        return replace(workshop, texts=lambda: texts)


class _Maker(NamedTuple):
    """Makes edits while the factor space is installed."""

    space: FactorSpace
    holder: HasWeights
    options: SvfOptions
    workshop: Workshop

    def single(self, facts: Sequence[Fact]) -> SvfEdit:
        z = self._trained([_example(fact) for fact in facts], "one")
        return SvfEdit(z, self._laying(), self._about(), self.workshop.cache)

    def experts(self, facts: Sequence[Fact]) -> Edit:
        kinds: dict[str, list[Fact]] = {}
        for fact in facts:
            kinds.setdefault(kind_of(fact), []).append(fact)
        experts = {
            kind: self._trained([_example(fact) for fact in some], f"expert-{number}")
            for number, (kind, some) in enumerate(kinds.items())
        }
        laying, cache = self._laying(), self.workshop.cache
        if self.options.dispatch == "cem":
            weights = self._searched(facts, list(experts.values()))
            about = {**self._about(), "mixture": dict(zip(experts, weights.tolist(), strict=True))}
            return SvfEdit(mixed(list(experts.values()), weights), laying, about, cache)
        classifier = None
        if self.options.dispatch == "classifier":
            classifier = self._trained(self._naming(kinds), "classifier")
        return ExpertsEdit(experts, classifier, laying, self._about(), cache)

    def _trained(self, examples: Sequence[Example], name: str) -> Z:
        folder = self.workshop.folder
        workshop = replace(self.workshop, folder=folder and folder / name)
        return SvfTrainer(self.space, self.holder, self.options, workshop).train(examples)

    def _naming(self, kinds: Mapping[str, Sequence[Fact]]) -> list[Example]:
        """What teaches the classifier: each fact's kind, and that other text is of none."""
        names = list(kinds)
        own = [(fact.prompt, kind) for kind, some in kinds.items() for fact in some]
        texts = list(self.workshop.texts() if self.workshop.texts else ())[: len(own)]
        asked = [*own, *((text, OTHER) for text in texts)]
        return [Example(question_about(ask(text), names), kind) for text, kind in asked]

    def _searched(self, facts: Sequence[Fact], experts: Sequence[Z]) -> torch.Tensor:
        """The weights of the mixture that answers a few of the facts best, by CEM.

        Ties are broken by the mean log p of the targets; the authors' take that of the replies
        that were right.
        """
        options, draw = self.options, torch.Generator().manual_seed(self.workshop.seed)
        few = torch.randperm(len(facts), generator=draw)[: options.few_shot].tolist()
        rows = [row_of(self.holder, *_example(facts[i])) for i in few]

        def score(weights: torch.Tensor) -> Score:
            z = mixed(experts, weights)
            factors = self.space.factors.items()
            scales = {name: scaled(f, z[name], options.renormalise) for name, f in factors}
            with self.space.using(scales):
                return scores(self.holder, rows)

        sizes = (options.population, options.elite, options.generations)
        return search(score, len(experts), *sizes, draw).weights

    def _laying(self) -> Laying:
        options = self.options
        return Laying(renormalise=options.renormalise, apply=options.apply, rank=options.rank)

    def _about(self) -> dict[str, Any]:
        return {"seed": self.workshop.seed, "options": self.options.model_dump()}


def mixed(experts: Sequence[Z], weights: torch.Tensor) -> dict[str, torch.Tensor]:
    """The z that is the experts' mean, weighted; all weights 0 count as all equal."""
    if weights.sum() == 0:
        weights = torch.ones_like(weights)
    shares = (weights / weights.sum()).tolist()
    return {
        name: sum(
            (share * z[name] for share, z in zip(shares, experts, strict=True)),
            start=torch.zeros_like(value),
        )
        for name, value in experts[0].items()
    }


def _example(fact: Fact) -> Example:
    return Example(ask(fact.prompt), fact.target_new)
