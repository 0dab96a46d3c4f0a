"""What the page of `ske inspect` draws: capacity curves, the recall map, prompts with facts marked.

Pure: numbers and plain texts go in and come out; the template makes markup of them and escapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from agents.records import CurveRow, Pack
from pipeline.stories import place_of
from pipeline.trials import Tried
from ske.types import Fact

WIDE, HIGH, LEFT, BOTTOM, TOP, RIGHT = 460, 240, 38, 34, 10, 12
"""A panel in units of its view box, and its margins."""
COLOURS = 8
"""So many layouts have a colour of their own in the style sheet (k0, k1, ...)."""


class Dot(NamedTuple):
    """A measured point."""

    x: float
    y: float
    told: str


class Line(NamedTuple):
    """One layout under one packer."""

    label: str
    colour: int
    naive: bool
    points: str
    """As SVG wants them."""
    dots: list[Dot]


class Panel(NamedTuple):
    """One quantity against facts per prompt."""

    title: str
    lines: list[Line]
    across: list[tuple[float, str]]
    """Ticks: place and label."""
    up: list[tuple[float, str]]


def panels(curve: Sequence[CurveRow]) -> list[Panel]:
    """Recall, consequences and drift, in %, against facts per prompt (logarithmic)."""
    kinds: list[tuple[str, Callable[[CurveRow], float | None]]] = [
        ("facts recalled, %", lambda row: row.recall),
        ("consequences answered, %", lambda row: row.consequences),
        ("neighbours that drifted, %", lambda row: row.drift),
    ]
    most = max((row.facts_per_prompt for row in curve), default=1)
    return [_panel(title, curve, of, most) for title, of in kinds]


def _panel(
    title: str, curve: Sequence[CurveRow], of: Callable[[CurveRow], float | None], most: int
) -> Panel:
    layouts = list(dict.fromkeys(row.layout for row in curve if row.packer == "designer"))
    named = [(layout, "designer") for layout in layouts] + [("prose", "naive")]
    lines = []
    for layout, packer in named:
        rows = _comparable([r for r in curve if (r.layout, r.packer) == (layout, packer)])
        dots = [_dot(row, value, most) for row in rows if (value := of(row)) is not None]
        if dots:
            label = "naive packer" if packer == "naive" else layout
            colour = COLOURS - 1 if packer == "naive" else layouts.index(layout) % (COLOURS - 1)
            points = " ".join(f"{dot.x},{dot.y}" for dot in dots)
            lines.append(Line(label, colour, packer == "naive", points, dots))
    sizes = [size for size in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024) if size <= most]
    across = [(_across(size, most), str(size)) for size in sizes]
    return Panel(title, lines, across, [(_up(s), f"{s:.0%}"[:-1]) for s in (0, 0.25, 0.5, 0.75, 1)])


def _comparable(rows: Sequence[CurveRow]) -> list[CurveRow]:
    """One row for each capacity: under the usual header, over the most facts."""
    best: dict[int, CurveRow] = {}
    for row in sorted(rows, key=lambda r: (r.header in ("correct", "none"), r.n)):
        best[row.facts_per_prompt] = row
    return [best[size] for size in sorted(best)]


def _dot(row: CurveRow, value: float, most: int) -> Dot:
    told = f"{row.layout}, {row.facts_per_prompt} facts per prompt: {value:.0%} (n = {row.n})"
    return Dot(_across(row.facts_per_prompt, most), _up(value), told)


def _across(size: int, most: int) -> float:
    share = math.log2(size) / math.log2(most) if most > 1 else 0.5
    return round(LEFT + share * (WIDE - LEFT - RIGHT), 1)


def _up(share: float) -> float:
    return round(HIGH - BOTTOM - share * (HIGH - BOTTOM - TOP), 1)


class MapRow(NamedTuple):
    """One fact in the recall map."""

    fact: str
    cells: str
    """A letter a trial: y recalled, n not, - not asked."""
    share: str


def recall_map(facts: Sequence[str], trials: Sequence[Tried]) -> list[MapRow]:
    """Which fact was recalled in which trial; the hardest facts first."""
    marks = [
        {fact: ok for prompt in trial.prompts for fact, ok in prompt.recalled.items()}
        for trial in trials
    ]
    rows = []
    for fact in facts:
        said = [seen.get(fact) for seen in marks]
        asked = [ok for ok in said if ok is not None]
        cells = "".join("-" if ok is None else "ny"[ok] for ok in said)
        rows.append((sum(asked) / max(1, len(asked)), fact, cells, f"{sum(asked)} of {len(asked)}"))
    rows.sort(key=lambda row: row[0])  # Stable: facts that are equally hard keep their order.
    return [MapRow(fact, cells, share) for _, fact, cells, share in rows]


class Part(NamedTuple):
    """A stretch of a prompt: a fact's statement, or what stands between two."""

    text: str
    fact: str = ""
    recalled: bool = True


def marked(pack: Pack, facts: Mapping[str, Fact], lost: Mapping[str, str]) -> list[Part]:
    """A prompt cut into parts, so that each fact can be seen with what became of it."""
    places = []
    for fact_id in pack.fact_ids:
        if fact_id in facts:
            start, end = place_of(pack.system, facts[fact_id])
            if end > start:
                places.append((end, start, fact_id))
    parts, at = [], 0
    for end, start, fact_id in sorted(places):
        start = max(start, at)  # Facts of one subject share its name: the first one has it.
        if start >= end:
            continue
        if start > at:
            parts.append(Part(pack.system[at:start]))
        parts.append(Part(pack.system[start:end], fact_id, fact_id not in lost))
        at = end
    return [*parts, Part(pack.system[at:])] if at < len(pack.system) else parts
