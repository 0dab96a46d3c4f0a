"""README's tables: every method on the main runs, and SKE on all of them, in a few columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

from bench.outcome import CHANGE, OURS, Found, read, shown
from eval.score import ALL, BASE
from eval.stats import paired
from pipeline.labels import method_label
from pipeline.places import costs_of
from pipeline.run import Run
from pipeline.sheets import size_text
from ske.config import load

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


GROUPS = {
    "main/counterfact": "64 edits",
    "second-world/counterfact": "64 edits, a second world",
    "sizes/1-edits": "1 edit",
    "sizes/4-edits": "4 edits",
    "sizes/16-edits": "16 edits",
    "sizes/256-edits": "256 edits",
    "thousand/1024-edits": "1,024 edits",
    "sequential/16x16": "16 rounds of 16 edits",
    "tasks/insertion": "64 facts that nobody knew",
    "tasks/erasure": "64 facts erased",
}
"""Part/group of runs -> what its row is called, in the order of the rows."""
OVERVIEW = ("edit success", "paraphrase", "portability", "locality")

COSTS: dict[str, tuple[str, Callable[[float], str]]] = {
    "seconds": ("seconds", lambda seconds: f"{seconds:.1f}"),
    "memory for it": ("extra_mb", lambda mb: f"{mb:,.0f} MB"),
    "size": ("bytes", lambda size: size_text(round(size))),
}
"""Column -> a cost, and how it is told."""


def overview(groups: Mapping[str, Sequence[Path]], before: str) -> str:
    """A row for each group of runs that is here; rows of others stay as they are.

    Args:
        groups: Part/group -> finished runs.
        before: The table that is replaced.
    """
    titles = ["SKE on", "draws", *OVERVIEW, "capability against the base", "next in locality"]
    rows = {name: line for line in before.splitlines() if (name := line[1:].split("|")[0].strip())}
    for place, folders in groups.items():
        if place in GROUPS and folders:
            cells = [GROUPS[place], str(len(folders)), *_overviewed(read(folders))]
            rows[GROUPS[place]] = "| " + " | ".join(cells) + " |"
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    return "\n".join([*lines, *(rows[name] for name in GROUPS.values() if name in rows)])


def _overviewed(found: Found) -> list[str]:
    """Our values, and who of the others keeps most of what it should."""
    places = [*(COLUMNS[title] for title in OVERVIEW), (CHANGE, ALL)]
    cells = [shown(found.of(PROTOCOL, OURS, place)) for place in places]
    others = {
        method: got.mean
        for method in found.methods
        if method not in (BASE, OURS) and (got := found.of(PROTOCOL, method, LOCALITY))
    }
    if not others:
        return [*cells, "-"]
    nearest = max(others, key=others.__getitem__)
    made = found.of(PROTOCOL, nearest, COLUMNS["edit success"])
    success = f" (edit success {made.mean:.1f})" if made else ""
    return [*cells, f"{method_label(nearest)} {others[nearest]:.1f}{success}"]


def costs(folders: Sequence[Path]) -> str:
    """What an edit of some runs takes, by method: the median run's."""
    runs = [Run(load(folder / "config.yaml"), folder) for folder in folders]
    lines = ["| method | " + " | ".join(COSTS) + " |", "|---" * (len(COSTS) + 1) + "|"]
    for method in runs[0].config.methods:
        cells = [method_label(method), *_costs([costs_of(run, method) for run in runs])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _costs(made: Sequence[Mapping[str, float]]) -> list[str]:
    known = {key: [one[key] for one in made if key in one] for key, _ in COSTS.values()}
    return [told(median(known[key])) if known[key] else "-" for key, told in COSTS.values()]


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
