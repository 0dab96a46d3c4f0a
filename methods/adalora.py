"""AdaLoRA (Zhang et al. 2023, arXiv 2303.10512): adapters whose ranks are shared out by importance.

peft brings the layers and the allocator of ranks; what nobody calls is called here: the allocator
after every optimizer step (sections 3.2 and 3.3), and the penalty that keeps the factors
orthogonal (equation 4; norms instead of their squares, as peft has it), which TRL's loss leaves
out. A checkpoint holds the allocator's memory as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from peft import AdaLoraConfig, PeftModel
from pydantic import Field
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.modeling_utils import PreTrainedModel

from methods.adapters import places
from methods.base import Lesson, Workshop, options_of, weights_of
from methods.delta import DeltaEdit
from methods.sft import Recipe, train_with
from methods.trainer import LessonTrainer
from ske.lm import LM, ask
from ske.training import LowRankOptions, NotNegative
from ske.types import Fact

CHECKPOINT = "adalora.pt"
MEMORY = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""What the allocator remembers of each parameter: sensitivity, its average, its uncertainty."""


class AdaLoraOptions(LowRankOptions):
    """`rank` is the mean of the final ranks; training starts with half as much again."""

    min_steps: Annotated[int, Field(ge=10)] = 10
    """peft's allocator of ranks fails on fewer: it needs a beginning, a middle and an end."""

    orthogonality: NotNegative = 0.5
    """Weight of the penalty on factors that are not orthogonal."""


class AdaLora:
    """The AdaLoRA editor, on the bare facts."""

    def __init__(self, options: dict[str, Any], workshop: Workshop) -> None:
        """Raises UserError on unknown options."""
        self.options: AdaLoraOptions = options_of(AdaLoraOptions, options, "adalora")
        self.workshop = workshop

    def edit(self, lm: LM, facts: Sequence[Fact]) -> DeltaEdit:
        """Train on (prompt, new target) pairs."""
        lessons = [
            Lesson(chat=ask(fact.prompt), completion=fact.target_new, fact=fact.id)
            for fact in facts
        ]
        holder = weights_of(lm, "adalora")
        recipe = Recipe(
            adapter=lambda steps: adalora_config(self.options, holder.model, steps),
            trainer=AllocatingTrainer,
            callbacks=(Allocate(),),
        )
        return train_with(recipe, holder, lessons, self.options, self.workshop, "adalora")


def adalora_config(options: AdaLoraOptions, model: PreTrainedModel, steps: int) -> AdaLoraConfig:
    """The schedule of ranks: full for a tenth of the steps, final for the last quarter."""
    return AdaLoraConfig(
        init_r=options.rank + (options.rank + 1) // 2,
        target_r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=0.0,
        tinit=steps // 10,
        tfinal=steps // 4,
        deltaT=max(1, steps // 100),
        total_step=steps,
        orth_reg_weight=options.orthogonality,
        **places(options, model),
    )


def not_orthogonal(model: torch.nn.Module) -> torch.Tensor:
    """Mean over the factors of ||P^T P - I|| and ||Q Q^T - I|| (Frobenius), a scalar."""
    norms = []
    for name, factor in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            gram = factor @ factor.T if "lora_A" in name else factor.T @ factor
            norms.append(torch.linalg.matrix_norm(gram - torch.eye(len(gram)).to(gram)))
    return torch.stack(norms).mean()


class Allocate(TrainerCallback):
    """Shares out the ranks, after the optimizer's step and before gradients are dropped."""

    def on_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """`state` counts finished steps, the allocator from 1."""
        model.base_model.update_and_allocate(state.global_step + 1)


class AllocatingTrainer(LessonTrainer):
    """Adds the penalty to the loss, and the allocator's memory to checkpoints."""

    def compute_loss(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, model: Any, inputs: dict[str, torch.Tensor], *args: Any, **kwargs: Any
    ) -> Any:
        """The lessons' loss plus `orth_reg_weight` times the mean penalty."""
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        penalty = self._tuner.peft_config["default"].orth_reg_weight * not_orthogonal(model)
        return (loss[0] + penalty, loss[1]) if isinstance(loss, tuple) else loss + penalty

    @property
    def _tuner(self) -> Any:
        assert isinstance(self.model, PeftModel)
        return self.model.base_model

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        # All by hand: peft saves the directions in use alone, and pruned ones may come back.
        folder = Path(output_dir or self.args.output_dir or ".")
        folder.mkdir(parents=True, exist_ok=True)
        memory: dict[str, Any] = {name: getattr(self._tuner.rankallocator, name) for name in MEMORY}
        memory["rank_pattern"] = self._tuner.peft_config["default"].rank_pattern
        memory["factors"] = {name: factor.detach() for name, factor in self._factors().items()}
        torch.save(memory, folder / CHECKPOINT)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        memory = torch.load(Path(resume_from_checkpoint) / CHECKPOINT, weights_only=True)
        for name in MEMORY:
            setattr(self._tuner.rankallocator, name, memory[name])
        self._tuner.peft_config["default"].rank_pattern = memory["rank_pattern"]
        with torch.no_grad():
            for name, factor in self._factors().items():
                factor.copy_(memory["factors"][name])

    def _factors(self) -> dict[str, torch.nn.Parameter]:
        assert self.model is not None
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}
