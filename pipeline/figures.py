"""The figures of a report: small, legible at column width, one colour a method throughout.

Writes PNG files; reads nothing. Draws with matplotlib's Agg canvas, without global state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from agents.records import CurveRow
from eval.tables import TableRow
from pipeline.labels import LAYOUT_COLOURS, OTHER, method_colour, method_label, plain
from pipeline.places import is_taught

WIDTH = 3.6
"""Inches: a column of a paper."""
DPI = 220
INK, FAINT = "#222222", "#d9d9d9"
TINY, SMALL = 6.5, 7.5
NAIVE = "#555555"
LOG_FROM = 8
"""Numbers of edits this many times apart are drawn on a log scale."""
MOST_TICKS = 10
MOST_NUMBERS = 8
"""Heat maps of more rounds have colours only."""
DARK = 55
"""From this value on, white figures are legible on the heat map's blue."""


class Panel(NamedTuple):
    """One small plot: a title and a result by method."""

    title: str
    values: Mapping[str, TableRow]


class Line(NamedTuple):
    """One series of the capacity curve."""

    label: str
    colour: str
    dashed: bool
    points: list[tuple[int, float]]


def dots(panels: Sequence[Panel], methods: Sequence[str], path: Path) -> Path:
    """A dot with its 95 % interval for every method, one panel a metric or category."""
    columns = min(2, len(panels))
    lines = math.ceil(len(panels) / columns)
    height = lines * (0.38 + 0.17 * len(methods)) + 0.28
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False)
    for number, axis in enumerate(axes.flat):
        if number < len(panels):
            _dots(axis, panels[number], methods, named=number % columns == 0)
        else:
            _key(axis)
    for axis in axes[-1]:
        axis.set_xlabel("%", fontsize=TINY, color=INK, labelpad=1)
    return _save(figure, path)


def _dots(axis: Axes, panel: Panel, methods: Sequence[str], named: bool) -> None:
    axis.set_title(panel.title, fontsize=SMALL, loc="left", color=INK, pad=3)
    for place, method in enumerate(methods):
        row = panel.values.get(method)
        if row is not None:
            _dot(axis, place, row, method_colour(method))
    axis.set_yticks(range(len(methods)), [method_label(m) if named else "" for m in methods])
    for label, method in zip(axis.get_yticklabels(), methods, strict=True):
        label.set_color(method_colour(method))
        label.set_fontweight("bold" if is_taught(method) else "normal")
    axis.set_ylim(len(methods) - 0.5, -0.5)
    axis.set_xlim(-3, 103)
    axis.set_xticks((0, 50, 100))
    axis.grid(axis="x", color=FAINT, linewidth=0.6)
    _bare(axis)


def _dot(axis: Axes, place: int, row: TableRow, colour: str) -> None:
    mean, low, high = row["mean"], row["ci_low"], row["ci_high"]
    axis.plot((low, high), (place, place), color=colour, linewidth=1.4, alpha=0.55, zorder=2)
    axis.plot(mean, place, "o", color=colour, markersize=3.6, zorder=3, clip_on=False)
    axis.annotate(
        f"{mean:.0f}",
        (1.0, place),
        xycoords=("axes fraction", "data"),
        xytext=(17, 0),
        textcoords="offset points",
        fontsize=TINY,
        color=colour,
        va="center",
        ha="right",
    )


def pareto(across: Panel, up: Panel, methods: Sequence[str], path: Path) -> Path:
    """One metric against another, a cross of both intervals for every method; top right is best."""
    figure = Figure(figsize=(WIDTH, WIDTH * 0.82), layout="constrained")
    axis = figure.subplots()
    both = [name for name in methods if name in across.values and name in up.values]
    heights = _spread([up.values[name]["mean"] for name in both], gap=5.5)
    for name, height in zip(both, heights, strict=True):
        x, y, colour = across.values[name], up.values[name], method_colour(name)
        axis.plot((x["ci_low"], x["ci_high"]), (y["mean"],) * 2, color=colour, alpha=0.5)
        axis.plot((x["mean"],) * 2, (y["ci_low"], y["ci_high"]), color=colour, alpha=0.5)
        axis.plot(x["mean"], y["mean"], "o", color=colour, markersize=4.5)
        # Beside the plot, at the dot's height: dots often lie on one another at 100 %.
        axis.annotate(
            method_label(name),
            (x["mean"], y["mean"]),
            xycoords="data",
            xytext=(1.03, height),
            textcoords=("axes fraction", "data"),
            fontsize=TINY,
            color=colour,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "alpha": 0.35, "linewidth": 0.6},
        )
    axis.set(xlim=(-3, 103), ylim=(-3, 103), xticks=(0, 50, 100), yticks=(0, 50, 100))
    axis.set_xlabel(f"{across.title}, %", fontsize=SMALL, color=INK)
    axis.set_ylabel(f"{up.title}, %", fontsize=SMALL, color=INK)
    axis.grid(color=FAINT, linewidth=0.6)
    _bare(axis)
    return _save(figure, path)


def _key(axis: Axes) -> None:
    """In the empty corner: how to read the others."""
    axis.axis("off")
    axis.plot((0.02, 0.2), (0.8, 0.8), color=OTHER, linewidth=1.4, alpha=0.55)
    axis.plot(0.11, 0.8, "o", color=OTHER, markersize=3.6)
    axis.set(xlim=(0, 1), ylim=(0, 1))
    words = "mean over facts and\n95 % interval"
    axis.text(0.27, 0.8, words, fontsize=TINY, color=OTHER, va="center")


def curve(rows: Sequence[CurveRow], wanted: float, path: Path) -> Path:
    """Recall, consequences and drift against facts per prompt; the naive packer dashed."""
    measures = [
        (key, title)
        for key, title in (
            ("recall", "recall"),
            ("consequences", "consequences"),
            ("drift", "drift of neighbours (lower is better)"),
        )
        if any(row.model_dump()[key] is not None for row in rows)
    ]
    figure = Figure(figsize=(WIDTH, 1.25 * len(measures) + 0.3), layout="constrained")
    axes = figure.subplots(len(measures), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (key, title) in zip(axes, measures, strict=True):
        axis.set_title(title, fontsize=SMALL, loc="left", color=INK, pad=3)
        if key == "recall":
            _wanted(axis, wanted)
        _lines(axis, series(rows, key))
    _capacity_axis(axes[-1], sorted({row.facts_per_prompt for row in rows}))
    return _save(figure, path)


def series(rows: Sequence[CurveRow], key: str) -> list[Line]:
    """One line a layout and packer; of several headers at a capacity the best recall counts."""
    chosen: dict[tuple[str, str, int], CurveRow] = {}
    for row in sorted(rows, key=lambda r: r.recall):
        chosen[row.packer, row.layout, row.facts_per_prompt] = row
    lines: dict[tuple[str, str], Line] = {}
    for (packer, layout, size), row in sorted(chosen.items()):
        value = row.model_dump()[key]
        if value is None:
            continue
        naive = packer == "naive"
        colour = NAIVE if naive else LAYOUT_COLOURS.get(layout, OTHER)
        label = "naive" if naive else plain(layout)
        line = lines.setdefault((packer, layout), Line(label, colour, naive, []))
        line.points.append((size, 100 * value))
    return list(lines.values())


class Trend(NamedTuple):
    """A method's results in the order of some number of edits."""

    method: str
    points: Sequence[tuple[int, TableRow]]


def trends(panels: Sequence[tuple[str, Sequence[Trend]]], label: str, path: Path) -> Path:
    """Means with their intervals as bands, one panel a metric; few numbers apart on a log scale."""
    figure = Figure(figsize=(WIDTH, 1.4 * len(panels) + 0.3), layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (title, own) in zip(axes, panels, strict=True):
        axis.set_title(title, fontsize=SMALL, loc="left", color=INK, pad=3)
        for trend in own:
            _band(axis, trend)
        _lines(
            axis,
            [
                Line(
                    method_label(trend.method),
                    method_colour(trend.method),
                    trend.method == "base",
                    [(x, row["mean"]) for x, row in trend.points],
                )
                for trend in own
            ],
        )
    _edits_axis(axes[-1], sorted({x for _, own in panels for t in own for x, _ in t.points}), label)
    return _save(figure, path)


def _band(axis: Axes, trend: Trend) -> None:
    xs = [x for x, _ in trend.points]
    low, high = ([row[key] for _, row in trend.points] for key in ("ci_low", "ci_high"))
    colour = method_colour(trend.method)
    axis.fill_between(xs, low, high, color=colour, alpha=0.12, linewidth=0)


def _edits_axis(axis: Axes, places: Sequence[int], label: str) -> None:
    # 1, 4, 16, 64, 256 edits lie evenly on a log scale; 0, 4, 8, 12 do not.
    if places[0] > 0 and len(places) > 1 and places[-1] / places[0] >= LOG_FROM:
        axis.set_xscale("log", base=2)
    shown = places[:: math.ceil(len(places) / MOST_TICKS)]
    axis.xaxis.set_major_locator(FixedLocator(shown))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.set_xlabel(label, fontsize=SMALL, color=INK)


class HeatMap(NamedTuple):
    """R[t, i] of one method: success of round i's facts after round t."""

    method: str
    cells: Mapping[tuple[int, int], float]
    """By (t, i)."""


def heat_maps(maps: Sequence[HeatMap], path: Path) -> Path:
    """One square a method: down the rounds that were made, across whose facts are asked."""
    columns = min(2, len(maps))
    lines = math.ceil(len(maps) / columns)
    figure = Figure(figsize=(WIDTH, 1.75 * lines + 0.25), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False)
    for number, axis in enumerate(axes.flat):
        if number < len(maps):
            _heat(axis, maps[number], named=number % columns == 0)
        else:
            axis.axis("off")
    for axis in axes[-1]:
        axis.set_xlabel("facts of round", fontsize=TINY, color=INK, labelpad=1)
    return _save(figure, path)


def _heat(axis: Axes, one: HeatMap, named: bool) -> None:
    size = max(after for after, _ in one.cells)
    grid = [
        [one.cells.get((after, own), math.nan) for own in range(1, size + 1)]
        for after in range(1, size + 1)
    ]
    axis.imshow(grid, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    axis.set_title(
        method_label(one.method),
        fontsize=SMALL,
        loc="left",
        color=method_colour(one.method),
        pad=3,
    )
    if size <= MOST_NUMBERS:
        for (after, own), value in one.cells.items():
            axis.text(
                own - 1,
                after - 1,
                f"{value:.0f}",
                fontsize=TINY,
                color="white" if value > DARK else INK,
                ha="center",
                va="center",
            )
    shown = range(0, size, math.ceil(size / MOST_TICKS))
    axis.set_xticks(list(shown), [str(place + 1) for place in shown])
    axis.set_yticks(list(shown), [str(place + 1) for place in shown])
    if named:
        axis.set_ylabel("after round", fontsize=TINY, color=INK, labelpad=2)
    _bare(axis)


def _lines(axis: Axes, lines: Sequence[Line]) -> None:
    for line in lines:
        xs, ys = zip(*line.points, strict=True)
        style = "--" if line.dashed else "-"
        axis.plot(
            xs, ys, style, color=line.colour, linewidth=1.2, marker="o", markersize=2.4, alpha=0.9
        )
    ends = [line.points[-1][1] for line in lines]
    for line, height in zip(lines, _spread(ends, gap=13.0), strict=True):
        axis.annotate(
            line.label,
            (1.0, height),
            xycoords=("axes fraction", "data"),
            xytext=(3, 0),
            textcoords="offset points",
            fontsize=TINY,
            color=line.colour,
            va="center",
            annotation_clip=False,
        )
    axis.set_ylim(-4, 104)
    axis.set_yticks((0, 50, 100), ("0", "50", "100 %"))
    axis.grid(axis="y", color=FAINT, linewidth=0.6)
    _bare(axis)


def _spread(heights: Sequence[float], gap: float) -> list[float]:
    """Moves labels apart until none lies on another, each as little as possible.

    Labels that touch become one block around the mean of where they belong.
    """
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    blocks: list[list[int]] = []
    for i in order:
        blocks.append([i])
        while len(blocks) > 1 and _low(blocks[-1], heights, gap) < (
            _low(blocks[-2], heights, gap) + gap * len(blocks[-2])
        ):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    placed = list(heights)
    for block in blocks:
        for rank, i in enumerate(block):
            placed[i] = _low(block, heights, gap) + gap * rank
    return placed


def _low(block: Sequence[int], heights: Sequence[float], gap: float) -> float:
    middle, size = sum(heights[i] for i in block) / len(block), gap * (len(block) - 1)
    return max(0.0, min(100 - size, middle - size / 2))


def _wanted(axis: Axes, share: float) -> None:
    axis.axhline(100 * share, color=INK, linewidth=0.7, linestyle=":")
    axis.annotate(
        "wanted",
        (0.0, 100 * share),
        xycoords=("axes fraction", "data"),
        xytext=(2, 1.5),
        textcoords="offset points",
        fontsize=TINY - 0.5,
        color=INK,
    )


def _capacity_axis(axis: Axes, sizes: Sequence[int]) -> None:
    axis.set_xscale("log", base=2)
    highest = max(1, math.ceil(math.log2(max(sizes))))
    axis.xaxis.set_major_locator(FixedLocator([2**i for i in range(highest + 1)]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.set_xlim(min(sizes) / 1.15, max(max(sizes), 2) * 1.15)
    axis.set_xlabel("facts per prompt", fontsize=SMALL, color=INK)


def _bare(axis: Axes) -> None:
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color(FAINT)
    axis.tick_params(length=0, labelsize=TINY, pad=2)
    axis.set_axisbelow(True)


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    # No version and no date inside: the same numbers give the same bytes.
    figure.savefig(path, dpi=DPI, facecolor="white", metadata={"Software": None})
    return path
