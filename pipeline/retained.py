"""The report's section on sequential edits: what is still known of earlier ones.

Reads an `Evidence`; writes figures where it is told to. Other runs have no such section.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.score import ALL
from eval.tables import TableRow
from pipeline import figures
from pipeline.evidence import Evidence
from pipeline.labels import PROTOCOLS, in_order, method_label, plain
from pipeline.pages import Cell, Table

SUCCESS = "edit_success"
MOST_STEPS = 7
"""Columns of the decay table."""
NOTHING = "-"


def section(evidence: Evidence) -> list[dict[str, Any]]:
    """Tables by protocol, what users see first."""
    protocols = list(dict.fromkeys(row["protocol"] for row in evidence.retention))
    return [
        {
            "name": protocol,
            "about": PROTOCOLS[protocol],
            "table": forgetting_table(evidence, protocol),
            "decay": decay_table(evidence, protocol),
        }
        for protocol in in_order(protocols)
    ]


def draw(evidence: Evidence, folder: Path) -> dict[str, Path]:
    """Heat maps, forgetting curves and decay of each protocol."""
    drawn: dict[str, Path] = {}
    for told in section(evidence):
        protocol = told["name"]
        for name, label, shown in (
            ("forgetting", "rounds made", panels(evidence.retention, protocol, "after_round")),
            ("decay", "later edits", panels(evidence.decay, protocol, "later_edits")),
        ):
            path = folder / f"{name}-{protocol}.png"
            drawn[f"{name}-{protocol}"] = figures.trends(shown, label, path)
        if maps := heat_maps(evidence, protocol):
            path = folder / f"retention-{protocol}.png"
            drawn[f"retention-{protocol}"] = figures.heat_maps(maps, path)
    return drawn


def panels(
    table: Sequence[TableRow], protocol: str, column: str
) -> list[tuple[str, list[figures.Trend]]]:
    """Success by metric as trends, one a method, over the numbers of a column."""
    own = [row for row in table if row["protocol"] == protocol and row.get("round", ALL) == ALL]
    return [
        (plain(metric), _trends([row for row in own if row["metric"] == metric], column))
        for metric in dict.fromkeys(row["metric"] for row in own)
    ]


def _trends(rows: Sequence[TableRow], column: str) -> list[figures.Trend]:
    points: dict[str, list[tuple[int, TableRow]]] = {}
    for row in rows:
        points.setdefault(row["method"], []).append((row[column], row))
    return [
        figures.Trend(method, sorted(own, key=lambda point: point[0]))
        for method, own in points.items()
    ]


def heat_maps(evidence: Evidence, protocol: str) -> list[figures.HeatMap]:
    """R[t, i] of every method but the unedited base, which has nothing to forget."""
    cells: dict[str, dict[tuple[int, int], float]] = {}
    for row in evidence.retention:
        if (row["protocol"], row["metric"]) == (protocol, SUCCESS) and row["round"] != ALL:
            own = cells.setdefault(row["method"], {})
            own[row["after_round"], row["round"]] = row["mean"]
    return [figures.HeatMap(m, cells[m]) for m in evidence.methods if m in cells and m != "base"]


def forgetting_table(evidence: Evidence, protocol: str) -> Table:
    """Success right after a fact's own round, and of the same facts after the last one."""
    last = len(evidence.rounds.rounds)
    fresh = _by_method(evidence.decay, protocol, "later_edits", 0)
    end = _by_method(evidence.retention, protocol, "after_round", last)
    first = {
        row["method"]: row
        for row in evidence.retention
        if (row["protocol"], row["metric"]) == (protocol, SUCCESS)
        and (row["after_round"], row["round"]) == (last, 1)
    }
    rows = [
        [
            method_label(method),
            _cell(fresh.get(method)),
            _cell(end.get(method)),
            _cell(first.get(method)),
        ]
        for method in evidence.methods
        if method in fresh and method in end
    ]
    columns = (
        "method",
        "right after its round",
        f"after round {last}",
        f"round 1 after round {last}",
    )
    return Table(columns, rows, f"Edit success, {plain(protocol)}")


def decay_table(evidence: Evidence, protocol: str) -> Table:
    """Success by how many edits came later."""
    steps = sorted({row["later_edits"] for row in evidence.decay})
    every = max(1, -(-len(steps) // MOST_STEPS))
    shown = [*steps[:-1:every], steps[-1]]
    by_step = {step: _by_method(evidence.decay, protocol, "later_edits", step) for step in shown}
    rows = [
        [method_label(method), *(_cell(by_step[step].get(method)) for step in shown)]
        for method in evidence.methods
    ]
    return Table(["method", *map(str, shown)], rows, "Edit success by number of later edits")


def _by_method(
    table: Sequence[TableRow], protocol: str, column: str, value: int
) -> dict[str, TableRow]:
    return {
        row["method"]: row
        for row in table
        if (row["protocol"], row["metric"], row[column]) == (protocol, SUCCESS, value)
        and row.get("round", ALL) == ALL
    }


def _cell(row: TableRow | None) -> Cell:
    if row is None:
        return Cell(NOTHING)
    return Cell(f"{row['mean']:.1f}", f"[{row['ci_low']:.1f}, {row['ci_high']:.1f}]")
