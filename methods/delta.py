"""Edits of weights as differences: added on entry, taken back bit for bit on exit.

One difference a parameter, either as two thin factors (a low-rank update) or dense. LoRA and the
student are such edits; whatever changes weights later can be, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from methods.base import innermost, weights_of
from ske.io import write_json
from ske.lm import LM, Factors, TakesAdapters
from ske.types import NeedsWeights

FILE = "edit.safetensors"


class LowRank:
    """`up @ down`, [out, in] = [out, rank] @ [rank, in], in the parameter's own orientation."""

    def __init__(self, up: torch.Tensor, down: torch.Tensor) -> None:
        """Keeps the factors as they are."""
        self.up, self.down = up, down

    def dense(self) -> torch.Tensor:
        """The difference itself."""
        return self.up @ self.down


class DeltaEdit:
    """Differences by parameter name."""

    def __init__(self, deltas: dict[str, LowRank | torch.Tensor], method: str) -> None:
        """`method` is the name under which the edit is saved and loaded."""
        self.deltas = deltas
        self.method = method

    @contextmanager
    def applied(self, lm: LM) -> Iterator[LM]:
        """Add the differences; the very bits that were there come back on exit."""
        served = innermost(lm)
        if isinstance(served, TakesAdapters):
            with served.laid(self.factors()):
                yield lm
            return
        holder = weights_of(lm, self.method)
        originals: dict[str, torch.Tensor] = {}
        try:
            for name, delta in self.deltas.items():
                weight = holder.model.get_parameter(name)
                originals[name] = weight.detach().clone()
                dense = delta.dense() if isinstance(delta, LowRank) else delta
                with torch.no_grad():
                    weight += dense.to(weight.device, weight.dtype)
            yield lm
        finally:
            with torch.no_grad():
                for name, original in originals.items():
                    holder.model.get_parameter(name).copy_(original)

    def on(self, earlier: DeltaEdit) -> DeltaEdit:
        """This edit, made on top of an earlier one, and that one, as one edit of this method."""
        both = dict(earlier.deltas)
        for name, delta in self.deltas.items():
            both[name] = _sum(both[name], delta) if name in both else delta
        return DeltaEdit(both, self.method)

    def factors(self) -> dict[str, Factors]:
        """All differences as thin factors.

        Raises:
            NeedsWeights: one is dense.
        """
        thin: dict[str, Factors] = {}
        for name, delta in self.deltas.items():
            if not isinstance(delta, LowRank):
                raise NeedsWeights(
                    f"method {self.method!r} changes all of {name}, which no adapter can hold; "
                    "set model.backend=transformers"
                )
            thin[name] = delta.up, delta.down
        return thin

    def save(self, folder: Path) -> None:
        """Write `edit.safetensors` (factors or differences) and `edit.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, torch.Tensor] = {}
        for name, delta in self.deltas.items():
            if isinstance(delta, LowRank):
                tensors[f"{name}::up"] = delta.up.contiguous()
                tensors[f"{name}::down"] = delta.down.contiguous()
            else:
                tensors[f"{name}::dense"] = delta.contiguous()
        save_file(tensors, folder / FILE)
        write_json(folder / "edit.json", {"form": "delta", "method": self.method})

    @staticmethod
    def load(folder: Path) -> DeltaEdit:
        """Read what `save` wrote."""
        tensors = load_file(folder / FILE)
        deltas: dict[str, LowRank | torch.Tensor] = {}
        for key in sorted(tensors):
            name, part = key.split("::")
            if part == "dense":
                deltas[name] = tensors[key]
            elif part == "up":
                deltas[name] = LowRank(tensors[key], tensors[f"{name}::down"])
        method = json.loads((folder / "edit.json").read_text(encoding="utf-8"))["method"]
        return DeltaEdit(deltas, method)


def _sum(one: LowRank | torch.Tensor, other: LowRank | torch.Tensor) -> LowRank | torch.Tensor:
    """Two differences of one parameter; thin as long as both are and that takes less room."""
    if isinstance(one, LowRank) and isinstance(other, LowRank):
        up = torch.cat([one.up.to(other.up), other.up], 1)
        down = torch.cat([one.down.to(other.down), other.down])
        if up.shape[1] * (up.shape[0] + down.shape[1]) < up.shape[0] * down.shape[1]:
            return LowRank(up, down)
        return up @ down
    first, second = (d.dense() if isinstance(d, LowRank) else d for d in (one, other))
    return first.to(second) + second
