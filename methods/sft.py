"""One way to train on lessons, for every method that fine-tunes: TRL's SFTTrainer on completions.

Lessons with a text are learned by cross-entropy on the completion. Lessons with a stored
distribution hold the student to it: a KL divergence over the stored top-k tokens and one bucket
for all the rest. The model is left as it was; what was learned comes back as a `DeltaEdit`.
"""

from __future__ import annotations

import copy
import math
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from peft.tuners.lora import LoraLayer
from pydantic import Field
from transformers import (
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.modeling_utils import PreTrainedModel
from transformers.trainer_utils import get_last_checkpoint
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from methods.base import HasWeights, Lesson, Workshop
from methods.delta import DeltaEdit, LowRank
from ske.types import Frozen

IGNORED = -100


class SftOptions(Frozen):
    """What every fine-tuning method can be told."""

    tuning: Literal["lora", "full"] = "lora"
    rank: int = Field(default=8, ge=1)
    alpha: int = 16
    """The update is alpha / rank * B A."""
    learning_rate: float = Field(default=1e-3, gt=0)
    epochs: float = Field(default=10.0, gt=0)
    batch_size: int = Field(default=32, ge=1)
    min_steps: int = Field(default=0, ge=0)
    """With few lessons, more passes are made until there are so many steps."""
    locality_weight: float = Field(default=1.0, ge=0)
    """Weight of the KL term; only lessons with a stored distribution have one."""


class Collator:
    """Pads lessons to a batch and lines up the stored distributions.

    `kl_index` [positions, 2] says (row, place of the predicted token); `kl_ids` and `kl_logprobs`
    are [positions, k].
    """

    def __init__(self, pad_id: int) -> None:
        """`pad_id` fills the right side of short rows; it is masked out."""
        self.pad_id = pad_id

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Rows of {input_ids, labels, start, top_ids, top_logprobs} to tensors."""
        longest = max(len(row["input_ids"]) for row in rows)

        def padded(values: Callable[[dict[str, Any]], list[int]], fill: int) -> torch.Tensor:
            filled = [values(row) + [fill] * (longest - len(row["input_ids"])) for row in rows]
            return torch.tensor(filled)

        index = [
            (number, row["start"] + offset)
            for number, row in enumerate(rows)
            for offset in range(len(row["top_ids"]))
        ]
        k = max((len(top) for row in rows for top in row["top_ids"]), default=1)
        return {
            "input_ids": padded(lambda row: row["input_ids"], self.pad_id),
            "labels": padded(lambda row: row["labels"], IGNORED),
            "attention_mask": padded(lambda row: [1] * len(row["input_ids"]), 0),
            "kl_index": torch.tensor(index, dtype=torch.long).reshape(-1, 2),
            "kl_ids": torch.tensor([t for row in rows for t in row["top_ids"]])
            .long()
            .reshape(-1, k),
            "kl_logprobs": torch.tensor(
                [p for row in rows for p in row["top_logprobs"]], dtype=torch.float32
            ).reshape(-1, k),
        }


def divergence(logits: torch.Tensor, ids: torch.Tensor, logprobs: torch.Tensor) -> torch.Tensor:
    """KL(stored || student) per position, with one bucket for the tokens outside the top k.

    Args:
        logits: the student's, [positions, vocabulary].
        ids: the stored tokens, [positions, k].
        logprobs: their stored log-probabilities, [positions, k].

    Returns:
        [positions], in nats.
    """
    student = torch.log_softmax(logits.float(), dim=-1).gather(1, ids)
    inside = logprobs.exp()
    kl = (inside * (logprobs - student)).sum(-1)
    rest = (1 - inside.sum(-1)).clamp(min=1e-6)
    student_rest = (1 - student.exp().sum(-1)).clamp(min=1e-6)
    return kl + rest * (rest.log() - student_rest.log())


class LessonTrainer(SFTTrainer):
    """SFTTrainer plus the KL term."""

    locality_weight: float = 1.0

    def _set_signature_columns_if_needed(self) -> None:
        # Trainer drops columns that the model's forward does not name; the stored ones must stay.
        self._signature_columns = ["input_ids", "labels", "start", "top_ids", "top_logprobs"]

    def compute_loss(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        model: Any,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Cross-entropy on completions plus `locality_weight` times the mean divergence."""
        outputs = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            use_cache=False,
        )
        labels = inputs["labels"][:, 1:]
        spoken = labels != IGNORED
        loss = outputs.logits.new_zeros((), dtype=torch.float32)
        if spoken.any():
            chosen = outputs.logits[:, :-1][spoken].float()
            loss = torch.nn.functional.cross_entropy(chosen, labels[spoken])
        if len(inputs["kl_index"]) and self.locality_weight > 0:
            row, place = inputs["kl_index"].T
            kl = divergence(outputs.logits[row, place - 1], inputs["kl_ids"], inputs["kl_logprobs"])
            loss = loss + self.locality_weight * kl.mean()
        return (loss, outputs) if return_outputs else loss


class _Progress(TrainerCallback):
    def __init__(self, report: Callable[[int, int, float], None]) -> None:
        self.report = report

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if logs and "loss" in logs:
            self.report(state.global_step, state.max_steps, logs["loss"])


def train(
    holder: HasWeights,
    lessons: Sequence[Lesson],
    options: SftOptions,
    workshop: Workshop,
    method: str,
) -> DeltaEdit:
    """Train on lessons and return what changed; the model itself is as before.

    With `workshop.folder`, a checkpoint is kept there and a killed training goes on from it with
    the same result.
    """
    if options.locality_weight == 0:
        # Plain SFT on the same lessons: what they say, not how likely it was.
        nothing = {"top_ids": (), "top_logprobs": ()}
        lessons = [lesson.model_copy(update=nothing) for lesson in lessons]
    rows = [_row(holder, lesson) for lesson in lessons]
    peft = _adapter(options) if options.tuning == "lora" else None
    keep = options.tuning == "full"
    with tempfile.TemporaryDirectory() as spare, _as_found(holder.model, keep) as before:
        folder = workshop.folder or Path(spare)
        torch.manual_seed(workshop.seed)
        trainer = LessonTrainer(
            model=holder.model,
            args=_config(holder, options, workshop, folder, len(rows)),
            train_dataset=Dataset.from_list(rows),
            data_collator=Collator(_pad_id(holder)),
            processing_class=holder.tokenizer,
            peft_config=peft,
            callbacks=[_Progress(workshop.progress)],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.locality_weight = options.locality_weight
        trained = trainer.model
        try:
            trainer.train(resume_from_checkpoint=_last_checkpoint(folder))
            if isinstance(trained, PeftModel):
                deltas = _low_rank_deltas(trained)
            else:
                deltas = _dense_deltas(holder.model, before)
        finally:
            if isinstance(trained, PeftModel):
                trained.unload()
    return DeltaEdit(deltas, method)


def _last_checkpoint(folder: Path) -> str | None:
    """The newest whole checkpoint; one that a killed process left half-written goes."""
    for place in folder.glob("checkpoint-*"):
        if not (place / "trainer_state.json").exists():  # what the trainer writes last
            shutil.rmtree(place)
    return get_last_checkpoint(str(folder)) if folder.is_dir() else None


def _row(holder: HasWeights, lesson: Lesson) -> dict[str, Any]:
    prompt = holder.renderer.prompt_ids(lesson.chat)
    answer = list(lesson.ids) or holder.renderer.answer_ids(
        lesson.chat, lesson.completion, end=True
    )
    spoken = lesson.spoken or not lesson.top_ids
    return {
        "input_ids": [*prompt, *answer],
        "labels": [IGNORED] * len(prompt) + (answer if spoken else [IGNORED] * len(answer)),
        "start": len(prompt),
        "top_ids": [list(top) for top in lesson.top_ids],
        "top_logprobs": [list(top) for top in lesson.top_logprobs],
    }


def _config(
    holder: HasWeights, options: SftOptions, workshop: Workshop, folder: Path, n_rows: int
) -> SFTConfig:
    on_cpu = holder.model.device.type == "cpu"
    passes = round(options.epochs * math.ceil(n_rows / options.batch_size))
    steps = max(1, options.min_steps, passes)
    with warnings.catch_warnings():
        # `gradient_checkpointing` is the only name that all supported versions know.
        warnings.simplefilter("ignore", FutureWarning)
        return SFTConfig(
            output_dir=str(folder),
            max_steps=steps,
            per_device_train_batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=max(1, steps // 20),
            weight_decay=0.0,
            max_grad_norm=1.0,
            logging_steps=max(1, min(10, steps // 20)),
            save_strategy="steps" if workshop.folder else "no",
            save_steps=max(20, steps // 5),
            save_total_limit=1,
            max_length=None,
            dataset_kwargs={"skip_prepare_dataset": True},
            # bf16 products are about 100 times slower than fp32 on a CPU without AVX512-BF16.
            use_cpu=on_cpu,
            bf16=not on_cpu and holder.model.dtype == torch.bfloat16,
            gradient_checkpointing=False,
            dataloader_num_workers=0,
            report_to="none",
            disable_tqdm=True,
            seed=workshop.seed,
        )


def _adapter(options: SftOptions) -> LoraConfig:
    return LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def _pad_id(holder: HasWeights) -> int:
    pad = holder.tokenizer.pad_token_id
    return pad if isinstance(pad, int) else (holder.renderer.end_id or 0)


def _low_rank_deltas(model: PeftModel) -> dict[str, LowRank | torch.Tensor]:
    """LoRA factors by the base parameter's name, in its orientation (Conv1D is [in, out])."""
    deltas: dict[str, LowRank | torch.Tensor] = {}
    inner: Any = model.base_model.model
    for name, layer in inner.named_modules():
        if isinstance(layer, LoraLayer) and "default" in layer.lora_A:
            adapter: Any = layer
            down = adapter.lora_A["default"].weight.detach().clone()
            up = adapter.lora_B["default"].weight.detach().clone() * adapter.scaling["default"]
            flipped = getattr(layer, "fan_in_fan_out", False)
            deltas[f"{name}.weight"] = LowRank(down.T, up.T) if flipped else LowRank(up, down)
    return deltas


def _dense_deltas(
    model: PreTrainedModel, before: dict[str, torch.Tensor]
) -> dict[str, LowRank | torch.Tensor]:
    return {
        name: (parameter.detach() - before[name]).clone()
        for name, parameter in model.named_parameters()
    }


@contextmanager
def _as_found(model: PreTrainedModel, keep_weights: bool) -> Iterator[dict[str, torch.Tensor]]:
    """Put back all that a trainer changes about a model: flags, configs, its forward, weights."""
    before = {n: p.detach().clone() for n, p in model.named_parameters()} if keep_weights else {}
    wants_grad = {name: p.requires_grad for name, p in model.named_parameters()}
    config, generation = copy.deepcopy(model.config), copy.deepcopy(model.generation_config)
    own_forward = model.__dict__.get("forward")
    training, own_names = model.training, set(model.__dict__)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", message=".*pin_memory.*")
        warnings.filterwarnings("ignore", message=".*fan_in_fan_out.*")
        try:
            yield before
        finally:
            model.__dict__.pop("forward", None)
            if own_forward is not None:
                model.__dict__["forward"] = own_forward
            for name in set(model.__dict__) - own_names:
                del model.__dict__[name]
            model.config.__dict__.update(config.__dict__)
            model.generation_config = generation
            model.train(training)
            for name, parameter in model.named_parameters():
                parameter.requires_grad_(wants_grad[name])
                parameter.grad = None
                if keep_weights:
                    with torch.no_grad():
                        parameter.copy_(before[name])
