"""One measured ratio: what, ours, the reference, and what the ratio must be."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.table import Table

COLUMNS = ("what", "ours", "reference", "ratio", "lowest to highest", "must be", "")


class Row(NamedTuple):
    """A line of the table."""

    what: str
    ours: str
    """With its unit."""
    reference: str
    ratios: Sequence[float]
    """One a pair of runs; a single one where nothing but counting is done."""
    at_least: float | None = None
    at_most: float | None = None
    wrong: str = ""
    """What differs that must not; "" if all that was compared is equal."""

    @property
    def ratio(self) -> float:
        """The median of the pairs."""
        return statistics.median(self.ratios)

    @property
    def ok(self) -> bool:
        """Whether the median is what it must be, and nothing differs that must not."""
        low = self.at_least is None or self.ratio >= self.at_least
        high = self.at_most is None or self.ratio <= self.at_most
        return low and high and not self.wrong

    @property
    def must(self) -> str:
        """In words."""
        if self.at_least is not None:
            return f"at least {self.at_least:g}"
        return "-" if self.at_most is None else f"at most {self.at_most:g}"

    def cells(self) -> list[str]:
        """As texts, one a column."""
        spread = f"{min(self.ratios):.2f} to {max(self.ratios):.2f}"
        spread += f" ({len(self.ratios)})" if len(self.ratios) > 1 else ""
        verdict = self.wrong or ("ok" if self.ok else "missed")
        shown = spread if len(self.ratios) > 1 else "-"
        ratio = f"{self.ratio:.2f}"
        return [self.what, self.ours, self.reference, ratio, shown, self.must, verdict]

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return {**self._asdict(), "ratios": list(self.ratios), "ratio": self.ratio, "ok": self.ok}


def table(rows: Sequence[Row], title: str) -> Table:
    """For the terminal."""
    shown = Table(*COLUMNS, title=title)
    for row in rows:
        shown.add_row(*row.cells(), style=None if row.ok else "red")
    return shown


def markdown(rows: Sequence[Row], title: str) -> str:
    """For a document."""
    lines = [f"{title}.", "", "| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(row.cells()) + " |" for row in rows]
    return "\n".join(lines) + "\n"
