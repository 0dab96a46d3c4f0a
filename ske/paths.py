"""Paths of a configuration as a run keeps them: good from any folder, not only where it began.

What lies in the checkout (world/model, configs/world) keeps its short name, which
`ske.config.found` finds from everywhere. Looks at folders; writes nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

from ske.config import ROOT, Config

SECTIONS = ("model", "data", "world", "practice", "texts")
"""The sections with a `path`; `tuned` and the teacher's are by themselves."""
PATHS = (*(f"{section}.path" for section in SECTIONS), "tuned", "teach.model")


def placed(config: Config) -> Config:
    """The configuration with its paths as `fixed` writes them."""
    changes = {}
    for section in SECTIONS:
        part = getattr(config, section)
        if part.path is not None and (path := fixed(part.path)) != part.path:
            changes[section] = part.model_copy(update={"path": path})
    if config.teach.model is not None:
        changes["teach"] = config.teach.model_copy(update={"model": fixed(config.teach.model)})
    if config.tuned is not None:
        changes["tuned"] = fixed(config.tuned)
    return config.model_copy(update=changes)


def fixed(path: str) -> str:
    """The path from the root, if it is there and not found in the checkout; else as it is."""
    here, there = Path(path), ROOT / path
    if here.is_absolute() or not here.exists():
        return path
    inside = Path(os.path.normpath(there)).is_relative_to(ROOT)
    if inside and there.exists() and there.samefile(here):
        return path
    return str(absolute(here))


def absolute(path: Path) -> Path:
    """The path from the root.

    The last name stays even if it is a link: data sets are told by the names of their files.
    """
    return path.resolve() if path.name in ("", "..") else path.parent.resolve() / path.name


def same_place(old: object, new: object) -> bool:
    """Whether an absolute path may be what a relative one was, seen from a folder now unknown."""
    if old == new:
        return True
    if not isinstance(old, str) or not isinstance(new, str) or not Path(new).is_absolute():
        return False
    tail = tuple(part for part in Path(old).parts if part != "..")
    known = bool(tail) and not Path(old).is_absolute()
    return known and Path(new).parts[-len(tail) :] == tail
