"""README's table: the main table's few columns that say most."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.outcome import OURS, Found, read, shown
from eval.score import ALL, BASE
from eval.stats import paired
from pipeline.labels import method_label

PROTOCOL = "generate"
LOCALITY = ("locality", ALL)
COLUMNS = {
    "edit success": ("edit_success", ALL),
    "paraphrase": ("paraphrase", ALL),
    "portability": ("portability", ALL),
    "unseen kinds": ("hard", "Beyond"),
    "locality": LOCALITY,
    "capability": ("capability", ALL),
}
WITH_INTERVAL = ("edit success", "portability", "locality")
"""The others' intervals are in the main table; a row has to fit on a page."""


def table(folders: Sequence[Path]) -> str:
    """Every method of some runs, with how far our locality is above its own."""
    found = read(folders)
    titles = ["method", *COLUMNS, "SKE's locality is above it by"]
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for method in found.methods:
        cells = [method_label(method), *_values(found, method), _above(found, method)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _values(found: Found, method: str) -> list[str]:
    got = {title: found.of(PROTOCOL, method, place) for title, place in COLUMNS.items()}
    return [
        shown(one) if one is None or title in WITH_INTERVAL else f"{one.mean:.1f}"
        for title, one in got.items()
    ]


def _above(found: Found, method: str) -> str:
    own, there = (found.cases(PROTOCOL, m, LOCALITY) for m in (OURS, method))
    if method in (BASE, OURS) or not own.keys() & there.keys():
        return "-"
    test = paired(own, there)
    return f"{test.diff:+.1f} [{test.low:.1f}, {test.high:.1f}]"
