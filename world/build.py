"""Builds a whole world in a folder: `world.json`, `benchmarks/*.json` and the base model.

`manifest.json` is written last: a folder that has it is finished. A build that was killed goes on
from its last checkpoint in `.work` and ends with the same weights. `load_world` reads a world back.
"""

from __future__ import annotations

import platform
import shutil
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ske.facts import parse_json, read_text
from ske.io import file_hash, locked, write_json
from ske.types import UserError, content_hash
from world import bench
from world.population import World, build

if TYPE_CHECKING:
    from collections.abc import Callable

    from world.batches import Stage

    Progress = Callable[[int, int, dict[str, float]], None]

WORLD, MANIFEST, BENCHMARKS, MODEL, WORK = (
    "world.json",
    "manifest.json",
    "benchmarks",
    "model",
    ".work",
)
SAVE_EVERY = 500
"""Steps between checkpoints."""


def quick_stages() -> tuple[Stage, ...]:
    """A recipe of a few steps: its model knows nothing, but everything is built."""
    from world.batches import Stage

    return (Stage(2, 96, 2, 576, 0.3), Stage(4, 128, 1, 256, 0.5))


def load_world(folder: Path) -> World:
    """Read the world of a folder that `ske world build` made.

    Raises:
        UserError: there is none, or its file is broken.
    """
    path = Path(folder) / WORLD
    if not path.exists():
        raise UserError(
            f"{folder} holds no {WORLD}, so it is not a world; build one with "
            f"`ske world build --out {folder}`, or set world.path to a folder that has one"
        )
    try:
        return World.model_validate(parse_json(read_text(path), str(path)))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{path}: key {place!r}: {first['msg']}; build it anew with "
            f"`ske world build --out {folder}`"
        ) from error


def write_data(seed: int, out: Path) -> World:
    """Write the population and its benchmarks, without a model."""
    world = build(seed)
    write_json(out / WORLD, world.model_dump(mode="json"))
    bench.write(world, out / BENCHMARKS)
    return world


def build_world(
    seed: int,
    out: Path,
    stages: tuple[Stage, ...] | None = None,
    progress: Progress | None = None,
    save_every: int = SAVE_EVERY,
) -> World:
    """Build everything, or what is missing of it; `progress` hears of every training step.

    Raises:
        UserError: the folder holds another world or is in use.
    """
    # Imported here because torch takes seconds, and reading a world needs none of it.
    from world.train import STAGES, train

    stages = stages or STAGES
    recipe = {"seed": seed, "stages": [stage._asdict() for stage in stages]}
    out = Path(out)
    with locked(out):
        _refuse_another(out, recipe)
        if (out / MANIFEST).exists():
            return load_world(out)
        begin = time.monotonic()
        write_json(out / WORK / "recipe.json", recipe)
        world = write_data(seed, out)
        train(world, out / MODEL, out / WORK, progress or _silent, stages, save_every)
        write_json(out / MANIFEST, _manifest(out, recipe, time.monotonic() - begin))
        shutil.rmtree(out / WORK)
    return world


def _silent(step: int, total: int, seen: dict[str, float]) -> None:
    """Hear of progress and say nothing."""


def _refuse_another(out: Path, recipe: dict[str, Any]) -> None:
    """Never mix two worlds, or two recipes, in one folder."""
    for path in (out / MANIFEST, out / WORK / "recipe.json"):
        if not path.exists():
            continue
        found = parse_json(read_text(path), str(path))
        changed = [key for key, value in recipe.items() if found.get(key) != value]
        if changed:
            was = ", ".join(f"{key} {found.get(key)!r}" for key in changed)
            raise UserError(
                f"{out} holds a world with another {' and other '.join(changed)} ({was}); choose "
                f"another folder with --out, or delete {path} to build over it"
            )


def _manifest(out: Path, recipe: dict[str, Any], seconds: float) -> dict[str, Any]:
    paths = [out / WORLD, *(out / BENCHMARKS).glob("*.json"), *(out / MODEL).iterdir()]
    packages = ("torch", "transformers", "tokenizers")
    return {
        **recipe,
        "key": content_hash(recipe),
        "files": {str(path.relative_to(out)): file_hash(path) for path in sorted(paths)},
        "seconds": round(seconds, 1),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
    }
