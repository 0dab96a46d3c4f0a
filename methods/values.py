"""The value vector of a fact: what, said at the subject's last token, makes the target come out.

Meng et al. 2022 (ROME, section 3.1, equation 4) and 2023 (MEMIT, arXiv 2210.07229, section 4.2).
All facts of a batch are optimised in the same forward passes. Adam works element by element, the
facts' losses are summed, and each fact stops and is clamped by itself, so its vector is what it
would be alone. Only the facts that are not done yet are computed, and of their prompts only what
can see the change: tokens before the subject's last one are read once, and so are the layers
below it (`below`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import DynamicCache

from methods.base import HasWeights
from methods.below import Below, below, read, skipped
from methods.hooks import Padded, adding, at_rest, batches, only_at, padded, wide
from methods.keyvalue import Asked, KeyValueOptions, Query
from ske.backends.caching import with_cache
from ske.types import UserError


class _Before(NamedTuple):
    """What comes before the subjects' ends of some rows, as the layers have read it."""

    cache: list[tuple[torch.Tensor, torch.Tensor]]
    """Every layer's keys and values, [rows, heads, longest, size]; none if nothing is kept."""
    lengths: list[int]
    """Tokens of each row."""

    def of(self, rows: list[int]) -> _Before:
        """Some of the rows."""
        cache = [(keys[rows], values[rows]) for keys, values in self.cache]
        return _Before(cache, [self.lengths[row] for row in rows])


class _Batch(NamedTuple):
    """What is left to read of the rows of some facts; `n` target tokens, `m` facts."""

    inputs: dict[str, Any]
    before: _Before
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
    sizes = [len(q.asked) * max(len(r.prompt) + len(r.answer) for r in q.asked) for q in queries]
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
    # What the last step's facts leave is put together anew, what was read is not.
    before_all = _read(holder, [row for query in queries for row in _rows(query)])
    batch = _tensors(holder, queries, before_all)
    lower = _lower(holder, module, batch)
    essence = torch.empty(0)
    for step in range(options.steps):
        with skipped(lower):
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
            left = _rows_of(going, len(_rows(queries[0])))
            active, essence = active[going], essence[going]
            before_all = before_all.of(left)
            batch = _tensors(holder, [queries[i] for i in active.tolist()], before_all)
            lower = lower and lower.of(left, batch.inputs["input_ids"].shape[1])
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
    numbers = torch.arange(len(batch.owner), device=delta.device)
    with adding(module, numbers, batch.subject, delta[batch.owner], len(numbers)):
        logits = _logits(holder, batch)
    n = len(batch.token)
    log_p = torch.log_softmax(wide(logits), dim=-1)
    nll = -log_p[:n].gather(1, batch.token[:, None])[:, 0] * batch.weight
    return torch.zeros_like(delta[:, 0]).index_add(0, batch.fact, nll.to(delta.dtype)), log_p[n:]


def _logits(holder: HasWeights, batch: _Batch) -> torch.Tensor:
    """Logits at the places that are needed, [n + m, vocabulary]."""
    head = holder.model.get_output_embeddings()
    assert isinstance(head, nn.Module)
    with only_at(head, batch.row, batch.place):
        return holder.model(**batch.inputs, **_cached(holder, batch.before)).logits[0]


def _lower(holder: HasWeights, module: nn.Module, batch: _Batch) -> Below | None:
    """What the layers below the change make of the rows."""
    return read(below(holder.model, module), lambda: _logits(holder, batch))


def _rows_of(going: torch.Tensor, each: int) -> list[int]:
    """The rows of the facts that go on, of `each` rows a fact."""
    return [i * each + k for i in going.nonzero()[:, 0].tolist() for k in range(each)]


def _rows(query: Query) -> list[Asked]:
    """All that a fact's value is found by, then its KL prompt; all facts have as many."""
    return [*query.asked, query.essence]


@torch.no_grad()
def _read(holder: HasWeights, rows: Sequence[Asked]) -> _Before:
    """Read what comes before the subjects' last tokens: no change there is ever seen by it."""
    model = holder.model
    lengths = [row.place for row in rows]
    if "position_ids" not in inspect.signature(model.forward).parameters or not any(lengths):
        return _Before([], [0] * len(rows))
    cache = DynamicCache(config=model.config)
    # Without a mask: a row's own tokens don't see the padding behind them, and a row of nothing
    # but padding has numbers, not NaN.
    ids = padded([row.prompt[: row.place] for row in rows], model.device).ids
    model.base_model(input_ids=ids, use_cache=True, **with_cache(model.base_model.forward, cache))
    layers: Any = cache.layers
    if any(layer.keys.shape[2] < ids.shape[1] for layer in layers):  # A window that is shorter.
        return _Before([], [0] * len(rows))
    return _Before([(layer.keys, layer.values) for layer in layers], lengths)


def _cached(holder: HasWeights, before: _Before) -> dict[str, Any]:
    """A cache of its own for each forward pass, which adds to it."""
    if not before.cache:
        return {"use_cache": False}
    cache = DynamicCache(config=holder.model.config)
    for number, (keys, values) in enumerate(before.cache):
        cache.update(keys, values, number)
    return {"use_cache": True, **with_cache(holder.model.forward, cache)}


def _tensors(holder: HasWeights, queries: Sequence[Query], before: _Before) -> _Batch:
    """The rows of every fact, from where `before` ends on; places are counted from there."""
    rows: list[list[int]] = []
    owner, subject, at, wanted, essences = [], [], [], [], []

    def put(number: int, asked: Asked, ids: list[int]) -> int:
        begun = before.lengths[len(rows)]
        rows.append(ids[begun:])
        owner.append(number)
        subject.append(asked.place - begun)
        return begun

    for number, one in enumerate(queries):
        for asked in one.asked:
            if not asked.answer:
                raise UserError("a fact has no target: target_new is empty; erase it by a text")
            begun = put(number, asked, [*asked.prompt, *asked.answer[:-1]])
            share = 1 / len(one.asked) / len(asked.answer)
            for place, token in enumerate(asked.answer, start=len(asked.prompt) - 1 - begun):
                at.append((len(rows) - 1, place))
                wanted.append((token, number, share))
        put(number, one.essence, one.essence.beginning)
        essences.append((len(rows) - 1, subject[-1]))
    device = holder.model.device
    tensor = lambda values: torch.tensor(values, device=device)  # noqa: E731
    row, place = tensor([*at, *essences]).T
    token, fact, weight = map(tensor, zip(*wanted, strict=True))
    inputs = _inputs(padded(rows, device), before)
    return _Batch(inputs, before, tensor(owner), tensor(subject), row, place, token, fact, weight)


def _inputs(rest: Padded, before: _Before) -> dict[str, torch.Tensor]:
    """[what was read][padding][the rest][padding], with places as if there were no padding."""
    if not before.cache:
        return {"input_ids": rest.ids, "attention_mask": rest.mask}
    lengths = torch.tensor(before.lengths, device=rest.ids.device)[:, None]
    longest = torch.arange(before.cache[0][0].shape[2], device=rest.ids.device)
    # Padding keeps the last token's place: there may be none beyond it.
    places = lengths + rest.mask.cumsum(1) - 1
    mask = torch.cat([(longest < lengths).to(rest.mask), rest.mask], dim=1)
    return {"input_ids": rest.ids, "attention_mask": mask, "position_ids": places}
