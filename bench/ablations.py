"""What each part of the recipe is for: SKE with one thing changed at a time, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.outcome import COLUMNS, OURS, Column, Found, read, shown
from eval.score import ALL
from eval.stats import paired

PROTOCOL = "generate"
SHOWN = (
    ("edit_success", ALL),
    ("paraphrase", ALL),
    ("portability", ALL),
    ("hard", "Beyond"),
    ("locality", ALL),
    ("locality", "Neighborhood"),
    ("capability", ALL),
    ("self_refutation", ALL),
)


def section(groups: Mapping[str, Sequence[Path]], planned: int) -> str:
    """The first group as it is, each other one as its difference from that.

    Args:
        groups: What was changed -> the finished runs; the first is the whole recipe.
        planned: How many runs each should have.
    """
    whole, *others = groups
    lines = [
        f"Each but the first row: the mean, and its difference from the row {whole!r} (paired over "
        "edits and seeds, 95 % interval).",
        "",
    ]
    if not groups[whole]:
        return lines[0] + "\n\nNot run yet."
    reference = read(groups[whole])
    columns = [c for c in COLUMNS if c.place in SHOWN]
    lines += [
        "| SKE | seeds | " + " | ".join(c.title for c in columns) + " |",
        "|---" * (len(columns) + 2) + "|",
        _row(whole, len(groups[whole]), planned, [_mean(reference, c) for c in columns]),
    ]
    for name in others:
        cells = ["-"] * len(columns)
        if groups[name]:
            seeds = {folder.name for folder in groups[name]}
            # One run names its cases otherwise than several do: each group beside the same seeds.
            same = [folder for folder in groups[whole] if folder.name in seeds] or groups[whole]
            beside = reference if same == groups[whole] else read(same)
            found = read(groups[name])
            cells = [_difference(found, beside, column) for column in columns]
        lines.append(_row(name, len(groups[name]), planned, cells))
    return "\n".join(lines)


def _row(name: str, done: int, planned: int, cells: Sequence[str]) -> str:
    return f"| {name} | {done} of {planned} | " + " | ".join(cells) + " |"


def _mean(found: Found, column: Column) -> str:
    return shown(found.of(PROTOCOL, OURS, column.place))


def _difference(found: Found, reference: Found, column: Column) -> str:
    own, there = (each.cases(PROTOCOL, OURS, column.place) for each in (found, reference))
    got = found.of(PROTOCOL, OURS, column.place)
    if got is None or not own.keys() & there.keys():
        return shown(got)
    test = paired(own, there)
    return f"{got.mean:.1f} ({test.diff:+.1f} [{test.low:.1f}, {test.high:.1f}])"
