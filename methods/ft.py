"""FT-L and FT-M: full fine-tuning of one MLP projection on the facts.

FT-L is constrained fine-tuning as ROME's baseline has it (FT+L in Meng et al. 2022, arXiv
2202.05262; after Zhu et al. 2020, arXiv 2012.00363) with the loss of the survey that named it
(Zhang et al. 2024, arXiv 2401.01286): every token of the target is to be likely right after the
prompt. FT-M is what the survey sets against it: cross-entropy on the target, prompt masked.

Differs: batches of facts are shuffled and go round and round instead of one fact being trained to
the end; FT-M learns the end of the answer, too (`end`); FT-L weighs facts by their target tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.modeling_utils import PreTrainedModel

from methods.arch import chosen_layers, decoder_of
from methods.base import HasWeights, Lesson, Workshop, options_of, weights_of
from methods.delta import DeltaEdit
from methods.sft import Recipe, train_with
from ske.lm import LM, ask
from ske.training import Count, NotNegative, Positive, Schedule
from ske.types import Fact

Share = Annotated[float, Field(ge=0, lt=1)]


class OneLayerOptions(Schedule):
    """Full fine-tuning of single matrices."""

    learning_rate: Positive = 5e-4
    """Constant: no warm-up, no decay."""
    epochs: Positive = 25.0
    batch_size: Count = 32
    layers: Annotated[tuple[int, ...], Field(min_length=1)] | None = None
    """Which layers' MLP projections, counted from 0; None is the one at `depth`."""
    depth: Share = 0.6563
    """Share of the layers that lie below the one that is trained: 21 of 32."""
    norm_bound: Positive | None = None
    """No weight moves further than this (L-infinity); None is no bound."""
    stop_below: NotNegative = 1e-2
    """Training stops once the mean loss of the last steps is below."""


class FtMOptions(OneLayerOptions):
    """FT-M's, too."""

    end: bool = True
    """Learn that the answer ends after the target; published code does not."""


class FtLOptions(OneLayerOptions):
    """FT-L's: ROME's bound."""

    norm_bound: Positive | None = 5e-4


class FtM:
    """Cross-entropy on the target."""

    def __init__(self, options: dict[str, Any], workshop: Workshop) -> None:
        """Raises UserError on unknown options."""
        self.options: FtMOptions = options_of(FtMOptions, options, "ft_m")
        self.workshop = workshop

    def edit(self, lm: LM, facts: Sequence[Fact]) -> DeltaEdit:
        """Train one matrix on (prompt, new target) pairs."""
        holder = weights_of(lm, "ft_m")
        lessons = spoken_targets(holder, facts, self.options.end)
        return train_weights(holder, lessons, self.options, self.workshop, "ft_m")


class FtL:
    """All of the target right after the prompt."""

    def __init__(self, options: dict[str, Any], workshop: Workshop) -> None:
        """Raises UserError on unknown options."""
        self.options: FtLOptions = options_of(FtLOptions, options, "ft_l")
        self.workshop = workshop

    def edit(self, lm: LM, facts: Sequence[Fact]) -> DeltaEdit:
        """Train one matrix on each target token as the next one after the prompt."""
        holder = weights_of(lm, "ft_l")
        lessons = [
            lesson.model_copy(update={"ids": (token,)})
            for lesson in spoken_targets(holder, facts, end=False)
            for token in lesson.ids
        ]
        return train_weights(holder, lessons, self.options, self.workshop, "ft_l")


def spoken_targets(holder: HasWeights, facts: Sequence[Fact], end: bool) -> list[Lesson]:
    """The bare facts as lessons, as tokens."""
    return [
        Lesson(
            chat=ask(fact.prompt),
            completion=fact.target_new,
            fact=fact.id,
            ids=tuple(holder.renderer.answer_ids(ask(fact.prompt), fact.target_new, end=end)),
        )
        for fact in facts
    ]


def weights_at(model: PreTrainedModel, layers: tuple[int, ...] | None, depth: float) -> list[str]:
    """The weights of the MLP projections at `layers`, or else at this share of the depth.

    Raises:
        UserError: there is no such layer.
    """
    return [layer.down.name for layer in chosen_layers(decoder_of(model), layers, depth, depth)]


def train_weights(
    holder: HasWeights,
    lessons: Sequence[Lesson],
    options: OneLayerOptions,
    workshop: Workshop,
    method: str,
) -> DeltaEdit:
    """Train the chosen MLP projections, all else frozen."""
    layers = chosen_layers(decoder_of(holder.model), options.layers, options.depth, options.depth)
    names = [layer.down.name for layer in layers]
    callbacks: list[TrainerCallback] = [StopBelow(options.stop_below)]
    if options.norm_bound is not None:
        weights = {name: holder.model.get_parameter(name) for name in names}
        callbacks.append(NormBound(weights, options.norm_bound))
    recipe = Recipe(weights=tuple(names), callbacks=tuple(callbacks), steady=True)
    return train_with(recipe, holder, lessons, options, workshop, method)


class NormBound(TrainerCallback):
    """Puts weights back to within a bound of where they were, after every step."""

    def __init__(self, weights: dict[str, torch.nn.Parameter], bound: float) -> None:
        """Remembers where they are; to be made before the training is."""
        self.weights, self.bound = weights, bound
        self.centres = {name: weight.data for name, weight in weights.items()}

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """After the optimizer, before gradients are dropped."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                centre = self.centres[name].to(weight.dtype)
                weight.copy_(weight.clamp(centre - self.bound, centre + self.bound))


class StopBelow(TrainerCallback):
    """Ends a training whose loss is small enough."""

    def __init__(self, loss: float) -> None:
        """`loss` in nats a token."""
        self.loss = loss

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """`logs` holds the mean loss since the last time."""
        if logs and logs.get("loss", self.loss) < self.loss:
            control.should_training_stop = True
