"""The stage engine: content-addressed, resumable, never half-done.

A stage's key is a hash of the configuration it reads, of its inputs' outputs and of its own
version. Its `manifest.json`, written last and by rename, says that it is done. A stage whose key
changed is stale, and the engine says because of which configuration key.
"""

from __future__ import annotations

import functools
import importlib
import json
import platform
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple

from eval import taskfiles
from eval.knowedit import test_file
from pipeline import aside
from pipeline.sizes import sizes_of, unlike
from ske.config import Config, ModelConfig, found
from ske.io import file_hash, write_json
from ske.paths import PATHS, same_place
from ske.types import UserError, Waits, content_hash

State = Literal["done", "stale", "to do"]
PACKAGES = ("torch", "transformers", "trl", "peft", "langgraph", "lm_eval")


CONTENTS = {
    "model weights": "model.path",
    "data file": "data.path",
    "world file": "world.path",
    "practice file": "practice.path",
    "texts file": "texts.path",
}
"""What says what is in a file -> the key that says where it is."""


class Stage(NamedTuple):
    """One step of a run."""

    name: str
    target: str
    """"module:function", imported when the stage runs; called with (run, folder). It may give back
    more that it leaves outside its outputs; the manifest says as `left` how large all of it was."""
    needs: tuple[str, ...]
    keys: tuple[str, ...]
    """The parts of the configuration it reads, as dotted paths."""
    about: str
    apart: tuple[str, ...] = ()
    """Parts below `keys` that change how it runs, not what comes out: taken at their default."""
    version: int = 1
    """Raised when the stage's results change for the same configuration."""
    leaves: tuple[str, ...] = ()
    """What it always leaves in the run folder itself; made again if somebody removed it."""


class Plan(NamedTuple):
    """Where a stage stands."""

    stage: Stage
    state: State
    reasons: tuple[str, ...]
    """For a stale stage: what changed."""
    seconds: float | None
    cause: Literal["configuration", "damage", "another stage"] | None = None
    """For a stale stage: of which kind the reasons are."""


def select(config: Config, path: str) -> Any:
    """The value at a dotted path, as plain JSON."""
    value: Any = config.model_dump(mode="json")
    for part in path.split("."):
        value = value[part]
    return value


def ingredients(stage: Stage, config: Config, folder: Path) -> dict[str, Any]:
    """All that a stage's result depends on, by name."""
    parts: dict[str, Any] = {"version": stage.version}
    for path in stage.keys:
        parts[path] = _without(select(config, path), path, stage.apart)
    if "model" in stage.keys:
        parts["model weights"] = fingerprint(config.model.path)
    if config.teach.model is not None and any(key.startswith("teach") for key in stage.keys):
        parts["teacher weights"] = fingerprint(config.teach.model)
    parts |= {f"{name} file": _hash_of(path) for name, path in files_of(stage.keys, config).items()}
    if "eval" in stage.keys and (kept := task_hashes(config)):
        parts["task files"] = kept
    for need in stage.needs:
        parts[f"output of {need}"] = read_manifest(folder, need).get("output")
    return parts


def files_of(keys: Sequence[str], config: Config) -> dict[str, Path]:
    """The user's files that are read by who reads these parts of the configuration, by name."""
    data, practice, texts = config.data.path, config.practice.path, config.texts.path
    files: dict[str, Path] = {}
    if data is not None and {"data", "practice"} & set(keys):
        files["data"] = found(data)
        # Sanitation's train file is asked its questions.
        if "data" in keys and (beside := test_file(found(data))) is not None:
            files["test"] = beside
    if data is None and ("world" in keys or ("practice" in keys and practice is None)):
        files["world"] = found(config.world.path) / "world.json"
    if "practice" in keys and practice is not None:
        files["practice"] = found(practice)
    if "texts" in keys and texts is not None:
        files["texts"] = found(texts)
    if "tuned" in keys and config.tuned is not None:
        tuned = ((name, found(config.tuned) / f"{name}.yaml") for name in config.methods)
        files |= {f"tuned {name}": path for name, path in tuned if path.exists()}
    return files


def usual(path: str) -> Any:
    """The default at a dotted path; None below a section that is none by default."""
    value: Any = Config().model_dump(mode="json")
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _without(value: Any, path: str, apart: tuple[str, ...]) -> Any:
    for left in apart:
        if left.startswith(f"{path}."):
            value = _at_default(value, left[len(path) + 1 :].split("."), usual(left))
    return value


def _at_default(value: Any, parts: list[str], default: Any) -> Any:
    if not isinstance(value, dict):
        return value
    first, rest = parts[0], parts[1:]
    return {**value, first: _at_default(value[first], rest, default) if rest else default}


def _hash_of(path: Path) -> str | None:
    """A file's hash; None if it is missing, which the stage that reads it will report."""
    return file_hash(path) if path.is_file() else None


def task_hashes(config: Config) -> dict[str, str]:
    """The hashes of what the user's own tasks in `eval.tasks` consist of."""
    return {str(path): file_hash(path) for path in taskfiles.files(config.eval.tasks)}


def plan(stages: tuple[Stage, ...], config: Config, folder: Path) -> list[Plan]:
    """Where every stage stands; a stage after one that is not done cannot be done."""
    plans: list[Plan] = []
    unfinished: set[str] = set()
    for stage in stages:
        manifest = read_manifest(folder, stage.name)
        waiting = tuple(f"{need} runs again" for need in stage.needs if need in unfinished)
        if not manifest:
            item = Plan(stage, "to do", (), None)
        else:
            item = _standing(stage, manifest, config, folder, waiting)
        if item.state != "done":
            unfinished.add(stage.name)
        plans.append(item)
    return plans


def _standing(
    stage: Stage, manifest: dict[str, Any], config: Config, folder: Path, waiting: tuple[str, ...]
) -> Plan:
    """Where a stage that was done stands now: the first kind of reason to run again, or none."""
    seconds = manifest.get("seconds")
    if waiting:
        return Plan(stage, "stale", waiting, seconds, "another stage")
    if changes := _changes(manifest, ingredients(stage, config, folder)):
        return Plan(stage, "stale", changes, seconds, "configuration")
    if damage := tuple(_damage(stage, manifest, folder)):
        return Plan(stage, "stale", damage, seconds, "damage")
    return Plan(stage, "done", (), seconds)


def sound(stage: Stage, config: Config, folder: Path, other: Path) -> bool:
    """Whether another run's folder has this stage done as it would come out in `folder`."""
    manifest = read_manifest(other, stage.name)
    if not manifest or _changes(manifest, ingredients(stage, config, folder)):
        return False
    return not any(_damage(stage, manifest, other))


def _damage(stage: Stage, manifest: dict[str, Any], folder: Path) -> Iterator[str]:
    """What is no longer as the stage left it: files that are gone, or of another size."""
    gone = [name for name in stage.leaves if not _there(folder / name)]
    yield from (f"{name} is gone" for name in gone)
    left = manifest.get("left", {})
    yield from unlike(folder, {n: s for n, s in left.items() if Path(n).parts[0] not in gone})
    sizes = manifest.get("sizes", {})
    own = {name: sizes.get(name) for name in manifest.get("outputs", {})}
    yield from unlike(folder / "stages" / stage.name, own)


def _there(place: Path) -> bool:
    return any(place.iterdir()) if place.is_dir() else place.exists()


def _changes(manifest: dict[str, Any], now: dict[str, Any]) -> tuple[str, ...]:
    before = manifest.get("ingredients", {})
    changed: list[str] = []
    for name in sorted(set(before) | set(now)):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            # A key that did not exist then and is at its default now changes nothing.
            old = {**{k: usual(f"{name}.{k}") for k in new}, **old}
            inner = [k for k in {**old, **new} if not _same(f"{name}.{k}", old.get(k), new.get(k))]
            changed += [f"{name}.{k}: {old.get(k)!r} -> {new.get(k)!r}" for k in inner]
        elif not _same(name, old, new):
            changed.append(_gone(name, before, now) or f"{name}: {old!r} -> {new!r}")
    return tuple(changed)


def _same(key: str, old: Any, new: Any) -> bool:
    """Whether a value is as it was; of what lies at a path, the content is compared by itself."""
    return old == new or (key in PATHS and same_place(old, new))


def _gone(name: str, before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """That a file or folder of the configuration is not there, if it is not."""
    if (key := CONTENTS.get(name)) is None:
        return None
    section, _, part = key.partition(".")
    path, earlier = (parts.get(section, {}).get(part) for parts in (now, before))
    if now.get(name) is None:
        return f"{key}: no such file from here{'' if path is None else f': {path!r}'}"
    if name == "model weights" and now[name] == path == earlier:
        return f"{key}: no such folder from here: {path!r}; taken for a hub id"
    return None


def execute(stage: Stage, run: Any) -> None:
    """Run a stage and write its manifest.

    `run` has `config` and `folder`. What an earlier, interrupted attempt with the same key left is
    kept for the stage to go on from; anything else is put aside until the stage is done, and comes
    back if it ends in a mistake of the user's.
    """
    folder = run.folder / "stages" / stage.name
    parts = ingredients(stage, run.config, run.folder)
    key = content_hash(parts)
    before = aside.made_for(folder)
    aside.make_way(folder, key)
    manifest = read_manifest(run.folder, stage.name)
    taken_back = before != key and manifest.get("key") == key
    if taken_back and not any(_damage(stage, manifest, run.folder)):
        aside.forget(folder)  # A kill had left this one aside; it is as good as new.
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)
    (folder / aside.MARK).write_text(key, encoding="utf-8")
    started = time.time()
    try:
        left = follow(stage, run)
    except Waits:
        raise
    except UserError:
        aside.swap(folder)
        raise
    outputs = _outputs(folder)
    write_json(
        folder / "manifest.json",
        {
            "stage": stage.name,
            "key": key,
            "ingredients": parts,
            "outputs": outputs,
            "sizes": {name: (folder / name).stat().st_size for name in outputs},
            "left": sizes_of(run.folder, left),
            "output": content_hash(outputs),
            "seconds": round(time.time() - started, 1),
            **provenance(),
        },
    )
    aside.forget(folder)


def follow(stage: Stage, run: Any) -> list[Path]:
    """Run a stage's function alone: another process of the same training keeps the files.

    Gives back what it leaves outside its outputs.
    """
    module, function = stage.target.split(":")
    call = getattr(importlib.import_module(module), function)
    left = call(run, run.folder / "stages" / stage.name) or ()
    return [*left, *(run.folder / name for name in stage.leaves)]


def note_left(name: str, folder: Path, left: Iterable[Path]) -> None:
    """Write down anew what a finished stage leaves: it was written again, by `ske report`."""
    if manifest := read_manifest(folder, name):
        path = folder / "stages" / name / "manifest.json"
        write_json(path, {**manifest, "left": sizes_of(folder, left)})


def _outputs(folder: Path) -> dict[str, str]:
    """Content hashes of what the next stages read; working files and timings are left out."""
    skipped = {"key", "manifest.json"}
    return {
        str(path.relative_to(folder)): file_hash(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in skipped
        and not path.name.startswith((".", "trace", "checkpoints", "costs"))
        and not {"items", "work"} & set(path.relative_to(folder).parts[:-1])
    }


def read_manifest(folder: Path, stage: str) -> dict[str, Any]:
    """A stage's manifest; empty if it is not done, or if the file is torn."""
    path = folder / "stages" / stage / "manifest.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def fingerprint(model: str) -> str:
    """What tells one model's weights from another's without reading gigabytes.

    For a local folder: names, sizes and both ends of the weight files. A hub id stands for itself.
    """
    folder = found(model)
    if not folder.is_dir():
        return model
    return content_hash(
        [
            _ends(path)
            for path in sorted(folder.glob("*"))
            if path.suffix in (".safetensors", ".json", ".jinja")
        ]
    )


def weights_key(model: ModelConfig) -> str:
    """What tells what local weights say from what others do: these, how they are read and asked."""
    return content_hash([fingerprint(model.path), model.style, model.dtype, model.device])


def _ends(path: Path) -> list[Any]:
    size, edge = path.stat().st_size, 1 << 22
    if size <= 4 * edge:
        return [path.name, size, file_hash(path)]
    with path.open("rb") as file:
        head = file.read(edge)
        file.seek(-edge, 2)
        return [path.name, size, content_hash((head + file.read()).hex())]


@functools.cache
def provenance() -> dict[str, Any]:
    """Commit, versions and machine, for manifests and reports."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "git": _git(),
        "versions": versions,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def _git() -> str | None:
    root = Path(__file__).parent.parent
    command = ["git", "-C", str(root), "describe", "--always", "--dirty"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return None
    return result.stdout.strip() or None
