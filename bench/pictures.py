"""The results' figures, drawn from the same runs as their tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench.headline import COLUMNS, LOCALITY, PROTOCOL
from bench.outcome import Found, answers_of, read
from eval.retention import RetentionRow, decay, scored
from eval.score import ALL, BASE
from eval.stats import Interval
from eval.tables import TableRow
from pipeline import figures, retained

PORTABILITY = COLUMNS["portability"]
BALANCES = {"main/counterfact": "balance", "second-world/counterfact": "second-world"}
"""Runs -> the figure of what their edits reach and what they leave alone."""
SIZES = {
    "sizes/1-edits": 1,
    "sizes/4-edits": 4,
    "sizes/16-edits": 16,
    "main/counterfact": 64,
    "sizes/256-edits": 256,
    "thousand/1024-edits": 1024,
}
"""Runs -> how many edits they make in one batch."""
TRENDS = ("edit success", "portability", "locality")
ROUNDS = "sequential/16x16"

Groups = Mapping[str, Sequence[Path]]
"""Part/group -> finished runs."""


def draw(groups: Groups, parts: Sequence[str], out: Path) -> list[Path]:
    """Every figure that some runs of these parts belong to, as PNG files in `out`.

    Args:
        groups: All runs that are here; a figure of several groups shows those.
        parts: Figures of no other parts are drawn.
        out: Where the files go; figures of runs that are elsewhere stay.
    """
    here = {name: folders for name, folders in groups.items() if folders}
    new = {name for name in here if name.split("/")[0] in parts}
    drawn = [
        balance(read(here[group]), out / f"{name}.png")
        for group, name in BALANCES.items()
        if group in new
    ]
    if SIZES.keys() & new:
        found = {size: read(here[group]) for group, size in SIZES.items() if group in here}
        drawn.append(sizes(found, out / "sizes.png"))
    if ROUNDS in new:
        drawn.append(rounds(here[ROUNDS], out / "rounds.png"))
    return drawn


def balance(found: Found, path: Path) -> Path:
    """Portability against locality: top right is what an edit should be."""
    across, up = (
        figures.Panel(title, _by_method(lambda m, p=place: found.of(PROTOCOL, m, p), found.methods))
        for title, place in (("locality", LOCALITY), ("portability", PORTABILITY))
    )
    return figures.pareto(across, up, found.methods, path)


def sizes(found: Mapping[int, Found], path: Path) -> Path:
    """Metrics against the number of edits, for each method that was asked at two sizes or more."""
    panels = [(title, _trends(found, COLUMNS[title])) for title in TRENDS]
    return figures.trends(panels, "edits in one batch", path)


def _trends(found: Mapping[int, Found], place: tuple[str, str]) -> list[figures.Trend]:
    points: dict[str, list[tuple[int, TableRow]]] = {}
    for size, own in sorted(found.items()):
        for method, row in _by_method(
            lambda m, f=own: f.of(PROTOCOL, m, place), own.methods
        ).items():
            points.setdefault(method, []).append((size, row))
    return [
        figures.Trend(method, own)
        for method, own in points.items()
        if method != BASE and (len(own) > 1 or len(found) == 1)
    ]


def rounds(folders: Sequence[Path], path: Path) -> Path:
    """Success of sequential edits against how many edits came after them."""
    return figures.trends(faded(answers_of(folders).retention), "later edits", path)


def faded(answers: Sequence[RetentionRow]) -> list[tuple[str, list[figures.Trend]]]:
    """By metric, what is still known after so many later edits: over all seeds, where several."""
    table = decay(scored(answers))
    seeds = {row["seed"] for row in table}
    whole = ALL if ALL in seeds else seeds.pop()
    own = [row for row in table if row["seed"] == whole and row["method"] != BASE]
    return retained.panels(own, PROTOCOL, "later_edits")


def _by_method(
    value: Callable[[str], Interval | None], methods: Sequence[str]
) -> dict[str, TableRow]:
    got = {method: value(method) for method in methods}
    return {method: _row(one) for method, one in got.items() if one is not None}


def _row(found: Interval) -> TableRow:
    return {"mean": found.mean, "ci_low": found.low, "ci_high": found.high, "n": found.n}
