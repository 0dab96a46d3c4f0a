"""`ske doctor`: what this machine can run, and what to install for the rest.

Reads the machine, the installed packages and the embedded world; changes nothing.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.requirements import Requirement
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ske.config import ROOT, ModelConfig, found
from ske.types import UserError

State = Literal["ok", "note", "missing"]
STYLES = {"ok": "green", "note": "yellow", "missing": "red"}
FREE_GB = 5
"""Less free disk than this is pointed out: a run of many methods keeps an edit for each."""

EXTRAS = {
    "vllm": ("vllm", "model.backend=vllm: faster answers of large models (Linux with a GPU)"),
    "ray": ("ray", "many runs on many machines, see docs/scale-out.md"),
    "bitsandbytes": ("qlora", "method qlora: 4-bit base weights (a CPU will do, slowly)"),
    "langchain-openai": ("agents-llm", "agents that are models behind an OpenAI-compatible API"),
    "gepa": ("gepa", "design.search=gepa: the agents search prompts by GEPA"),
    "lm-eval": ("eval", "general benchmarks (lm-evaluation-harness) before and after an edit"),
    "sentence-transformers": (
        "",
        "method retrieval with an embedding model instead of word counts",
    ),
}
"""Package -> the extra that brings it ("" for none), and what it is for."""


class Check(NamedTuple):
    """One line of the table."""

    what: str
    state: State
    said: str


def checks() -> RenderableType:
    """Everything that was looked at, with what to do about what is missing."""
    drawn = Table(title="What this machine can run", title_justify="left", show_lines=False)
    for name in ("", "what", "found"):
        drawn.add_column(name)
    for check in found_out():
        drawn.add_row(
            Text(check.state, style=STYLES[check.state]), Text(check.what), Text(check.said)
        )
    return drawn


def found_out() -> Iterator[Check]:
    """All checks, in the order in which they are shown."""
    yield _python()
    yield _cores()
    yield _memory()
    yield _disk()
    yield from _packages()
    yield _torch()
    yield _cpu()
    yield from _extras()
    yield _world()


def _python() -> Check:
    state: State = "ok" if sys.version_info >= (3, 11) else "missing"
    return Check("Python", state, f"{platform.python_version()} (3.11 or newer is needed)")


def _cores() -> Check:
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return Check("processor", "ok", f"{usable} cores, {platform.machine()}")


def _memory() -> Check:
    free = _meminfo("MemAvailable")
    total = _meminfo("MemTotal")
    if total is None or free is None:
        return Check("memory", "note", "unknown on this system; the demo needs about 2 GB")
    state: State = "ok" if free >= 2 else "note"
    hint = "" if free >= 2 else "; the demo needs about 2 GB"
    return Check("memory", state, f"{free:.1f} of {total:.1f} GB free{hint}")


def _meminfo(key: str) -> float | None:
    """A line of /proc/meminfo in GB; None where there is no such file."""
    path = Path("/proc/meminfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((int(line.split()[1]) / 1e6 for line in lines if line.startswith(f"{key}:")), None)


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    few = free < FREE_GB
    hint = "; runs with many methods may fill it" if few else ""
    return Check("disk", "note" if few else "ok", f"{free:.0f} GB free in {Path.cwd()}{hint}")


def _packages() -> Iterator[Check]:
    """What pyproject.toml asks for, beside what is installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for line in project["dependencies"]:
        needed = Requirement(line)
        version = installed(needed.name)
        if version is None:
            yield Check(needed.name, "missing", f'needed; install with: pip install "{line}"')
        elif not needed.specifier.contains(version, prereleases=True):
            yield Check(
                needed.name, "note", f'{version}, but {line} is needed: pip install "{line}"'
            )
        else:
            yield Check(needed.name, "ok", version)


def installed(package: str) -> str | None:
    """The version of a package, None if it is not there."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _torch() -> Check:
    if installed("torch") is None:
        return Check("GPU", "missing", "not looked for: torch is not installed")
    import torch  # takes seconds: only here

    if not torch.cuda.is_available():
        return Check("GPU", "note", "none that torch can use; everything runs on the processor")
    names = [
        f"{(device := torch.cuda.get_device_properties(i)).name}, "
        f"{device.total_memory / 1e9:.0f} GB"
        for i in range(torch.cuda.device_count())
    ]
    return Check("GPU", "ok", f"{'; '.join(names)}; models run in bfloat16 there")


def _cpu() -> Check:
    """Which number format pays on the processor, and why."""
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    line = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    flags = set(line.split())
    if not flags:
        return Check("number format", "ok", "float32 on the processor (its features are unknown)")
    wide = [name for name in ("avx2", "avx512f") if name in flags]
    if {"avx512_bf16", "amx_bf16"} & flags:
        said = "float32 by default; it has bfloat16 units, so model.dtype=bfloat16 is worth a try"
    else:
        said = "float32: without AVX512-BF16 or AMX, bfloat16 products are many times slower"
    return Check("number format", "ok", f"{said} ({', '.join(wide) or 'no AVX2'})")


def _extras() -> Iterator[Check]:
    for package, (extra, purpose) in EXTRAS.items():
        version = installed(package)
        command = f'pip install -e ".[{extra}]"' if extra else f"pip install {package}"
        if version is not None:
            yield Check(package, "ok", f"{version}: {purpose}")
        else:
            yield Check(package, "note", f"not installed; {purpose}: {command}")


def _world() -> Check:
    """Whether the embedded world's base model is there, and answers."""
    folder = found(ModelConfig().path)
    if not (folder / "config.json").exists():
        return Check("base model", "missing", f"{folder} is not there; build it: ske world build")
    return _loaded(folder, _answer)


def _loaded(folder: Path, answer: Callable[[Path], str]) -> Check:
    try:
        said = answer(folder)
    except (UserError, OSError, ImportError, RuntimeError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        return Check("base model", "missing", f"{folder} does not load: {first}")
    return Check("base model", "ok", f"{folder} loads and answers ({said})")


def _answer(folder: Path) -> str:
    from ske.backends.local import load
    from ske.lm import Sampling, ask

    lm = load(ModelConfig(path=str(folder), device="cpu"))
    lm.generate([ask("The capital of France is")], Sampling(max_new_tokens=4))
    count = sum(weights.numel() for weights in lm.model.parameters())
    return f"{count / 1e6:.1f} million weights"
