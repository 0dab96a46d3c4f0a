"""SDFT (Shenfeld et al. 2026, arXiv 2601.19897), by TRL's experimental trainer of that name.

The student answers a fact's prompt in its own words; the teacher, the same base model, reads the
facts as well, and at each place of the student's answer the student's distribution is drawn to the
teacher's. No target is ever shown, so what the teacher does not read in its prompt is not learned.

Differs: the demonstration is the batch's facts in a system message; the teacher stays the base
model (the paper averages the student into it); adapters are low-rank; whole vocabulary. TRL cuts
teacher prompts to their last 512 tokens unless told otherwise: here nothing is cut.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from datasets import Dataset
from pydantic import Field
from transformers import Trainer

from methods.adapters import lora_config
from methods.base import HasWeights, Workshop, options_of, weights_of
from methods.delta import DeltaEdit
from methods.restore import as_found
from methods.rows import pad_id
from methods.selfteach import SelfTeachOptions, contexts
from methods.sft import arguments, learned, work_folder
from methods.trainer import Progress
from ske.lm import LM, Chat, ask
from ske.training import Positive
from ske.types import Fact, UserError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from trl.experimental.sdft import SDFTConfig, SDFTTrainer
    from trl.experimental.sdft.sdft_trainer import DemonstrationTeacherContextBuilder


class SdftOptions(SelfTeachOptions):
    """On-policy distillation."""

    mixture: Annotated[float, Field(ge=0, le=1)] = 0.5
    """The divergence: 0 is KL(teacher || student), 1 KL(student || teacher), between them a
    Jensen-Shannon divergence."""
    temperature: Positive = 1.0
    """Of the student's own answers."""
    from_teacher: bool = False
    """Let the teacher write the answers instead (off-policy)."""


class Sdft:
    """The SDFT editor."""

    def __init__(self, options: dict[str, Any], workshop: Workshop) -> None:
        """Raises UserError on unknown options."""
        self.options: SdftOptions = options_of(SdftOptions, options, "sdft")
        self.workshop = workshop
        if self.options.tuning == "full":
            raise UserError(
                "options.sdft.tuning = 'full': the teacher is the base under the student's "
                "adapters, so SDFT needs adapters; use tuning: lora"
            )

    def edit(self, lm: LM, facts: Sequence[Fact]) -> DeltaEdit:
        """Distil the model that reads the facts into the one that does not."""
        holder = weights_of(lm, "sdft")
        options, workshop = self.options, self.workshop
        rows = [
            {"prompt": ask(fact.prompt), "privileged_context": text}
            for fact, text in zip(facts, contexts(holder, facts, options), strict=True)
        ]
        workshop.used("training", (fact.prompt for fact in facts))
        workshop.used("prompts", (row["privileged_context"] for row in rows))
        with work_folder(workshop) as folder, as_found(holder.model) as before:
            config = SDFTConfig(
                **arguments(holder, options, workshop, folder, len(rows)),
                max_prompt_length=None,
                max_completion_length=options.max_new_tokens,
                num_generations=1,
                temperature=options.temperature,
                distillation_mode="full_logits",
                distillation_alpha=options.mixture,
                generate_from_teacher=options.from_teacher,
                teacher_model_kind="base",
                disable_dropout=True,
            )
            torch.manual_seed(workshop.seed)
            trainer = RenderedTrainer(
                holder,
                model=holder.model,
                args=config,
                train_dataset=Dataset.from_list(rows),
                peft_config=lora_config(options, holder.model),
                callbacks=[Progress(workshop.progress)],
            )
            return DeltaEdit(learned(trainer, folder, before), "sdft")


class RenderedTrainer(SDFTTrainer):
    """SDFTTrainer that asks as everybody here asks: through the holder's renderer."""

    def __init__(self, holder: HasWeights, **settings: Any) -> None:
        """`settings` as for SDFTTrainer, but for the tokenizer."""
        self.renderer = holder.renderer
        # A copy, since the trainer gives a tokenizer without padding one.
        tokenizer = copy.deepcopy(holder.tokenizer)
        tokenizer.pad_token_id = pad_id(holder)
        super().__init__(processing_class=tokenizer, **settings)
        self.teacher_context_builder = SystemMessage(self)
        # TRL lists the tokenizer's end token, also where it has none: None, which no tensor holds.
        self.eos_token_ids = [token for token in self.eos_token_ids if token is not None]
        self.generation_config.eos_token_id = self.eos_token_ids or None

    def _tokenize_prompts(self, prompts: list[Chat]) -> list[list[int]]:
        return [self.renderer.prompt_ids(chat) for chat in prompts]

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        # TRL's own sampler drops what does not fill a batch, and forgets its order on resuming.
        return Trainer._get_train_sampler(self, dataset)


class SystemMessage(DemonstrationTeacherContextBuilder):
    """The teacher's prompt: the facts as a system message before the student's."""

    def _compose_teacher_prompt(self, prompt: Chat, privileged_context: str) -> Chat:
        return [{"role": "system", "content": privileged_context}, *prompt]
