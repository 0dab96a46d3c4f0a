"""Functions out of somebody else's files, by name, some places replaced that can't run here.

A whole package asks for much that a measurement does not need (data sets, servers, other versions
of libraries). So single functions are compiled from the text of their file, unchanged but for the
replacements, which must occur in it: another version of the file is refused and not measured.
"""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ske.types import UserError

CPU = {'"cuda"': '"cpu"'}


def excerpt(
    path: Path,
    names: Collection[str],
    scope: dict[str, Any],
    replaced: Mapping[str, str] | None = None,
) -> None:
    """Put functions and classes of a file into `scope`, where they find what they call.

    Args:
        path: The file.
        names: Its functions and classes; all of them if there are none.
        scope: What they see as their module's names.
        replaced: Texts of the file and what stands for them.

    Raises:
        UserError: There is no such file, name or text in it.
    """
    if not path.exists():
        raise UserError(f"{path}: there is no such file; is the folder a checkout of their code?")
    text = path.read_text(encoding="utf-8")
    for old, new in (replaced or {}).items():
        if old not in text:
            raise UserError(f"{path}: {old!r} does not occur; the comparison is with other code")
        text = text.replace(old, new)
    found = [
        node
        for node in ast.parse(text).body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and (not names or node.name in names)
    ]
    if missing := set(names) - {node.name for node in found}:
        raise UserError(f"{path}: no {', '.join(sorted(missing))}")
    code = ast.Module(body=list(found), type_ignores=[])
    # Annotations name types of many libraries: they are not looked at.
    flags = annotations.compiler_flag
    exec(compile(code, str(path), "exec", flags=flags, dont_inherit=True), scope)


def module(name: str, path: Path, scope: Mapping[str, Any], **how: Any) -> ModuleType:
    """A file's functions as a module of that name; `how` as for `excerpt`."""
    made = ModuleType(name)
    made.__dict__.update(scope)
    excerpt(path, (), made.__dict__, **how)
    return made


def commit(folder: Path) -> str:
    """The first seven digits of a checkout's commit, or "unknown"."""
    command: Sequence[str] = ["git", "-C", str(folder), "rev-parse", "--short=7", "HEAD"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    return said.stdout.strip() or "unknown"
