"""What the numbers of a run say, in sentences: the summary, the comparisons, the caveats.

Pure: reads an `Evidence`, writes nothing. A caveat is only there if this run gives cause for it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from typing import NamedTuple

from eval.stats import holm
from eval.tables import TableRow
from pipeline.evidence import Evidence
from pipeline.labels import METRICS, NOBODY_WINS, in_order, method_label, plain

ALPHA = 0.05
SMALLEST = 0.0001
"""Smaller p-values are told as smaller than this."""
FEW = 10
"""A category with fewer cases is named as such."""
RESOLUTION = 50
"""With fewer edits, the width of the intervals is pointed out."""

SUMMARY = (
    ("edit_success", "gives the new answer to {} of the {n} edits"),
    ("paraphrase", "to {} of their paraphrases"),
    ("portability", "and to {} of the questions that follow from them"),
)

TOLD = tuple(metric for metric in METRICS if metric not in NOBODY_WINS)
"""What is compared in words."""
PROBED = ("portability", "locality", "hard")
"""Metrics whose categories may be thin."""


class Comparison(NamedTuple):
    """The reference beside one other method."""

    other: str
    metric: str
    protocol: str
    sentence: str
    verdict: str
    """above, below, or "open" where Holm's corrected p is not below 0.05."""
    row: TableRow
    corrected: float


def summary(evidence: Evidence) -> str:
    """Two sentences on the reference method, as users see it."""
    if not evidence.protocols:
        return "Nothing was scored."
    protocol, name = in_order(evidence.protocols)[0], evidence.reference
    parts = []
    for metric, phrase in SUMMARY:
        row = evidence.values(protocol, metric).get(name)
        if row is not None:
            parts.append(phrase.format(percent(row), n=row["n"]))
    text = f"{method_label(name)} " + ", ".join(parts).replace(", and", " and") + "."
    kept = evidence.values(protocol, "locality").get(name)
    if kept is not None:
        text += f" Of the answers next door, {percent(kept)} stay as they were."
    return text + f" ({plain(protocol)}; 95 % intervals.)"


def percent(row: TableRow) -> str:
    """87.5 % [75.0, 100.0]."""
    return f"{row['mean']:.1f} % [{row['ci_low']:.1f}, {row['ci_high']:.1f}]"


def p_text(p: float) -> str:
    """Two digits that count, without an exponent."""
    if p >= 0.1 or p <= 0:
        return f"{p:.2f}"
    return f"{p:.{1 - math.floor(math.log10(p))}f}".rstrip("0")


def comparisons(evidence: Evidence) -> list[Comparison]:
    """The reference against every other method, corrected over the whole list."""
    rows = [
        row
        for row in evidence.comparisons
        if row["method_a"] == evidence.reference and row["metric"] in TOLD
    ]
    corrected = holm([row["p"] for row in rows])
    return [_compared(row, p) for row, p in zip(rows, corrected, strict=True)]


def _compared(row: TableRow, corrected: float) -> Comparison:
    a, b = method_label(row["method_a"]), method_label(row["method_b"])
    metric, diff = plain(row["metric"]), row["diff"]
    if diff == 0:
        core = f"{a}'s {metric} equals {b}'s"
    else:
        where = "above" if diff > 0 else "below"
        core = f"{a}'s {metric} is {abs(diff):.1f} points {where} {b}'s"
    low, high = row["ci_low"], row["ci_high"]
    if diff < 0:  # told as the distance that the sentence speaks of
        low, high = -high, -low
    shown = f"[{low:.1f}, {high:.1f}]"
    known = "p < 0.0001" if row["p"] < SMALLEST else f"p = {p_text(row['p'])}"
    holm_p = "< 0.0001" if corrected < SMALLEST else p_text(corrected)
    told = f"{known}, Holm {holm_p}, n = {row['n']}"
    verdict = "open" if corrected >= ALPHA else ("above" if diff > 0 else "below")
    return Comparison(
        row["method_b"],
        row["metric"],
        row["protocol"],
        f"{core} {shown}, {told}.",
        verdict,
        row,
        corrected,
    )


def caveats(evidence: Evidence) -> list[str]:
    """What a reader should keep in mind about this very run."""
    parts = (_seeds, _sample, _thin, _methods, _answers, _design, _leaks, _origin)
    return [text for part in parts for text in part(evidence)]


def _seeds(evidence: Evidence) -> Iterator[str]:
    seeds = {row["seed"] for row in evidence.results if row["seed"] != "all"}
    if len(seeds) == 1:
        yield (
            f"One seed ({seeds.pop()}): the intervals cover which facts were drawn, "
            "not how training falls out with another seed."
        )
    if evidence.config.data.path is None and evidence.config.data.split == "val":
        yield "Split `val`: these are the people that settings are tuned on, not the held-out ones."


def _sample(evidence: Evidence) -> Iterator[str]:
    n = evidence.facts.get("cases", 0)
    own = [
        row
        for row in evidence.comparisons
        if row["method_a"] == evidence.reference and row["metric"] in TOLD
    ]
    widths = [(row["ci_high"] - row["ci_low"]) / 2 for row in own]
    if n == 1:
        yield "A single edit: there is no interval, and no comparison can be significant."
    elif n < RESOLUTION and widths:
        yield (
            f"{n} edits: the intervals of the differences are about "
            f"± {statistics.median(widths):.0f} points wide; smaller ones cannot be told apart."
        )


def _thin(evidence: Evidence) -> Iterator[str]:
    sizes: dict[str, int] = {}
    for row in evidence.results:
        if row["category"] != "all" and row["metric"] in PROBED:
            name = f"{plain(row['metric'])} / {row['category']}"
            sizes[name] = max(sizes.get(name, 0), row["n"])
    few = [f"{name} (n = {n})" for name, n in sizes.items() if n < FEW]
    if few and evidence.facts.get("cases", 0) >= FEW:
        yield f"Few cases in {', '.join(few)}: read those lines as examples."


def _methods(evidence: Evidence) -> Iterator[str]:
    changed = [
        f"{method_label(name)} ({', '.join(f'{k} = {v}' for k, v in options.items())})"
        for name, options in evidence.config.options.items()
        if name in evidence.methods and options
    ]
    if changed:
        yield f"With other options than their own file in configs/methods: {', '.join(changed)}."
    first = (in_order(evidence.protocols) or ["generate"])[0]
    base = evidence.values(first, "edit_success").get("base")
    if base is not None and base["mean"] > 0:
        yield f"The unedited model already gives {percent(base)} of the new answers."


def _answers(evidence: Evidence) -> Iterator[str]:
    said = evidence.said
    cut = {m: 100 * said.cut[m] / n for m, n in said.asked.items() if n and said.cut[m] / n > 0.01}
    if cut:
        told = ", ".join(f"{method_label(m)} {share:.0f} %" for m, share in cut.items())
        limit = evidence.config.eval.max_new_tokens
        yield f"Replies cut at {limit} tokens (scored as far as they go): {told}."
    if said.errors:
        told = ", ".join(
            f"{method_label(k.method)} {plain(k.metric)} ({k.protocol}) {n}"
            for k, n in said.errors.items()
        )
        yield f"Error rows, in no mean: {told}."


def _design(evidence: Evidence) -> Iterator[str]:
    design = evidence.design
    if design is None:
        return
    if not design.passed:
        wanted = 100 * evidence.config.design.recall
        yield f"The prompts do not reach the wanted recall of {wanted:.0f} %, repairs included."
    if design.lost:
        total = sum(len(pack.fact_ids) for pack in design.packs)
        yield f"The teacher itself does not answer {len(design.lost)} of {total} facts."


def _leaks(evidence: Evidence) -> Iterator[str]:
    for method, own in evidence.leaks.items():
        copies = sum(leaks.copies for leaks in own.values())
        if copies:
            what = "1 near-copy of a probe" if copies == 1 else f"{copies} near-copies of probes"
            yield (
                f"{method_label(method)} used {what} (see what was used, below): its figures "
                "may be too good."
            )
    dropped = sum(leaks.dropped for own in evidence.leaks.values() for leaks in own.values())
    if dropped:
        yield f"{dropped} training texts were near-copies of probes; they were dropped."


def _origin(evidence: Evidence) -> Iterator[str]:
    commits = {str(m["git"]) for m in evidence.manifests.values() if m.get("git")}
    if any(commit.endswith("-dirty") for commit in commits):
        yield "Made with uncommitted changes in the checkout."
    if len({commit.removesuffix("-dirty") for commit in commits}) > 1:
        yield f"The stages were made by different versions: {', '.join(sorted(commits))}."
