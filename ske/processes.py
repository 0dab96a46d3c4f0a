"""Several processes for one training (`torchrun`, `accelerate launch`): which of them this is.

Both launchers say so in the environment; whoever starts `ske` alone is the first of one.
"""

from __future__ import annotations

import os


def count() -> int:
    """How many processes there are, on all machines together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first() -> bool:
    """Whether this one writes files and talks; exactly one does."""
    return os.environ.get("RANK", "0") == "0"


def local_number() -> int:
    """The number of this process on its machine, which is that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))
