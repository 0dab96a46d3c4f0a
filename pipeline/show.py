"""Tables on the terminal: results, the plan of a run, listings."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from pipeline.run import Run

METRICS = ("edit_success", "paraphrase", "portability", "locality", "capability")


def read_csv(path: Path) -> list[dict[str, str]]:
    """A saved table as text cells."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def table(run: Run) -> Group:
    """The results, one table a protocol: methods down, metrics across, intervals below."""
    rows = [row for row in read_csv(run.folder / "results.csv") if row["category"] == "all"]
    protocols = list(dict.fromkeys(row["protocol"] for row in rows))
    return Group(*(_results(rows, protocol) for protocol in protocols))


def _results(rows: list[dict[str, str]], protocol: str) -> Table:
    mine = [row for row in rows if row["protocol"] == protocol]
    cells = {(row["method"], row["metric"]): row for row in mine}
    metrics = [m for m in METRICS if any(row["metric"] == m for row in mine)]
    n = max((int(row["n"]) for row in mine if row["metric"] == "edit_success"), default=0)
    drawn = Table(title=f"{protocol} - {n} edits, mean [95 % interval]", title_justify="left")
    drawn.add_column("method")
    for metric in metrics:
        drawn.add_column(metric.replace("_", " "), justify="right")
    for method in dict.fromkeys(row["method"] for row in mine):
        drawn.add_row(method, *(_cell(cells.get((method, metric))) for metric in metrics))
    return drawn


def _cell(row: dict[str, str] | None) -> str:
    if row is None or not row["mean"]:
        return "-"
    low, mean, high = (float(row[key]) for key in ("ci_low", "mean", "ci_high"))
    return f"{mean:.1f} [dim]\\[{low:.1f}, {high:.1f}][/dim]"


def plan_table(run: Run) -> Table:
    """Where every stage stands."""
    drawn = Table(title=escape(str(run.folder)), title_justify="left")
    for column in ("stage", "state", "seconds", "why"):
        drawn.add_column(column)
    colours = {"done": "green", "stale": "yellow", "to do": "dim"}
    for item in run.plan():
        drawn.add_row(
            item.stage.name,
            f"[{colours[item.state]}]{item.state}[/]",
            "" if item.seconds is None else f"{item.seconds:.1f}",
            escape("\n".join(item.reasons)) or item.stage.about,
        )
    return drawn


def stale_notes(run: Run) -> list[str]:
    """What somebody should know who has a report made of answers that a run would make again."""
    config = f"{run.folder}/config.yaml"
    about = {
        "configuration": f"was made with another configuration than {config} now has",
        "damage": f"is not as it was made, but read as it is; to make it again: ske run {config}",
        "another stage": "was made of what another stage would make again",
    }
    notes: list[str] = []
    for item in run.plan():
        if item.cause is None or item.stage.name in ("score", "report"):
            continue
        # What follows from a stage that was told of goes without saying.
        if item.cause != "another stage" or not notes:
            why = "; ".join(item.reasons[:2])
            notes.append(f"Note: {item.stage.name} {about[item.cause]} ({why})")
    return notes


def listing(title: str, rows: Sequence[tuple[str, str]]) -> Table:
    """Names with a line on each."""
    drawn = Table()
    drawn.add_column(title)
    drawn.add_column("what it is")
    for name, about in rows:
        drawn.add_row(name, about)
    return drawn
