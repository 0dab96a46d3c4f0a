"""Published figures of other models, which a reader of a report will have in mind. Data alone.

They stand beside a run's own results and are compared with nothing: another model, mostly other
data, one edit at a time, teacher-forced, without intervals.
"""

from __future__ import annotations

from typing import NamedTuple

from pipeline.pages import Table

OVERVIEW = (
    ("LoRA", (75.4, 82.1, 70.3)),
    ("IKE", (73.2, 80.5, 72.6)),
    ("PROMPT", (67.8, 77.4, 66.5)),
    ("SVF", (76.3, 79.8, 71.2)),
)
"""Edit success, locality, portability in percent, from research slides of April 2025 that this
project starts from; model and protocol are not stated there."""

METHODS = ("SERAC", "ICE (prompt)", "AdaLoRA", "MEND", "ROME", "MEMIT", "FT-L", "FT-M")
ES, PORT, LOC, FLU = "edit success", "portability", "locality", "fluency (0.01 bits)"

KNOWEDIT: dict[str, dict[str, tuple[float, ...]]] = {
    "wiki_recent": {
        ES: (98.68, 60.74, 100, 95.75, 97.18, 97.05, 55.75, 100),
        PORT: (63.52, 36.93, 64.69, 55.88, 55.25, 56.37, 40.86, 65.44),
        LOC: (100, 33.34, 56.42, 94.76, 54.77, 52.15, 43.70, 64.33),
        FLU: (553.19, 531.01, 579.57, 557.11, 579.66, 573.89, 529.24, 574.32),
    },
    "zsre": {
        ES: (99.67, 66.01, 100, 96.74, 96.77, 95.37, 53.93, 99.98),
        PORT: (56.48, 63.94, 58.03, 60.41, 52.63, 52.67, 45.64, 60.31),
        LOC: (30.23, 23.14, 75.76, 92.79, 53.67, 48.32, 73.42, 89.78),
        FLU: (410.89, 541.14, 563.56, 524.33, 573.75, 563.31, 493.01, 552.26),
    },
    "wikibio": {
        ES: (99.69, 95.53, 100, 93.66, 96.08, 94.40, 66.33, 100),
        LOC: (69.79, 47.90, 81.28, 69.51, 62.74, 61.51, 79.86, 93.38),
        FLU: (606.95, 632.92, 618.45, 609.39, 617.69, 616.65, 606.95, 612.69),
    },
    "wiki_counterfact": {
        ES: (99.99, 69.83, 100, 80.03, 98.57, 98.05, 45.15, 100),
        PORT: (76.07, 45.32, 69.89, 52.01, 55.92, 58.56, 33.60, 74.36),
        LOC: (98.96, 32.38, 70.31, 94.38, 51.97, 46.62, 50.48, 76.76),
        FLU: (549.91, 547.22, 580.29, 555.72, 584.04, 575.96, 528.26, 575.62),
    },
    "convsent": {
        ES: (62.75, 52.78, 44.89, 50.76, 45.79, 44.75, 49.50, 46.10),
        LOC: (0.26, 49.73, 0.18, 3.42, 0, 0, 0, 0),
        FLU: (458.21, 621.45, 606.42, 379.43, 606.32, 602.62, 607.86, 592.52),
    },
    "sanitation": {
        ES: (0, 72.5, 2.5, 0, 85, 48.75, 0, 75),
        LOC: (100, 56.58, 65.5, 5.29, 50.31, 67.47, 14.78, 47.07),
        FLU: (416.29, 794.15, 330.44, 407.18, 465.12, 466.10, 439.10, 416.29),
    },
}
"""EasyEdit's README (examples/KnowEdit.md), restated in November 2024: Llama-2-7b-chat."""

LIKE = {
    "world_counterfact": "wiki_counterfact",
    "world_recent": "wiki_recent",
    "world_sanitation": "sanitation",
}
"""Benchmarks of the embedded world, and the set of KnowEdit that asks for the same kind of edit."""
_NOTES = {
    "convsent": " Its locality is a divergence: less is better.",
    "sanitation": " Its edit success is the share of refusals on other questions of the answer.",
}


class Published(NamedTuple):
    """What stands beside the headline table."""

    knowedit: Table | None
    overview: Table


def beside(dataset: str) -> Published:
    """The published figures that come nearest to a run on this data set."""
    name = LIKE.get(dataset, dataset)
    columns = ("method", ES, LOC, PORT)
    rows = [[method, *(f"{value:.1f}" for value in values)] for method, values in OVERVIEW]
    told = "Overview of 2025: percent, no intervals; its model and protocol are not stated."
    return Published(_knowedit(dataset, name), Table(columns, rows, told))


def _knowedit(dataset: str, name: str) -> Table | None:
    if name not in KNOWEDIT:
        return None
    figures = KNOWEDIT[name]
    rows = [
        [method, *(f"{values[place]:.1f}" for values in figures.values())]
        for place, method in enumerate(METHODS)
    ]
    what = "another model" if name == dataset else f"another model, and {name} is not {dataset}"
    told = (
        f"Llama-2-7b-chat on KnowEdit's {name} (EasyEdit, November 2024): one edit at a time, "
        f"teacher-forced, no intervals; {what}.{_NOTES.get(name, '')}"
    )
    return Table(("method", *figures), rows, told)
