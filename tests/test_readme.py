"""The README's tree says the truth: every Python file of every floor, and nothing that is gone."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
FLOORS = ("ske", "prompts", "world", "methods", "eval", "agents", "pipeline")


def listed() -> set[str]:
    tree = (ROOT / "README.md").read_text(encoding="utf-8").split("## The house")[1]
    found, folder = set(), ""
    for line in tree.splitlines():
        if heading := re.match(r"    (\w[\w/]*)/ ", line):
            folder = heading.group(1)
        elif entry := re.match(r"      ([\w/]+\.py) ", line):
            found.add(f"{folder}/{entry.group(1)}")
    return found


def tracked() -> set[str]:
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return {
        f
        for f in files
        if f.split("/")[0] in FLOORS and not f.endswith("__init__.py") and (ROOT / f).exists()
    }


def test_the_tree_lists_every_file_and_no_other() -> None:
    assert listed() == tracked()


def test_files_and_functions_stay_small() -> None:
    import ast

    too_long = []
    for name in tracked():
        text = (ROOT / name).read_text(encoding="utf-8")
        if text.count("\n") > 400:
            too_long.append(name)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno > 50:
                too_long.append(f"{name}:{node.name}")
    assert too_long == []
