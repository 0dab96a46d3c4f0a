"""MEND's files: a finished transform, and a training that can go on after it was killed.

Both are safetensors files, renamed into place when whole, with plain numbers in their metadata.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from methods.mend_transform import Transforms


class Progress(NamedTuple):
    """How far a training is."""

    step: int
    best_step: int
    best_loss: float
    last_loss: float
    best: dict[str, torch.Tensor]
    """The state of the transforms at `best_step`."""
    waited: int = 0
    """Validations since then."""


def save_transforms(path: Path, transforms: Transforms, progress: Progress) -> None:
    """Write a trained transform."""
    numbers = {"step": str(progress.step), "best_step": str(progress.best_step)}
    _write(path, dict(transforms.state_dict()), numbers | {"loss": repr(progress.best_loss)})


def load_transforms(path: Path | None, transforms: Transforms) -> bool:
    """Read a trained transform into `transforms`; False if there is none."""
    if path is None or not path.exists():
        return False
    tensors, _ = _read(path)
    transforms.load_state_dict(tensors)
    return True


def save_progress(
    path: Path, transforms: Transforms, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    """Write all that a training needs to go on: now, best, and the optimizer's moments."""
    tensors = {f"now:{name}": value for name, value in transforms.state_dict().items()}
    tensors |= {f"best:{name}": value for name, value in progress.best.items()}
    for number, moments in optimizer.state_dict()["state"].items():
        tensors |= {f"adam:{number}:{name}": value for name, value in moments.items()}
    numbers = progress._replace(best={})._asdict()
    del numbers["best"]
    _write(path, tensors, {name: repr(value) for name, value in numbers.items()})


def load_progress(
    path: Path | None, transforms: Transforms, optimizer: torch.optim.Optimizer
) -> Progress | None:
    """Read what `save_progress` wrote into transforms and optimizer; None if there is nothing."""
    if path is None or not path.exists():
        return None
    tensors, numbers = _read(path)
    parts: dict[str, dict[str, torch.Tensor]] = {"now": {}, "best": {}, "adam": {}}
    for key, value in tensors.items():
        part, name = key.split(":", 1)
        parts[part][name] = value
    transforms.load_state_dict(parts["now"])
    state = optimizer.state_dict()
    state["state"] = {}
    for key, value in parts["adam"].items():
        number, name = key.split(":")
        state["state"].setdefault(int(number), {})[name] = value
    optimizer.load_state_dict(state)
    device = transforms.edit_lrs.device
    return Progress(
        int(numbers["step"]),
        int(numbers["best_step"]),
        float(numbers["best_loss"]),
        float(numbers["last_loss"]),
        {name: value.to(device) for name, value in parts["best"].items()},
        int(numbers["waited"]),
    )


def _write(path: Path, tensors: dict[str, torch.Tensor], numbers: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        save_file(whole, temporary, metadata=numbers)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
