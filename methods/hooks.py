"""Reads and changes what flows through a model's modules, at chosen places of chosen rows.

Every hook is gone when its `with` block ends. Rows of token ids are padded on the right: a causal
model's tokens never see what comes after them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from transformers.modeling_utils import PreTrainedModel

Ids = Sequence[int]


class Site(NamedTuple):
    """A module's input or output."""

    module: nn.Module
    side: Literal["in", "out"]


class Padded(NamedTuple):
    """Rows as tensors, [rows, longest]."""

    ids: torch.Tensor
    mask: torch.Tensor

    @property
    def kwargs(self) -> dict[str, Any]:
        """What a model is called with."""
        return {"input_ids": self.ids, "attention_mask": self.mask, "use_cache": False}


def _by_row(values: torch.Tensor, count: int) -> torch.Tensor:
    """[rows, longest, width] of what a module sees or says; OPT's MLPs see all rows as one."""
    return values.unflatten(0, (count, -1)) if values.dim() == 2 else values


class _AllSeen(Exception):
    """Ends a forward pass when nothing more is wanted of it."""


def wide(values: torch.Tensor) -> torch.Tensor:
    """At least fp32."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def padded(rows: Sequence[Ids], device: torch.device) -> Padded:
    """Pad on the right; masked tokens are 0."""
    longest = max(map(len, rows))
    ids = [[*row, *[0] * (longest - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return Padded(torch.tensor(ids, device=device), torch.tensor(mask, device=device))


def batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Indices in batches of similar length whose rows x longest stay within `batch_tokens`."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        if batch and (len(batch) + 1) * lengths[index] > batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def stream(
    model: PreTrainedModel, rows: Padded, sites: Sequence[Site], take: Callable[[int, Any], None]
) -> None:
    """One forward pass that hands `take(site number, values [rows, longest, width])` every site.

    It stops after the last site that is reached; the head is never computed.
    """
    waiting = set(range(len(sites)))

    def seen(number: int, values: torch.Tensor) -> None:
        take(number, _by_row(values, len(rows.ids)))
        waiting.discard(number)
        if not waiting:
            raise _AllSeen

    with ExitStack() as stack, torch.no_grad():
        for number, site in enumerate(sites):
            stack.enter_context(_watching(site, number, seen))
        with suppress(_AllSeen):
            model.base_model(**rows.kwargs)


def activations(
    model: PreTrainedModel,
    rows: Sequence[Ids],
    positions: Sequence[int],
    sites: Sequence[Site],
    batch_tokens: int,
) -> list[torch.Tensor]:
    """What each site sees or says at one position of every row.

    Returns:
        For each site [rows, width], fp32 or better, in the order of the rows.
    """
    found: list[list[torch.Tensor]] = [[] for _ in sites]
    order: list[int] = []
    for batch in batches([len(row) for row in rows], batch_tokens):
        places = torch.tensor([positions[i] for i in batch], device=model.device)
        numbers = torch.arange(len(batch), device=model.device)

        def take(
            number: int,
            values: torch.Tensor,
            at: tuple[torch.Tensor, torch.Tensor] = (numbers, places),
        ) -> None:
            # `found` copies by indexing: views would keep whole batches alive.
            found[number].append(wide(values[at]))

        stream(model, padded([rows[i] for i in batch], model.device), sites, take)
        order += batch
    back = torch.tensor(order, device=model.device).argsort()
    return [torch.cat(parts)[back] for parts in found]


@contextmanager
def adding(
    module: nn.Module,
    numbers: torch.Tensor,
    positions: torch.Tensor,
    vectors: torch.Tensor,
    count: int,
) -> Iterator[None]:
    """Add `vectors` [n, hidden] to a module's output at rows `numbers`, places `positions`.

    `count` is the number of rows that the model reads.
    """

    def add(_: nn.Module, __: Any, output: Any) -> Any:
        values = output[0] if isinstance(output, tuple) else output
        rows = _by_row(values, count)
        added = rows.index_put((numbers, positions), vectors.to(values.dtype), accumulate=True)
        values = added.view_as(values)
        return (values, *output[1:]) if isinstance(output, tuple) else values

    handle = module.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def only_at(head: nn.Module, numbers: torch.Tensor, positions: torch.Tensor) -> Iterator[None]:
    """The model's logits become [1, n, vocabulary], at n places of its rows only.

    What a model does to its logits after the head (scales, caps) is done place by place.
    """

    def gather(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0][numbers, positions][None], *args[1:])

    handle = head.register_forward_pre_hook(gather)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def at_rest(model: PreTrainedModel) -> Iterator[None]:
    """No dropout, and no gradients of weights; all flags come back."""
    wants_grad = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    training = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        for parameter, _ in wants_grad:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, flag in wants_grad:
            parameter.requires_grad_(flag)
        for module, flag in training:
            module.training = flag


@contextmanager
def kept(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Whatever happens to these weights is undone, bit for bit."""
    before = [parameter.detach().clone() for parameter in parameters]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, values in zip(parameters, before, strict=True):
                parameter.copy_(values)


@contextmanager
def _watching(site: Site, number: int, seen: Callable[[int, torch.Tensor], None]) -> Iterator[None]:
    def before(_: nn.Module, args: tuple[Any, ...]) -> None:
        seen(number, args[0].detach())

    def after(_: nn.Module, __: Any, output: Any) -> None:
        seen(number, (output[0] if isinstance(output, tuple) else output).detach())

    if site.side == "in":
        handle = site.module.register_forward_pre_hook(before)
    else:
        handle = site.module.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()
