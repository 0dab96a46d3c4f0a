"""The value vector of a fact: what, said at the subject's last token, makes the target come out.

Meng et al. 2022 (ROME, section 3.1, equation 4) and 2023 (MEMIT, arXiv 2210.07229, section 4.2).
All facts of a batch are optimised in the same forward passes. Adam works element by element, the
facts' losses are summed, and each fact stops and is clamped by itself, so its vector is what it
would be alone. Only the facts that are not done yet are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from methods.base import HasWeights
from methods.hooks import adding, at_rest, batches, only_at, padded, wide
from methods.keyvalue import Asked, KeyValueOptions, Query
from ske.types import UserError


class _Batch(NamedTuple):
    """The rows of some facts as tensors; `n` target tokens, `m` facts."""

    inputs: dict[str, Any]
    owner: torch.Tensor
    """Which fact each row belongs to, [rows]."""
    subject: torch.Tensor
    """Where each row's subject ends, [rows]."""
    row: torch.Tensor
    """The row of each place whose logits are needed, [n + m]; the last m are the KL term's."""
    place: torch.Tensor
    """[n + m]"""
    token: torch.Tensor
    """What is to be said there, [n]."""
    fact: torch.Tensor
    """Whose it is, [n]."""
    weight: torch.Tensor
    """A mean over a fact's contexts of the mean over its target's tokens, [n]."""


def changes(
    holder: HasWeights,
    module: nn.Module,
    before: torch.Tensor,
    queries: Sequence[Query],
    options: KeyValueOptions,
    progress: Callable[[int, int, float], None] = lambda step, total, loss: None,
) -> torch.Tensor:
    """What to add to a module's output at the subjects' last tokens.

    Args:
        holder: the model; its weights stay as they are.
        module: whose output is changed: an MLP (ROME) or a whole layer (MEMIT).
        before: that output at each bare prompt, [facts, hidden]. Its norm scales clamp and decay.
        queries: the facts.
        options: steps, rates and weights.
        progress: told of every step.

    Returns:
        [facts, hidden], at least fp32.
    """
    found = torch.zeros_like(before)
    sizes = [len(q.rows) * max(len(r.prompt) + len(r.answer) for r in q.rows) for q in queries]
    chunks = list(batches(sizes, options.batch_tokens))
    with at_rest(holder.model), torch.enable_grad():
        for number, chunk in enumerate(chunks):

            def report(step: int, loss: float, number: int = number) -> None:
                progress(number * options.steps + step, len(chunks) * options.steps, loss)

            part = [queries[i] for i in chunk]
            found[chunk] = _descend(holder, module, before[chunk], part, options, report)
    return found


def _descend(
    holder: HasWeights,
    module: nn.Module,
    before: torch.Tensor,
    queries: Sequence[Query],
    options: KeyValueOptions,
    report: Callable[[int, float], None],
) -> torch.Tensor:
    """Adam, until each fact's loss is low enough or the steps are used up."""
    norms = before.norm(dim=1)
    delta = torch.zeros_like(before, requires_grad=True)
    adam = torch.optim.Adam([delta], lr=options.learning_rate)
    active = torch.arange(len(queries), device=before.device)
    batch = _tensors(holder, queries)
    essence = torch.empty(0)
    for step in range(options.steps):
        nll, spoken = _losses(holder, module, batch, delta[active])
        if step == 0:
            essence = spoken.detach()
        # KL(edited || before), the way round the authors' code has it.
        kl = (spoken.exp() * (spoken - essence)).sum(-1)
        size = delta[active].norm(dim=1)
        losses = nll + options.kl_weight * kl + options.weight_decay * size / norms[active] ** 2
        report(step + 1, losses.mean().item())
        going = losses.detach() >= options.stop_loss
        if step == options.steps - 1 or not going.any():
            break
        (delta.grad,) = torch.autograd.grad(losses[going].sum(), delta)
        if not going.all():
            active, essence = active[going], essence[going]
            batch = _tensors(holder, [queries[i] for i in active.tolist()])
        _step(adam, delta, active, options.clamp * norms)
    return delta.detach()


@torch.no_grad()
def _step(
    adam: torch.optim.Adam, delta: torch.Tensor, active: torch.Tensor, longest: torch.Tensor
) -> None:
    """One step of the facts that go on; momentum must not carry those that are done."""
    held = delta.clone()
    adam.step()
    moved = delta[active]
    scale = (longest[active] / moved.norm(dim=1).clamp(min=1e-30)).clamp(max=1.0)
    held[active] = moved * scale[:, None]
    delta.copy_(held)


def _losses(
    holder: HasWeights, module: nn.Module, batch: _Batch, delta: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each fact's target loss, [m], and log-probabilities at its KL place, [m, vocabulary]."""
    head = holder.model.get_output_embeddings()
    assert isinstance(head, nn.Module)
    numbers = torch.arange(len(batch.owner), device=delta.device)
    with (
        adding(module, numbers, batch.subject, delta[batch.owner]),
        only_at(head, batch.row, batch.place),
    ):
        logits = holder.model(**batch.inputs).logits[0]
    n = len(batch.token)
    log_p = torch.log_softmax(wide(logits), dim=-1)
    nll = -log_p[:n].gather(1, batch.token[:, None])[:, 0] * batch.weight
    return torch.zeros_like(delta[:, 0]).index_add(0, batch.fact, nll.to(delta.dtype)), log_p[n:]


def _tensors(holder: HasWeights, queries: Sequence[Query]) -> _Batch:
    """Rows: every context of every fact, then every fact's KL prompt."""
    rows: list[list[int]] = []
    owner, subject, at, wanted = [], [], [], []

    def put(number: int, asked: Asked, ids: list[int]) -> int:
        rows.append(ids)
        owner.append(number)
        subject.append(asked.place)
        return len(rows) - 1

    for number, one in enumerate(queries):
        for asked in one.rows:
            if not asked.answer:
                raise UserError("a fact has no target: target_new is empty; erase it by a text")
            row = put(number, asked, [*asked.prompt, *asked.answer[:-1]])
            share = 1 / len(one.rows) / len(asked.answer)
            for place, token in enumerate(asked.answer, start=len(asked.prompt) - 1):
                at.append((row, place))
                wanted.append((token, number, share))
    for number, one in enumerate(queries):
        at.append((put(number, one.essence, one.essence.beginning), one.essence.place))
    device = holder.model.device
    tensor = lambda values: torch.tensor(values, device=device)  # noqa: E731
    row, place = tensor(at).T
    token, fact, weight = map(tensor, zip(*wanted, strict=True))
    inputs = padded(rows, device).kwargs
    return _Batch(inputs, tensor(owner), tensor(subject), row, place, token, fact, weight)
