"""The tables of a report, as data that Markdown and HTML are both made from.

Pure: reads an `Evidence`, writes nothing. Shares are percentages; costs keep their units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from agents.records import CurveRow
from eval.tables import TableRow
from pipeline.evidence import Evidence, Miss
from pipeline.labels import (
    IN_NATS,
    LOWER_IS_BETTER,
    METRICS,
    NOBODY_WINS,
    counted,
    method_label,
    plain,
)
from pipeline.leaks import Leaks
from pipeline.pages import Cell, Table, shortened

NOTHING = "-"
MOST_MISSES = 20
MOST_SKIPPED = 20
MOST_LOST = 20
GRADED = (
    *("edit_success_judged", "paraphrase_judged", "portability_judged", "locality_correct"),
    *("locality_kl", "locality_overlap"),
    *("forgotten", "refusal", "self_refutation", "sentiment_kl", "perplexity", "fluency_entropy"),
)
"""What agreement and success alone do not tell."""
MADE = {
    "single": "Seconds to make and size are those of one edit, on average.",
    "sequential": "Seconds to make and size are those of all rounds together.",
}
"""What the costs of several edits are."""
MEANWHILE = (
    "The student was trained on half of the threads while a process with the other half edited "
    "with and asked the other methods (`meanwhile`): seconds do not compare between it and them."
)


def main_table(evidence: Evidence, protocol: str) -> Table:
    """Methods down, metrics across; the best of a column apart from the base is strong."""
    metrics = [metric for metric in METRICS if evidence.values(protocol, metric)]
    by_metric = {metric: evidence.values(protocol, metric) for metric in metrics}
    rows = [
        [method_label(method), *_cells(by_metric, metrics, method)]
        for method in evidence.methods
        if any(method in by_metric[metric] for metric in metrics)
    ]
    return Table(["method", *map(plain, metrics)], rows, f"Cases: {_counts(by_metric)}")


def _counts(values: dict[str, dict[str, TableRow]]) -> str:
    sizes = {metric: max(row["n"] for row in own.values()) for metric, own in values.items()}
    return ", ".join(f"{plain(metric)} {n}" for metric, n in sizes.items())


def graded_table(evidence: Evidence, protocol: str) -> Table | None:
    """How far locality holds and old answers linger; what agreement alone does not tell."""
    wanted = ("locality", *GRADED)
    found = {metric: evidence.values(protocol, metric) for metric in wanted}
    found = {metric: own for metric, own in found.items() if own}
    if set(found) <= {"locality"}:
        return None
    rows = [
        [method_label(method), *_cells(found, list(found), method)]
        for method in evidence.methods
        if any(method in own for own in found.values())
    ]
    columns = ["method", *map(plain, found)]
    lower = ", ".join(plain(metric) for metric in found if metric in LOWER_IS_BETTER)
    note = f" Less is better: {lower}." if lower else ""
    about = f"What success and agreement alone do not tell.{note} Cases: {_counts(found)}"
    return Table(columns, rows, about)


def _cells(
    values: dict[str, dict[str, TableRow]], columns: Sequence[str], method: str
) -> list[Cell]:
    return [_cell(values[column].get(method), best(values[column])) for column in columns]


def best(values: dict[str, TableRow]) -> str | None:
    """The best mean of a column, as printed; None where nobody wins.

    The unedited base does not compete, and a value that all others share is nobody's win.
    """
    shown = {_number(row, "mean") for method, row in values.items() if method != "base"}
    rivals = sum(method != "base" for method in values)
    if any(row["metric"] in NOBODY_WINS for row in values.values()):
        return None
    if len(shown) < 2 and rivals != 1:
        return None
    lower = any(row["metric"] in LOWER_IS_BETTER for row in values.values())
    return (min if lower else max)(shown, key=float)


def _cell(row: TableRow | None, top: str | None) -> Cell:
    if row is None:
        return Cell(NOTHING)
    shown = _number(row, "mean")
    note = f"[{_number(row, 'ci_low')}, {_number(row, 'ci_high')}]"
    return Cell(shown, note, strong=shown == top and row["method"] != "base")


def _number(row: TableRow, key: str) -> str:
    """As printed: nats are small."""
    return f"{row[key]:.{3 if row['metric'] in IN_NATS else 1}f}"


def categories(evidence: Evidence, protocol: str, metric: str) -> list[str]:
    """The categories that a metric has, in the order of the results."""
    chosen = (protocol, metric)
    found = [
        row["category"]
        for row in evidence.results
        if (row["protocol"], row["metric"]) == chosen and row["category"] != "all"
    ]
    return list(dict.fromkeys(found))


def category_table(evidence: Evidence, protocol: str, metric: str) -> Table | None:
    """Methods down, categories across, with the number of cases of each."""
    values = {
        name: found
        for name in categories(evidence, protocol, metric)
        if (found := evidence.values(protocol, metric, name))
    }
    if not values:
        return None
    sizes = {name: max(row["n"] for row in found.values()) for name, found in values.items()}
    heads = [f"{plain(name)} (n = {sizes[name]})" for name in values]
    rows = [
        [method_label(method), *_cells(values, list(values), method)]
        for method in evidence.methods
        if any(method in found for found in values.values())
    ]
    return Table(["method", *heads], rows, f"{plain(metric)}, {plain(protocol)}")


def change_table(evidence: Evidence) -> Table | None:
    """Skill by skill and task by task, before and after each edit, question by question."""
    rows = [
        [
            plain(row["category"]),
            method_label(row["method"]),
            *(str(row["n"]), f"{row['before']:.1f}", f"{row['after']:.1f}"),
            Cell(f"{row['diff']:+.1f}", f"[{row['ci_low']:.1f}, {row['ci_high']:.1f}]"),
        ]
        for row in evidence.changes
    ]
    columns = ("what", "method", "questions", "before", "after", "after - before")
    about = "Paired over questions; differences in points, not corrected for the number of lines"
    return (
        Table(columns, sorted(rows, key=lambda row: str(row[0])), about, (0, 1)) if rows else None
    )


def cost_table(evidence: Evidence) -> Table:
    """What making and asking each edit took."""
    columns = (
        "method",
        "seconds to make",
        "seconds per edit",
        "tokens per edit",
        "size of edit",
        "peak memory",
        "of it for the edit",
        "seconds to ask",
        "tokens per question",
    )
    # Costs of single edits are those of one edit already.
    edits = 1 if evidence.rounds.mode == "single" else max(evidence.facts.get("cases", 1), 1)
    rows = [
        [method_label(method), *_cost_cells(evidence.costs.get(method, {}), edits)]
        for method in evidence.methods
    ]
    shared = any(costs.get("meanwhile") for costs in evidence.costs.values())
    notes = [MADE.get(evidence.rounds.mode, ""), MEANWHILE if shared else ""]
    return Table(columns, rows, " ".join(filter(None, notes)))


def _cost_cells(costs: dict[str, Any], edits: int) -> list[str]:
    def told(key: str, shown: Callable[[Any], str]) -> str:
        return shown(costs[key]) if key in costs else NOTHING

    return [
        told("seconds", lambda value: f"{value:.1f}"),
        told("seconds", lambda value: f"{value / edits:.2f}"),
        told("tokens", lambda value: f"{value / edits:,.0f}"),
        told("bytes", size_text),
        told("peak_mb", lambda value: f"{value:,} MB"),
        told("extra_mb", lambda value: f"{value:,} MB"),
        told("asking_seconds", lambda value: f"{value:.1f}"),
        told("asking_tokens", lambda value: f"{value:,.0f}"),
    ]


def size_text(size: int) -> str:
    """591,184 -> 591 kB."""
    for unit, step in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= step:
            return f"{size / step:.{1 if size < 10 * step else 0}f} {unit}"
    return f"{size} B"


def share(value: float | None) -> str:
    """0.8125 -> 81."""
    return NOTHING if value is None else f"{100 * value:.0f}"


def curve_table(rows: Sequence[CurveRow]) -> Table | None:
    """The capacity curve; designer first, then the naive packer."""
    if not rows:
        return None
    columns = (
        "packer",
        "layout",
        "header / footer",
        "facts per prompt",
        "facts tried",
        "recall %",
        "paraphrases %",
        "consequences %",
        "drift %",
        "tokens per fact",
    )
    ordered = sorted(rows, key=lambda r: (r.packer, r.layout, r.facts_per_prompt, -r.recall))
    return Table(columns, [_curve_cells(row) for row in ordered], words=(0, 1, 2))


def _curve_cells(row: CurveRow) -> list[str]:
    return [
        row.packer,
        plain(row.layout),
        f"{row.header} / {row.footer}",
        str(row.facts_per_prompt),
        str(row.n),
        *(share(v) for v in (row.recall, row.paraphrase, row.consequences, row.drift)),
        f"{row.tokens_per_fact:.1f}",
    ]


def teacher_table(taught: dict[str, int]) -> Table | None:
    """What became of the teacher's answers, by kind of query."""
    if not taught:
        return None
    counts: dict[str, dict[str, int]] = {}
    for key, count in taught.items():
        kind, status = key.rsplit(" ", 1)
        counts.setdefault(kind, {})[status] = count
    states = [
        s
        for s in ("kept", "repaired", "trusted", "unverified", "dropped", "held")
        if any(s in row for row in counts.values())
    ]
    order = ("fact", "paraphrase", "consequence", "told", "neighbour", "free")
    kinds = sorted(counts, key=lambda k: (k not in order, order.index(k) if k in order else 0))
    rows = [[kind, *(str(counts[kind].get(s, NOTHING)) for s in states)] for kind in kinds]
    return Table(["query", *states], rows)


def leak_table(leaks: dict[str, dict[str, Leaks]]) -> Table | None:
    """What each method used beside the facts, against every probe."""
    if not leaks:
        return None
    columns = (
        "method",
        "what",
        "texts",
        "near-copies used",
        "near-copies dropped",
        "a probe's wording, another subject",
    )
    rows = [
        [
            method_label(method),
            kind,
            *map(str, (one.checked, one.copies, one.dropped, one.templates)),
        ]
        for method, own in leaks.items()
        for kind, one in (own or {"nothing but the facts": Leaks()}).items()
    ]
    return Table(columns, rows, words=(0, 1))


def leak_examples(leaks: dict[str, dict[str, Leaks]]) -> Table | None:
    """Near-copies of probes that were used."""
    rows = [
        [method_label(method), kind, shortened(text, 160), shortened(probe, 120)]
        for method, own in leaks.items()
        for kind, one in own.items()
        for text, probe in one.examples
    ]
    return Table(("method", "what", "text", "probe"), rows, words=(0, 1, 2, 3)) if rows else None


def lost_table(evidence: Evidence, prompts: dict[str, str]) -> Table | None:
    """Facts that the teacher never answered, with the Critic's reason."""
    if evidence.design is None or not evidence.design.lost:
        return None
    lost = list(evidence.design.lost.items())
    rows = [
        [fact, shortened(prompts.get(fact, ""), 120), reason] for fact, reason in lost[:MOST_LOST]
    ]
    more = f", the first {MOST_LOST}" if len(lost) > MOST_LOST else ""
    return Table(
        ("fact", "prompt", "why"), rows, counted(len(lost), "fact") + more, words=(0, 1, 2)
    )


def miss_table(misses: Sequence[Miss]) -> Table:
    """The first failing edits of a method."""
    rows = [
        [miss.case, shortened(miss.prompt, 120), shortened(miss.wanted, 80), _said(miss.said)]
        for miss in misses[:MOST_MISSES]
    ]
    return Table(("fact", "prompt", "wanted", "said"), rows, words=(0, 1, 2, 3))


def _said(text: str) -> str:
    return shortened(text, 120) if text.strip() else "(nothing)"


def skipped_table(facts: dict[str, Any]) -> Table | None:
    """Probes and records of the data set that were not used."""
    skipped = facts.get("skipped") or []
    if not skipped:
        return None
    rows = [
        [str(item["count"]), item["kind"], f"{item['file']} {item['where']}", item["reason"]]
        for item in skipped[:MOST_SKIPPED]
    ]
    return Table(("number", "what", "where", "why"), rows, words=(1, 2, 3))


def stage_table(manifests: dict[str, dict[str, Any]]) -> Table:
    """When the report was written: which stages were done, and what they took."""
    rows = [
        [name, f"{found['seconds']:.1f}", found["key"], str(found.get("git") or NOTHING)]
        for name, found in manifests.items()
        if found
    ]
    return Table(("stage", "seconds", "key", "commit"), rows, words=(0, 2, 3))
