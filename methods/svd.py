"""Singular value decompositions of single weights: worked out in fp32, kept on disk if wished.

Only the matrices that a method asks for are decomposed. The files are named by the content of the
weight, so that they serve every run on the same model and never a changed one.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file

from methods.arch import Projection


class Factors(NamedTuple):
    """`u @ diag(s) @ v.T` is the matrix, [out, in]; rank is the smaller of the two sides."""

    u: torch.Tensor
    """[out, rank]"""
    s: torch.Tensor
    """[rank], falling, always fp32."""
    v: torch.Tensor
    """[in, rank]"""

    def cast(self, dtype: torch.dtype) -> Factors:
        """The same with `u` and `v` in another precision; `s` stays fp32."""
        return Factors(self.u.to(dtype), self.s, self.v.to(dtype))

    def largest(self, rank: int) -> Factors:
        """Those of the `rank` largest singular values, as copies; 0 is all, not copied."""
        if rank == 0:
            return self
        return Factors(*(part[..., :rank].clone() for part in self))


def factors_of(projection: Projection, cache: Path | None = None) -> Factors:
    """Decompose one projection on the device where its weight is, or read it from the cache.

    Returns:
        fp32 factors on the weight's device.
    """
    weight = projection.weight.detach()
    if cache is None:
        return _decomposed(projection)
    path = cache / f"svd-{_content(weight, projection.flipped)}.safetensors"
    if not path.exists():
        factors = _decomposed(projection)
        _write(path, factors)
        return factors
    tensors = load_file(path, device=str(weight.device))
    return Factors(tensors["u"], tensors["s"], tensors["v"])


def _decomposed(projection: Projection) -> Factors:
    u, s, vh = torch.linalg.svd(projection.matrix().float(), full_matrices=False)
    # Contiguous, so that a factor from memory and one from the cache give the same bits.
    return Factors(u.contiguous(), s.contiguous(), vh.T.contiguous())


def _content(weight: torch.Tensor, flipped: bool) -> str:
    digest = hashlib.sha256(f"{tuple(weight.shape)} {weight.dtype} {flipped}".encode())
    digest.update(weight.cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


def _write(path: Path, factors: Factors) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_file({key: value.cpu() for key, value in factors._asdict().items()}, name)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
