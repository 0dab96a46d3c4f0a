"""The most bytes that tensors hold at a time while something runs, above what there was before.

On a GPU torch's allocator says it. On a CPU the storages that torch's operations hand out are
counted as long as they live; what a kernel uses within itself (the workspace of a decomposition)
is not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Held(NamedTuple):
    """What a call gave, and the bytes it took at the most."""

    gave: Any
    peak: int


def held(run: Callable[[], Any], device: torch.device) -> Held:
    """Run something and watch its memory on that device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        gave = run()
        return Held(gave, torch.cuda.max_memory_allocated(device) - before)
    with _Living() as living:
        gave = run()
    return Held(gave, living.peak)


class _Living(TorchDispatchMode):
    """Counts the storages that operations make."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {
            leaf.untyped_storage()._cdata
            for leaf in tree_leaves((args, kwargs))
            if isinstance(leaf, torch.Tensor)
        }
        gave = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(gave):
            if isinstance(leaf, torch.Tensor):
                self._see(leaf.untyped_storage(), given)
        return gave

    def _see(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        """Count a storage that is neither an argument's (a view of it) nor counted before."""
        key = storage._cdata
        if key in given or key in self._seen or storage.device.type != "cpu":
            return
        size = storage.nbytes()

        def gone(_: Any) -> None:
            del self._seen[key]
            self.now -= size

        self._seen[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def megabytes(size: float) -> str:
    """As people read it."""
    return f"{size / 2**20:,.1f} MiB"
