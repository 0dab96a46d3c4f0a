"""Second moments of what a module sees: C = E[k k^T], uncentred, over general text.

ROME, MEMIT and AlphaEdit protect what a layer already stores by this statistic (Meng et al. 2022,
arXiv 2202.05262, section 3.1, equation 2). The papers take it from Wikipedia; here it comes from
`workshop.texts` if there are any, else from texts sampled from the model itself.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers.modeling_utils import PreTrainedModel

from methods.arch import Projection
from methods.base import HasWeights, Workshop
from methods.hooks import Ids, Site, at_rest, batches, padded, stream, wide
from methods.sampling import sample
from ske.backends.render import Renderer
from ske.lm import ask
from ske.types import Field, Frozen, UserError, content_hash

_RIDGES = (1e-10, 1e-8, 1e-6)
"""Of the mean eigenvalue. Far below any other, but few or dead keys leave C singular, up to the
rounding of fp32 products."""
_SAMPLED_AT_ONCE = 256


class Moment:
    """A running sum of k k^T in fp64, and how many keys are in it."""

    def __init__(self, total: torch.Tensor, count: int = 0) -> None:
        """`total` is [width, width]."""
        self.total, self.count = total, count
        self._factor: torch.Tensor | None = None

    @staticmethod
    def empty(width: int, device: torch.device) -> Moment:
        """Of no keys."""
        return Moment(torch.zeros(width, width, dtype=torch.float64, device=device))

    def add(self, keys: torch.Tensor) -> None:
        """Count in keys [n, width]: products in fp32 or better, their sum in fp64."""
        keys = wide(keys)
        self.total += (keys.T @ keys).double()
        self.count += len(keys)
        self._factor = None

    def merge(self, other: Moment) -> None:
        """Count in what another shard counted."""
        self.total += other.total
        self.count += other.count
        self._factor = None

    def mean(self) -> torch.Tensor:
        """C, [width, width], fp64."""
        return self.total / max(1, self.count)

    def solve(self, keys: torch.Tensor) -> torch.Tensor:
        """C^-1 keys, fp64, for keys [width, n]; C is factorised once."""
        return torch.cholesky_solve(keys.double(), self.factor())

    def factor(self) -> torch.Tensor:
        """C's Cholesky factor, [width, width], fp64, with the ridge that C needs to have one."""
        if self._factor is None:
            self._factor = self._factorised()
        return self._factor

    def _factorised(self) -> torch.Tensor:
        """C's Cholesky factor, with the smallest ridge that will do."""
        for ridge in _RIDGES:
            moment = self.mean()
            moment.diagonal().add_(ridge * moment.diagonal().mean())
            factor, failed = torch.linalg.cholesky_ex(moment)
            if not failed.item():
                return factor
        raise UserError(
            f"the second moment of {self.count} keys of width {len(self.total)} has no inverse; "
            "give more texts (options moment_texts, moment_tokens)"
        )


class TextOptions(Frozen):
    """How much text the statistic is taken from."""

    moment_texts: int = Field(default=1024, ge=1)
    """Statistics are taken over at most so many texts (the authors: 100,000 of Wikipedia)."""
    moment_tokens: int = Field(default=128, ge=1)
    """At most so many tokens of each text."""
    batch_tokens: int = Field(default=8192, ge=1)
    """Bounds rows x length of a forward pass."""


def moments(
    holder: HasWeights,
    projections: Sequence[Projection],
    options: TextOptions,
    workshop: Workshop,
) -> list[Moment]:
    """The second moment of every projection's input, all in one pass; cached by content."""
    paths = _places(holder, projections, options, workshop)
    missing = [
        p for p, path in zip(projections, paths, strict=True) if not (path and path.exists())
    ]
    counted: dict[str, Moment] = {}
    if missing:
        rows = _rows(holder, options, workshop)
        counted = dict(
            zip(
                [p.name for p in missing],
                count(holder.model, missing, rows, options.batch_tokens),
                strict=True,
            )
        )
    found = []
    for projection, path in zip(projections, paths, strict=True):
        if projection.name in counted:
            found.append(counted[projection.name])
            if path:
                _save(counted[projection.name], path)
        elif path:
            found.append(_load(path, holder.model.device))
    return found


def count(
    model: PreTrainedModel, projections: Sequence[Projection], rows: Sequence[Ids], tokens: int
) -> list[Moment]:
    """Second moments over rows of token ids, every token but padding; `tokens` bounds a batch."""
    sums = [Moment.empty(p.inputs, model.device) for p in projections]
    sites = [Site(p.module, "in") for p in projections]
    with at_rest(model):
        for batch in batches([len(row) for row in rows], tokens):
            inputs = padded([rows[i] for i in batch], model.device)
            real = inputs.mask.bool()

            def take(number: int, values: torch.Tensor, real: torch.Tensor = real) -> None:
                sums[number].add(values[real])

            stream(model, inputs, sites, take)
    return sums


def _rows(holder: HasWeights, options: TextOptions, workshop: Workshop) -> list[list[int]]:
    """Texts as token ids: as they are, without a chat around them."""
    plain = Renderer(holder.tokenizer, "plain")
    if workshop.texts is not None:
        texts = list(workshop.texts())[: options.moment_texts]
        rows = [plain.prompt_ids(ask(text))[: options.moment_tokens] for text in texts if text]
        if not rows:
            raise UserError("no text to take statistics of; leave texts away to sample them")
        return rows
    start = plain.prompt_ids(ask(""))
    rows = []
    with at_rest(holder.model):
        for begun in range(0, options.moment_texts, _SAMPLED_AT_ONCE):
            starts = [start] * min(_SAMPLED_AT_ONCE, options.moment_texts - begun)
            # One seed for all: the statistic belongs to the model, not to an edit.
            rows += sample(holder.model, starts, options.moment_tokens, begun, end_id=plain.end_id)
    return rows


# -- cache ----------------------------------------------------------------------------------------


def _places(
    holder: HasWeights,
    projections: Sequence[Projection],
    options: TextOptions,
    workshop: Workshop,
) -> list[Path | None]:
    """The file of each moment, named by all that it depends on; None without a cache."""
    if workshop.cache is None:
        return [None] * len(projections)
    texts = None if workshop.texts is None else list(workshop.texts())[: options.moment_texts]
    key = {
        "version": 1,
        "weights": weights_hash(holder.model),
        "texts": texts,
        "n": [options.moment_texts, options.moment_tokens],
    }
    return [
        workshop.cache / f"moment-{content_hash({**key, 'weight': projection.name})}.safetensors"
        for projection in projections
    ]


def weights_hash(model: PreTrainedModel) -> str:
    """A hash of every weight's name and bits."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        bits: Any = value.detach().contiguous().reshape(-1).view(torch.uint8).cpu().numpy()
        digest.update(bits)
    return digest.hexdigest()


def _save(moment: Moment, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two processes may want the same one: each writes its own and moves it there.
    spare = path.with_suffix(f".{os.getpid()}")
    tensors = {"total": moment.total.cpu(), "count": torch.tensor(moment.count)}
    save_file(tensors, spare)
    spare.replace(path)


def _load(path: Path, device: torch.device) -> Moment:
    tensors = load_file(path, device=str(device))
    return Moment(tensors["total"], int(tensors["count"].item()))
