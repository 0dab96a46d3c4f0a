"""SVF's step by the authors' code and by ours: seconds and bytes, at full rank, as theirs is.

Theirs composes every scaled weight, reads the examples one by one, and chains the gradients of the
composed weights to its parameters. It calls for every parameter of an MLP to be a matrix, so it is
run on the Llama alone. bfloat16, which a CPU is slow at, is replaced by fp32; a reward of 1 makes
its loss the cross-entropy.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.authors.excerpt import excerpt
from bench.authors.models import corrections
from bench.memory import held, megabytes
from bench.row import Row
from bench.shapes import random_model
from bench.svf import in_factor_space
from bench.timing import Work, paired
from methods.hooks import at_rest
from methods.svd import Factors
from methods.svf_edit import parts_of
from methods.svf_losses import Row as Tokens
from methods.svf_losses import row_of
from ske.backends.local import LocalLM
from ske.lm import ask

BATCH, SAME = 4, 1e-3
FP32 = {"torch.bfloat16": "torch.float32"}


def svf(folder: Path) -> list[Row]:
    """Of one gradient step over a few facts."""
    lm = random_model("middle")
    rows = [row_of(lm, ask(fact.prompt), fact.target_new) for fact in corrections(BATCH)]
    parts = list(parts_of(lm.model, "mlp", None))
    factors = {one.name: f for one, f in parts}
    theirs = _Theirs(folder, lm, factors, rows)
    # Their parameter goes through a sigmoid, and what comes out of it is our z.
    z = {name: torch.sigmoid(own.detach()) for name, own in theirs.raw.items()}

    # Our loss is a token's, theirs a row's.
    share = sum(len(row.ids) - row.start for row in rows) / len(rows)

    def ours() -> dict[str, torch.Tensor]:
        with at_rest(lm.model):
            gradients = in_factor_space(lm, parts, z, rows, 0)
        return {name: own * share * z[name] * (1 - z[name]) for name, own in gradients.items()}

    with theirs.weights_of_its_own():
        published = held(theirs.step, lm.device)
    mine = held(ours, lm.device)
    off = max(_off(own, published.gave[name]) for name, own in mine.gave.items())
    wrong = f"gradients differ by {off:.2g} of the largest" if off > SAME else ""
    found = paired(Work(ours), Work(theirs.alone))
    bytes_ours, bytes_theirs = megabytes(mine.peak), megabytes(published.peak)
    what = f"SVF step, llama, {BATCH} facts, full rank"
    return [
        Row(f"{what}: time", *found.seconds(), found.ratios, at_least=1, wrong=wrong),
        Row(f"{what}: bytes", bytes_ours, bytes_theirs, [mine.peak / published.peak], at_most=1),
    ]


class _Theirs:
    """One step of theirs: compose, read, chain."""

    def __init__(
        self, folder: Path, lm: LocalLM, factors: dict[str, Factors], rows: list[Tokens]
    ) -> None:
        scope: dict[str, Any] = {"torch": torch, "nn": nn}
        excerpt(folder / "policy" / "base.py", {"Policy"}, scope, FP32)
        excerpt(folder / "utils.py", {"compose_new_params", "forward", "backward"}, scope)
        self.lm, self.rows, self.scope = lm, rows, scope
        self.base = {name: lm.model.get_parameter(name).detach() for name in factors}
        torch.manual_seed(0)
        with contextlib.redirect_stdout(io.StringIO()):
            self.policy = scope["Policy"](self.base, lm.device, 0.1)
        self.decomposed = {
            f"{name}.{part.upper()}": getattr(own, part)
            for name, own in factors.items()
            for part in Factors._fields
        }

    @property
    def raw(self) -> dict[str, torch.Tensor]:
        """What they train."""
        return self.policy.learnable_params

    def step(self) -> dict[str, torch.Tensor]:
        """d loss / d raw of the mean cross-entropy."""
        told = (self.policy, self.lm.model, self.base, self.decomposed, self.raw)
        self.policy.zero_grad()
        self.scope["forward"](*told)
        for row in self.rows:
            ids = torch.tensor([row.ids], device=self.lm.device)
            log_p = torch.log_softmax(self.lm.model(ids).logits[:, row.start - 1 : -1], dim=-1)
            likelihood = log_p.gather(2, ids[:, row.start :].unsqueeze(-1)).sum()
            (-likelihood / len(self.rows)).backward()
        self.scope["backward"](*told)
        gave = {name: _gradient(own) for name, own in self.raw.items()}
        self.lm.model.zero_grad()
        return gave

    def alone(self) -> dict[str, torch.Tensor]:
        """The step, and the model as it was."""
        with self.weights_of_its_own():
            return self.step()

    @contextlib.contextmanager
    def weights_of_its_own(self) -> Iterator[None]:
        """They write into the model's weights and want gradients of them: on copies."""
        parameters = {name: self.lm.model.get_parameter(name) for name in self.base}
        for parameter in parameters.values():
            parameter.data = parameter.data.clone()
            parameter.requires_grad_(True)
        try:
            yield
        finally:
            for name, parameter in parameters.items():
                parameter.data = self.base[name]
                parameter.grad = None
                parameter.requires_grad_(False)


def _gradient(own: torch.Tensor) -> torch.Tensor:
    assert own.grad is not None
    return own.grad.clone()


def _off(mine: torch.Tensor, published: torch.Tensor) -> float:
    return ((mine - published).abs().max() / published.abs().max()).item()
