"""Files of lm-evaluation-harness tasks: which belong to a task that the user keeps.

A run whose task file, included file, function file or data has changed is asked again, so all of
them are found here without the harness, which takes seconds to load. Reads YAML, writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from ske.config import found

ENDINGS = (".yaml", ".yml")


def located(task: str) -> Path | None:
    """The file of a task that is named by its path; None for a name of the harness's."""
    return found(task) if task.endswith(ENDINGS) else None


def files(tasks: Sequence[str]) -> list[Path]:
    """Every file that the user's own tasks consist of, in order; what is missing is left out.

    That is a task's file and each file that a text in it names, seen from its folder or from where
    `ske` runs: `include`, `!function`, `data_files`. A pattern such as `data/*.json` names none.
    """
    todo = [path for task in tasks if (path := located(task)) is not None and path.is_file()]
    seen: dict[Path, None] = {}
    while todo:
        path = todo.pop()
        if path not in seen:
            seen[path] = None
            todo += _named(path) if path.suffix in ENDINGS else []
    return sorted(seen)


def _named(path: Path) -> list[Path]:
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Plain)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return []  # Whoever loads the task says what is wrong with it.
    # A long text is a prompt; some systems refuse to look for a file of such a name.
    names = [text for text in _texts(tree) if text and len(text) < 256 and "\n" not in text]
    return [
        place for name in names for place in (path.parent / name, Path(name)) if place.is_file()
    ]


def _texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict):
        yield from _texts([*tree.values()])
    elif isinstance(tree, list):
        for inner in tree:
            yield from _texts(inner)


class _Plain(yaml.SafeLoader):
    """Reads the harness's own tag, `!function module.name`, as the file of the module."""


def _function(loader: yaml.SafeLoader, node: yaml.Node) -> str:
    value = str(loader.construct_scalar(node)) if isinstance(node, yaml.ScalarNode) else ""
    return value.rpartition(".")[0].replace(".", "/") + ".py"


_Plain.add_constructor("!function", _function)
