"""Our code beside the authors', in pairs of runs on the same small GPT-2 and Llama.

    git clone https://github.com/kmeng01/rome                 (and kmeng01/memit,
    SakanaAI/self-adaptive-llms, zjunlp/EasyEdit)
    python -m bench.authors --rome rome --memit memit --svf self-adaptive-llms --easyedit EasyEdit

None of their code is in this repository. What is run of it is compiled from the checkouts' files
(`bench/authors/excerpt.py`), and what is replaced in it stands in this package.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import transformers
from rich.console import Console

from bench.authors.evaluation import evaluation
from bench.authors.excerpt import commit
from bench.authors.keyvalue import memit, rome
from bench.authors.models import SHAPES
from bench.authors.svf import svf
from bench.document import filled
from bench.row import Row, markdown, table
from bench.setting import machine, quiet
from ske.io import write_text
from ske.types import UserError

DOCS = Path(__file__).parent.parent.parent / "docs" / "performance.md"
MARK = "authors"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what there are checkouts of, print, write."""
    options = argparse.ArgumentParser(
        "python -m bench.authors",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name in ("rome", "memit", "svf", "easyedit"):
        options.add_argument(f"--{name}", type=Path, metavar="FOLDER", help="their checkout")
    options.add_argument("--write", action="store_true", help="fill in docs/performance.md")
    chosen = options.parse_args(arguments)
    folders = {name: own for name, own in vars(chosen).items() if isinstance(own, Path)}
    if not folders:
        options.error("give at least one checkout, such as --rome FOLDER")
    quiet()
    try:
        rows = list(_rows(folders))
    except UserError as error:
        options.error(str(error))
    codes = ", ".join(f"{name} {commit(own)}" for name, own in folders.items())
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    title = f"{machine()}; {versions}; {codes}; ratios are medians of pairs of runs"
    Console(width=None if sys.stdout.isatty() else 200).print(table(rows, title))
    if chosen.write:
        text = DOCS.read_text(encoding="utf-8")
        write_text(DOCS, filled(text, markdown(rows, title), MARK))
    return int(not all(row.ok for row in rows))


def _rows(folders: dict[str, Path]) -> Iterator[Row]:
    for name, measure in (("rome", rome), ("memit", memit)):
        if name in folders:
            yield from (measure(folders[name], kind) for kind in SHAPES)
    if "svf" in folders:
        yield from svf(folders["svf"])
    if "easyedit" in folders:
        with tempfile.TemporaryDirectory() as scratch:
            for kind in SHAPES:
                yield evaluation(folders["easyedit"], kind, Path(scratch) / kind)


if __name__ == "__main__":
    sys.exit(main())
