"""Places the runs of a grid with Ray (extra `ray`), on this machine or on a cluster.

    python docs/examples/grid_ray.py configs/grids/world.yaml --gpus 1

Each run is one Ray task that starts one `ske run`. A task that fails or whose machine is lost is
started again, and goes on where it was: run folders must lie where all machines see them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import ray

from pipeline.grid import cells

ROOT = Path(__file__).resolve().parents[2]


def make(command: list[str]) -> tuple[str, int]:
    """One run from its command, in a process of its own: its folder and exit code."""
    program = [sys.executable, "-m", "pipeline.cli", *command[1:]]
    code = subprocess.run(program, cwd=ROOT, check=False).returncode
    if code not in (0, 2):  # 2 is a mistake in the grid, which the next try would find again
        raise RuntimeError(f"exit code {code}: {command[-1]}")
    return command[-1], code


def main() -> None:
    """Submit all, report as they end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("grid", type=Path)
    parser.add_argument("--gpus", type=float, default=0, help="GPUs for each run")
    parser.add_argument("--cpus", type=float, default=1, help="processor cores for each run")
    parser.add_argument("--address", help="a cluster's address, e.g. auto; none: this machine")
    parser.add_argument("--workers", type=int, help="cores Ray may use on this machine")
    options = parser.parse_args()
    ray.init(address=options.address, num_cpus=options.workers, include_dashboard=False)
    task = ray.remote(num_gpus=options.gpus, num_cpus=options.cpus, max_retries=2)(make)
    task = task.options(retry_exceptions=True)
    waiting = [task.remote(one.command()) for one in cells(options.grid.resolve())]
    failed = 0
    while waiting:
        (ended,), waiting = ray.wait(waiting, num_returns=1)
        try:
            folder, code = ray.get(ended)
            print("failed:" if code else "done:", folder, flush=True)
            failed += code > 0
        except ray.exceptions.RayTaskError as error:
            failed += 1
            print("failed:", error, flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
