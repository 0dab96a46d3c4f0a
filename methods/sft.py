"""One way to train on lessons, for every method that fine-tunes: TRL's SFTTrainer on completions.

Lessons with a text are learned by cross-entropy on the completion. Lessons with a stored
distribution hold the student to it: a KL divergence over the stored top-k tokens and one bucket
for all the rest. The model is left as it was; what was learned comes back as a `DeltaEdit`.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftConfig, PeftModel
from transformers import PrinterCallback, Trainer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint
from trl.trainer.sft_config import SFTConfig

from methods.adapters import dense_deltas, lora_config, low_rank_deltas
from methods.base import HasWeights, Lesson, Workshop
from methods.delta import DeltaEdit, LowRank
from methods.packing import keeps_apart
from methods.restore import as_found
from methods.rows import Collator, pad_id, row_of
from methods.trainer import LessonTrainer, Progress
from ske import processes
from ske.training import Schedule, SftOptions
from ske.types import UserError


@dataclass(frozen=True)
class Recipe:
    """What of a model is trained, and how."""

    adapter: Callable[[int], PeftConfig] | None = None
    """From the number of steps, the adapters to be trained; None trains the model's own weights."""
    weights: tuple[str, ...] | None = None
    """The only weights to be trained, in float32; None is all. Without adapters."""
    locality_weight: float = 1.0
    trainer: type[LessonTrainer] = LessonTrainer
    callbacks: tuple[TrainerCallback, ...] = ()
    steady: bool = False
    """Keep the learning rate where it is: no warm-up, no decay."""


def train(
    holder: HasWeights,
    lessons: Sequence[Lesson],
    options: SftOptions,
    workshop: Workshop,
    method: str,
) -> DeltaEdit:
    """Train low-rank adapters or all weights on lessons; see `train_with`."""
    recipe = Recipe(
        adapter=(lambda steps: lora_config(options, holder.model))
        if options.tuning == "lora"
        else None,
        locality_weight=options.locality_weight,
    )
    return train_with(recipe, holder, lessons, options, workshop, method)


def train_with(
    recipe: Recipe,
    holder: HasWeights,
    lessons: Sequence[Lesson],
    options: Schedule,
    workshop: Workshop,
    method: str,
) -> DeltaEdit:
    """Train on lessons and return what changed; the model itself is as before.

    With `workshop.folder`, a checkpoint is kept there and a killed training goes on from it with
    the same result.
    """
    workshop.used("training", (text for lesson in lessons for text in lesson.texts))
    if recipe.locality_weight == 0:
        # Plain SFT on the same lessons: what they say, not how likely it was.
        nothing = {"top_ids": (), "top_logprobs": ()}
        lessons = [lesson.model_copy(update=nothing) for lesson in lessons]
    rows = [row_of(holder, lesson) for lesson in lessons]
    packed = keeps_apart(holder.model, [row["input_ids"] for row in rows[:2]])
    trained = () if recipe.adapter else recipe.weights or _all_weights(holder)
    # Before the weights to be trained become fp32: the others' precision says how to compute.
    half = holder.model.dtype == torch.bfloat16
    with work_folder(workshop) as folder, as_found(holder.model, trained) as before:
        how = arguments(holder, options, workshop, folder, len(rows), recipe.steady)
        config = SFTConfig(
            **{**how, "bf16": half},
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        torch.manual_seed(workshop.seed)
        trainer = recipe.trainer(
            model=holder.model,
            args=config,
            train_dataset=Dataset.from_list(rows),
            data_collator=Collator(pad_id(holder), packed),
            processing_class=holder.tokenizer,
            peft_config=recipe.adapter(config.max_steps) if recipe.adapter else None,
            callbacks=[Progress(workshop.progress), *recipe.callbacks],
        )
        trainer.locality_weight = recipe.locality_weight
        trainer.trained_weights = recipe.weights
        return DeltaEdit(learned(trainer, folder, before), method)


def learned(
    trainer: Trainer, folder: Path, before: dict[str, torch.Tensor]
) -> dict[str, LowRank | torch.Tensor]:
    """Train, from the last checkpoint if there is one, and read off what changed."""
    trainer.remove_callback(PrinterCallback)
    model: Any = trainer.model
    try:
        _clean(folder)
        last = get_last_checkpoint(str(folder)) if folder.is_dir() else None
        trainer.train(resume_from_checkpoint=last)
        _wait_for_all()  # Until the last one has written its part of a checkpoint.
        return (
            low_rank_deltas(model) if isinstance(model, PeftModel) else dense_deltas(model, before)
        )
    finally:
        if isinstance(model, PeftModel):
            model.unload()


@contextmanager
def work_folder(workshop: Workshop) -> Iterator[Path]:
    """The workshop's own folder, or one that is gone afterwards."""
    with tempfile.TemporaryDirectory() as spare:
        yield workshop.folder or Path(spare)


def steps_of(options: Schedule, n_rows: int) -> int:
    """How many optimizer steps a schedule makes of so many lessons."""
    return max(1, options.min_steps, _in_passes(options, n_rows, batch_of(options, n_rows)))


def batch_of(options: Schedule, n_rows: int) -> int:
    """How many lessons a step has: with few of them it is halved until there are steps enough."""
    size = options.batch_size
    least = 2 * (options.least_batch or size)
    while size >= least and _in_passes(options, n_rows, size) < options.min_steps:
        size //= 2
    return size


def _in_passes(options: Schedule, n_rows: int, batch: int) -> int:
    return round(options.epochs * math.ceil(n_rows / batch))


def batch_share(batch_size: int) -> int:
    """How many lessons of a step are this process's.

    Raises:
        UserError: they cannot be shared out evenly, so that the result would be another one.
    """
    share, rest = divmod(batch_size, processes.count())
    if rest:
        raise UserError(
            f"a step of {batch_size} lessons cannot be shared out evenly to {processes.count()} "
            "processes; set train.batch_size, and train.least_batch for few facts, to multiples "
            "of that, or start fewer processes"
        )
    return share


def arguments(
    holder: HasWeights,
    options: Schedule,
    workshop: Workshop,
    folder: Path,
    n_rows: int,
    steady: bool = False,
) -> dict[str, Any]:
    """What every trainer is told, whatever its loss."""
    steps = steps_of(options, n_rows)
    logging = max(1, min(10, steps // 20))
    return {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": batch_share(batch_of(options, n_rows)),
        "learning_rate": options.learning_rate,
        "lr_scheduler_type": "constant" if steady else "cosine",
        # The first step of a warm-up has rate 0: of few steps none is to be lost.
        "warmup_steps": 0 if steady else steps // 20,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "logging_steps": logging,
        "save_strategy": "steps" if workshop.folder else "no",
        # On a step that logs: then no mean of losses is torn apart when a training goes on.
        "save_steps": math.ceil(max(20, steps // 5) / logging) * logging,
        "save_total_limit": 1,
        "use_cpu": holder.model.device.type == "cpu",
        # A model in fp32 stays so: bf16 is about 100 times slower on a CPU without AVX512-BF16.
        "bf16": holder.model.dtype == torch.bfloat16,
        # `gradient_checkpointing` is the only name that all supported versions know.
        "gradient_checkpointing": False,
        "dataloader_num_workers": 0,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": workshop.seed,
    }


def _all_weights(holder: HasWeights) -> tuple[str, ...]:
    return tuple(name for name, _ in holder.model.named_parameters())


def _clean(folder: Path) -> None:
    """Remove checkpoints that a killed process left half-written, before anybody looks for one."""
    if processes.first():
        for place in folder.glob("checkpoint-*"):
            if not (place / "trainer_state.json").exists():  # what the trainer writes last
                shutil.rmtree(place)
    _wait_for_all()


def _wait_for_all() -> None:
    if processes.count() > 1:
        torch.distributed.barrier()
