"""A finished SVF edit: one number z a singular value, and how it is laid on a model.

The saved file holds the z and nothing else: a few hundred thousand numbers for a model of 8 B.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from transformers.modeling_utils import PreTrainedModel

from methods.arch import Projection, Targets, projections
from methods.base import weights_of
from methods.svd import Factors, factors_of
from methods.svf_layers import FactorSpace, merged, scaled
from ske.io import write_json
from ske.lm import LM
from ske.types import Frozen, UserError

FILE = "edit.safetensors"

Z = Mapping[str, torch.Tensor]
"""By the weight's name: [rank], fp32, 1 leaves a singular value as it is."""


class Laying(Frozen):
    """How z is laid on a model."""

    renormalise: bool = True
    """Keep the sum of each matrix' singular values, as the authors' code does."""
    apply: Literal["merge", "factors"] = "merge"
    """Change the weights (fast), or answer in factor space (no copy of a weight; more precise in
    bf16, where a weight cannot take up small changes)."""
    rank: int = 0
    """z is for so many of the largest singular values; 0 is for all."""


Using = Callable[[Z], AbstractContextManager[None]]


class SvfEdit:
    """One z for all questions."""

    def __init__(
        self,
        z: Z,
        laying: Laying,
        facts: Mapping[str, Any] | None = None,
        cache: Path | None = None,
    ) -> None:
        """`facts` are written beside the z; `cache` is where decompositions are kept."""
        self.z, self.laying = z, laying
        self.facts = dict(facts or {})
        self.cache = cache

    @contextmanager
    def applied(self, lm: LM) -> Iterator[LM]:
        """Scale the singular values of the weights that are there, whatever edited them before.

        Raises:
            UserError: the model has no such projections, or of another size.
        """
        model = weights_of(lm, "svf").model
        with opened(model, self.z, self.laying, self.cache, keep=False) as using, using(self.z):
            yield lm

    def save(self, folder: Path) -> None:
        """Write `edit.safetensors` (z alone) and `edit.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in self.z.items()}, folder / FILE)
        about = {"form": "svf", "method": "svf", "laying": self.laying.model_dump(), **self.facts}
        write_json(folder / "edit.json", about)

    @staticmethod
    def load(folder: Path) -> SvfEdit:
        """Read what `save` wrote."""
        about = json.loads((folder / "edit.json").read_text(encoding="utf-8"))
        rest = {key: about[key] for key in about if key not in ("form", "method", "laying")}
        return SvfEdit(load_file(folder / FILE), Laying(**about["laying"]), rest)


@contextmanager
def opened(
    model: PreTrainedModel, z: Z, laying: Laying, cache: Path | None, keep: bool = True
) -> Iterator[Using]:
    """Make a model ready for z of these names; what is yielded lays one z on it at a time.

    Without `keep`, and merging, factors are made when they are used and dropped at once.
    """
    chosen = named(model, z, laying.rank)
    parts = ((one, factors_of(one, cache).largest(laying.rank)) for one in chosen)
    if laying.apply == "factors":
        with FactorSpace(parts, beside=True).installed() as space:

            def using(one: Z) -> AbstractContextManager[None]:
                return space.using(
                    {n: scaled(f, one[n], laying.renormalise) for n, f in space.factors.items()}
                )

            yield using
        return
    kept = list(parts) if keep else None

    def merging(one: Z) -> AbstractContextManager[None]:
        return merged(
            model, kept or parts, lambda name, f: scaled(f, one[name], laying.renormalise)
        )

    yield merging


def named(model: PreTrainedModel, z: Z, rank: int = 0) -> list[Projection]:
    """The projections that z is for, in the model's order.

    Raises:
        UserError: one is missing, or has another number of singular values (of `rank`, if not 0).
    """
    chosen = [one for one in projections(model, "all") if one.name in z]
    if missing := z.keys() - {one.name for one in chosen}:
        raise UserError(
            f"this svf edit is for {min(missing)}, which {type(model).__name__} has not; "
            "apply it to the model that it was made on"
        )
    for one in chosen:
        size = min(one.weight.shape)
        if len(z[one.name]) != min(rank or size, size):
            raise UserError(
                f"this svf edit has {len(z[one.name])} numbers for {one.name}, which has "
                f"{size} singular values; apply it to the model it was made on"
            )
    return chosen


def parts_of(
    model: PreTrainedModel, targets: Targets, cache: Path | None, rank: int = 0
) -> Iterator[tuple[Projection, Factors]]:
    """The targeted projections with their factors, decomposed one at a time; see `largest`."""
    for projection in projections(model, targets):
        yield projection, factors_of(projection, cache).largest(rank)
