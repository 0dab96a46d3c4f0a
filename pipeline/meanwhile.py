"""While the student is trained, another process makes and asks the other methods' edits.

Two threads train a small model hardly faster than one, so on a processor half of them are given
away (`meanwhile: true`). The other process leaves its edits and answers where the stages `edit` and
`ask` look for them, keyed by content as always: what is missing, for whatever reason, they make.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.places import is_taught
from pipeline.run import Run
from ske import processes


@contextmanager
def meanwhile(run: Run) -> Iterator[bool]:
    """Have the other methods' part of a run done while the body trains the student.

    Gives False and does nothing where it cannot help: not asked for, one thread alone, several
    processes that train together, or answers that come from an engine of their own.
    """
    threads = _threads(run)
    if threads < 2:
        yield False
        return
    import torch

    own = threads - threads // 2
    child = _start(run.folder, threads // 2)
    run.console.print(
        f"  meanwhile, another process makes and asks the edits of {', '.join(others(run))}",
        highlight=False,
    )
    torch.set_num_threads(own)

    def take_back() -> None:
        if child.poll() is not None:
            torch.set_num_threads(threads)

    run.watchers.append(take_back)
    try:
        yield True
        child.wait()
    finally:
        run.watchers.remove(take_back)
        child.kill()
        child.wait()
        torch.set_num_threads(threads)


def others(run: Run) -> list[str]:
    """The methods that need no student."""
    return [method for method in run.config.methods if not is_taught(method)]


def _threads(run: Run) -> int:
    """How many threads there are to be shared; 0 if nobody is to share them."""
    if not run.config.meanwhile or processes.count() > 1 or run.config.model.backend == "vllm":
        return 0
    import torch

    return torch.get_num_threads() if run.lm.model.device.type == "cpu" else 0


def _start(folder: Path, threads: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.beside", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )
