"""Several processes for one training (`torchrun`, `accelerate launch`): which of them this is.

Both launchers say so in the environment; whoever starts `ske` alone is the first of one. Also, how
a process' threads behave beside those of others, and its garbage collector beside libraries.
"""

from __future__ import annotations

import functools
import gc
import os
import sys
from typing import NoReturn

SPINS = "10000"
"""Turns of a waiting loop. libgomp's own 300,000 are no faster on an idle machine; beside one other
busy process they made a training step 70 times as slow, these 4 times (docs/log.md)."""


@functools.cache
def spare_libraries() -> None:
    """Keep what is loaded now, which is libraries, from the garbage collector.

    Every training calls it, and each time it would look through a million objects. Once in a
    process: what is kept from it is never collected.
    """
    gc.collect()
    gc.freeze()


def yielding() -> None:
    """Let OpenMP's threads wait for each other for a short time only, unless the user says how.

    Counts if it is called before torch is imported.
    """
    if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}:
        os.environ["GOMP_SPINCOUNT"] = SPINS


def count() -> int:
    """How many processes there are, on all machines together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first() -> bool:
    """Whether this one writes files and talks; exactly one does."""
    return os.environ.get("RANK", "0") == "0"


def local_number() -> int:
    """The number of this process on its machine, which is that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def leave(status: int) -> NoReturn:
    """End this process; if it trained with others, without Python's own clean-up.

    In that, a thread of gloo that drops the last reference to one of Python's tensors ends the
    process with SIGABRT ("terminate called without an active exception", 5 times in 107, torch
    2.13), and torchrun then says that a training failed of which everything is on disk.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)
    sys.exit(status)
