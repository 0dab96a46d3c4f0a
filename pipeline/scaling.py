"""`ske scale`: runs that differ in how many edits they make become metrics against that number.

Writes `scale.csv` (the columns of `results.csv` behind `edits`), `scale.md` and a figure for each
protocol. The number of edits is no seed: it is what is looked at, so `ske combine` refuses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from eval.score import ALL
from eval.seeds import Runs, by_size
from eval.tables import RESULT_COLUMNS, TableRow, results, write_csv
from pipeline import figures
from pipeline.labels import METRICS, PROTOCOLS, in_order, method_label, plain
from ske.io import write_text

SCALE_COLUMNS = ("edits", *RESULT_COLUMNS)


def scale(folders: Sequence[Path], out: Path) -> str:
    """Write the table, its Markdown and the figures into `out`; returns the Markdown.

    Raises:
        UserError: If the runs don't belong together, see `eval.seeds.by_size`; nothing is written.
    """
    sizes = by_size(folders)
    table = [
        {"edits": size, **row}
        for size, runs in sizes.items()
        for row in results(runs.answers.rows, beside=runs.answers.beside.values)
    ]
    protocols = in_order(list(dict.fromkeys(row["protocol"] for row in table)))
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / "scale.csv", SCALE_COLUMNS, table)
    parts = [_told(sizes)]
    for protocol in protocols:
        panels = panels_of(table, protocol)
        path = figures.trends(panels, "edits", out / "figures" / f"scale-{protocol}.png")
        parts += [f"## {PROTOCOLS[protocol]}", f"![By number of edits](figures/{path.name})"]
        parts += [_markdown(title, trends) for title, trends in panels]
    text = "\n\n".join(parts) + "\n"
    write_text(out / "scale.md", text)
    return text


def panels_of(table: Sequence[TableRow], protocol: str) -> list[tuple[str, list[figures.Trend]]]:
    """Metrics as trends over the number of edits, one a method."""
    chosen: dict[str, dict[str, dict[int, TableRow]]] = {}
    for row in table:
        if (row["protocol"], row["category"]) == (protocol, ALL) and row["mean"] is not None:
            of_method = chosen.setdefault(row["metric"], {}).setdefault(row["method"], {})
            # Rows over all seeds come after those of single seeds, and replace them.
            of_method[row["edits"]] = row
    return [
        (plain(metric), [figures.Trend(m, sorted(own.items())) for m, own in methods.items()])
        for metric in METRICS
        if (methods := chosen.get(metric))
    ]


def _told(sizes: Mapping[int, Runs]) -> str:
    lines = [
        f"- {size}: {', '.join(str(folder) for folder in runs.seeds.values())}"
        for size, runs in sizes.items()
    ]
    return "\n".join(["Edits made, and the runs that made so many:", "", *lines])


def _markdown(title: str, trends: Sequence[figures.Trend]) -> str:
    sizes = sorted({size for trend in trends for size, _ in trend.points})
    lines = [f"{title.capitalize()} by number of edits, percent with 95 % intervals:", ""]
    lines += ["| method | " + " | ".join(map(str, sizes)) + " |", "|---" * (len(sizes) + 1) + "|"]
    for trend in trends:
        own = dict(trend.points)
        cells = [_cell(own.get(size)) for size in sizes]
        lines.append("| " + " | ".join([method_label(trend.method), *cells]) + " |")
    return "\n".join(lines)


def _cell(row: TableRow | None) -> str:
    if row is None:
        return "-"
    return f"{row['mean']:.1f} [{row['ci_low']:.1f}, {row['ci_high']:.1f}]"
