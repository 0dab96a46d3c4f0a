"""TRL's SFTTrainer on rows: cross-entropy plus divergence, and checkpoints of what is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.modeling_utils import unwrap_model
from trl.trainer.sft_trainer import SFTTrainer

from methods.hooks import only_at
from methods.rows import IGNORED, divergence

WEIGHTS = "trained.safetensors"
_SHOWN = ("attention_mask", "position_ids")
"""What of a batch a model is shown beside the ids: one of the two."""


class LessonTrainer(SFTTrainer):
    """SFTTrainer plus the KL term."""

    locality_weight: float = 1.0
    trained_weights: tuple[str, ...] | None = None
    """The only weights that are trained, so the only ones a checkpoint must hold; None is all."""

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
        """Cross-entropy on completions plus `locality_weight` times the mean divergence.

        Logits are made where something is learned alone: `outputs.logits` is [1, places, words].
        """
        labels = inputs["labels"]
        # A first token's label is ignored: nothing predicts it.
        spoken, stored = (labels != IGNORED).nonzero(), inputs["kl_index"]
        said, held = _shares(len(spoken), len(stored), labels.device)
        row, place = torch.cat([spoken, stored]).T
        inner: Any = unwrap_model(model)
        with only_at(inner.get_output_embeddings(), row, place - 1):
            outputs = model(
                input_ids=inputs["input_ids"],
                **{name: inputs[name] for name in _SHOWN if name in inputs},
                use_cache=False,
            )
        logits = outputs.logits[0].float()
        loss = logits.new_zeros(())
        if len(spoken):
            answers = labels[*spoken.T]
            loss = said * torch.nn.functional.cross_entropy(logits[: len(spoken)], answers)
        if len(stored) and self.locality_weight > 0:
            kl = divergence(logits[len(spoken) :], inputs["kl_ids"], inputs["kl_logprobs"])
            loss = loss + held * self.locality_weight * kl.mean()
        return (loss, outputs) if return_outputs else loss

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if self.trained_weights is None:
            super()._save(output_dir, state_dict)
            return
        # One matrix of a model of billions: a checkpoint of the whole would be a hundred times it.
        assert self.model is not None
        folder = Path(output_dir or self.args.output_dir or ".")
        folder.mkdir(parents=True, exist_ok=True)
        parameters = {name: self.model.get_parameter(name) for name in self.trained_weights}
        save_file({n: p.detach().contiguous() for n, p in parameters.items()}, folder / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self.trained_weights is None:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        assert self.model is not None
        with torch.no_grad():
            for name, value in load_file(Path(resume_from_checkpoint) / WEIGHTS).items():
                self.model.get_parameter(name).copy_(value)


def _shares(spoken: int, stored: int, device: torch.device) -> tuple[float, float]:
    """What this process's two means count: 1 if it is alone.

    Processes average their gradients. A mean over the tokens of all of them is the average of
    their own means only if each has as many tokens; otherwise, of means weighted by these.
    """
    if not dist.is_available() or not dist.is_initialized():
        return 1.0, 1.0
    own = torch.tensor([spoken, stored], dtype=torch.float64, device=device)
    everybody = own.clone()
    dist.all_reduce(everybody)
    said, held = (own * dist.get_world_size() / everybody.clamp(min=1)).tolist()
    return said, held


class Progress(TrainerCallback):
    """Tells (step, steps, loss) to whoever watches."""

    def __init__(self, report: Callable[[int, int, float], None]) -> None:
        """`report` may raise, which stops the training."""
        self.report = report

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """After some steps, with their mean loss."""
        if logs and "loss" in logs:
            self.report(state.global_step, state.max_steps, logs["loss"])
