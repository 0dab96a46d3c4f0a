"""Practice about invented people, and small things around MEND that its tests share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tiny
import torch

from methods.arch import Projection
from methods.base import Practice, Workshop
from methods.delta import DeltaEdit, LowRank
from methods.mend_factors import (
    Batch,
    Factors,
    collate,
    mlp_matrices,
)
from methods.mend_training import MendOptions, Trainer, drills, row
from methods.mend_transform import Transforms
from ske.backends.local import LocalLM
from ske.lm import ask
from ske.types import Fact

BOTH = ("qwen3", "gpt2")
SMALL: dict[str, Any] = {"layers": 1, "rank": 8, "learning_rate": 1e-3, "edit_lr": 1e-3}
PEOPLE = ("Ada Cole", "Bela Byron", "Cara Vell", "Dora Works", "Ellen London", "Fay Acme")


def practice() -> list[Practice]:
    return [
        Practice(
            fact=Fact(
                id=name,
                subject=name,
                prompt=f"The place of birth of {name} is",
                target_new="Vell" if number % 2 else "London",
            ),
            paraphrases=(f"{name} is of the capital",),
            unrelated=((f"The employer of {name} is", "Acme Works"), ("The head of", "state")),
        )
        for number, name in enumerate(PEOPLE)
    ]


def workshop(**rest: Any) -> Workshop:
    return Workshop(seed=3, practice=practice, **rest)


def batch_of(lm: LocalLM, facts: Sequence[Fact] = tiny.FACTS) -> Batch:
    rows = [row(lm, ask(fact.prompt), fact.target_new) for fact in facts]
    return collate(rows, 0, lm.device)


def dense(factors: Factors) -> torch.Tensor:
    """[out, in]"""
    return torch.einsum("eto,eti->oi", factors.deltas, factors.inputs)


def untrained(lm: LocalLM, normalise: bool, edit_lr: float) -> tuple[list[Projection], Transforms]:
    matrices = mlp_matrices(lm.model, 2)
    generator = torch.Generator().manual_seed(5)
    return matrices, Transforms(matrices, 1920, edit_lr, generator, normalise)


def wave(*shape: int, f: float) -> torch.Tensor:
    """Numbers that any code can make: sin(f), sin(2 f), ..."""
    steps = torch.arange(1, torch.Size(shape).numel() + 1, dtype=torch.float64)
    return torch.sin(f * steps).reshape(shape).float()


def trainer(lm: LocalLM, **options: Any) -> Trainer:
    chosen = MendOptions.model_validate({**SMALL, "batch_size": 4, "epochs": 12, **options})
    matrices = mlp_matrices(lm.model, chosen.layers)
    generator = torch.Generator().manual_seed(0)
    transforms = Transforms(matrices, chosen.rank, chosen.edit_lr, generator, chosen.normalise)
    return Trainer(lm, matrices, transforms, drills(lm, practice()), chosen, seed=0)


def silent(step: int, total: int, loss: float) -> None:
    pass


def deltas(edit: DeltaEdit) -> dict[str, torch.Tensor]:
    return {n: d.dense() if isinstance(d, LowRank) else d for n, d in edit.deltas.items()}
