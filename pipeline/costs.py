"""What making an edit costs: seconds, bytes on disk, and the peak of memory while it was made.

On Linux the kernel's own high-water mark of the process is set back before and read after; on a
GPU, torch's. Elsewhere the peak of the whole process so far is all there is.
"""

from __future__ import annotations

import ctypes
import gc
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""What `clear_refs` takes to set VmHWM back to what is used now (proc(5))."""


@contextmanager
def measured() -> Iterator[dict[str, Any]]:
    """Fills in `seconds`, `peak_mb` (the base model and libraries included) and `extra_mb`.

    `extra_mb` is how much the peak lay above what was in use before.
    """
    costs: dict[str, Any] = {}
    before = _start()
    started = time.monotonic()
    yield costs
    costs["seconds"] = round(time.monotonic() - started, 1)
    peak = _peak()
    costs |= {"peak_mb": round(peak), "extra_mb": round(max(0.0, peak - before))}


def size_of(folder: Path) -> int:
    """Bytes of a saved edit."""
    return sum(path.stat().st_size for path in folder.rglob("edit.*") if path.is_file())


def _start() -> float:
    """Set the marks back; megabytes in use now."""
    cuda = _cuda()
    if cuda is not None:
        cuda.reset_peak_memory_stats()
        return cuda.memory_allocated() / 2**20
    _give_back()
    try:
        RESET.write_text(RESET_PEAK, encoding="ascii")
        return _status("VmRSS")
    except OSError:
        return _peak()


def _give_back() -> None:
    """Return freed memory to the system: what earlier work has left would hide this edit's."""
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _peak() -> float:
    """Megabytes at the highest since `_start`."""
    cuda = _cuda()
    if cuda is not None:
        return cuda.max_memory_allocated() / 2**20
    try:
        return _status("VmHWM")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kilobytes on Linux


def _status(key: str) -> float:
    for line in STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"{STATUS} has no {key}")


def _cuda() -> Any:
    """torch.cuda if something runs there, else None."""
    import torch  # takes seconds: only where edits are made

    return torch.cuda if torch.cuda.is_available() else None
