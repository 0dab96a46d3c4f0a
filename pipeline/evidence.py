"""All that a run has saved and a report needs, read once: no model, no heavy import.

Reads `results.csv`, `comparisons.csv` and the stages' folders; writes nothing. What a run does
not have (no `ske`, no design) is empty here, never an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from agents.records import CurveRow, Design
from eval.answers import read_beside
from eval.score import ErrorKey, Row, count_errors, score_row
from eval.tables import TableRow
from pipeline.checking import how_again
from pipeline.leaks import Leaks
from pipeline.places import costs_of, reference_of, run_leaks
from pipeline.rounds import Rounds, read_rounds
from pipeline.run import Run
from pipeline.scoring import CHANGES, SHARES
from pipeline.show import read_csv
from pipeline.stage import read_manifest
from ske.config import Config
from ske.io import read_json, record_of, row_of


class Miss(NamedTuple):
    """An edit that did not take."""

    case: str
    prompt: str
    wanted: str
    said: str


class Said(NamedTuple):
    """What the saved answers tell beside the scores."""

    misses: dict[str, list[Miss]]
    """Failed edits by method."""
    errors: dict[ErrorKey, int]
    cut: dict[str, int]
    """Replies by method that hit the length limit."""
    asked: dict[str, int]


class Evidence(NamedTuple):
    """Everything the report is made of."""

    folder: Path
    config: Config
    facts: dict[str, Any]
    """What stage `facts` says about itself: data set, cases, what was skipped."""
    results: list[TableRow]
    """With the shares of portability behind them."""
    comparisons: list[TableRow]
    changes: list[TableRow]
    """Skills and tasks, before and after each edit."""
    said: Said
    design: Design | None
    curve: list[CurveRow]
    taught: dict[str, int]
    leaks: dict[str, dict[str, Leaks]]
    """What each method used that is near to a probe, by kind."""
    costs: dict[str, dict[str, Any]]
    manifests: dict[str, dict[str, Any]]
    rounds: Rounds
    retention: list[TableRow]
    """`retention.csv` of a sequential run."""
    decay: list[TableRow]

    @property
    def methods(self) -> list[str]:
        """In the order of the results."""
        return list(dict.fromkeys(row["method"] for row in self.results))

    @property
    def protocols(self) -> list[str]:
        """Those that have results."""
        return list(dict.fromkeys(row["protocol"] for row in self.results))

    @property
    def reference(self) -> str:
        """Whose comparisons are told: the student, or the last method of a run without one."""
        return reference_of(self.config)

    def values(self, protocol: str, metric: str, category: str = "all") -> dict[str, TableRow]:
        """Results by method; those without a value are left out."""
        chosen = (protocol, metric, category)
        return {
            row["method"]: row
            for row in self.results
            if (row["protocol"], row["metric"], row["category"]) == chosen
            and row["mean"] is not None
        }


def gather(run: Run) -> Evidence:
    """Read a run whose `score` is done."""
    teach, design = run.stage("teach"), run.stage("design")
    names = [stage.name for stage in run.stages]
    return Evidence(
        folder=run.folder,
        config=run.config,
        facts=_json(run.stage("facts") / "summary.json"),
        results=[
            *(_numbers(row) for row in read_csv(run.folder / "results.csv")),
            *_table(run.folder / "graded.csv"),
            *_shares(run),
        ],
        comparisons=[_numbers(row) for row in read_csv(run.folder / "comparisons.csv")],
        changes=_table(run.stage("score") / CHANGES),
        said=said(run),
        design=read_design(design) if "design" in names else None,
        curve=_curve(design) if "design" in names else [],
        taught=_json(teach / "summary.json") if "teach" in names else {},
        leaks=run_leaks(run),
        costs={method: _costs(run, method) for method in run.config.methods},
        manifests={name: read_manifest(run.folder, name) for name in names},
        rounds=read_rounds(run),
        retention=_table(run.folder / "retention.csv"),
        decay=_table(run.folder / "decay.csv"),
    )


def read_design(folder: Path) -> Design | None:
    """A finished design, if there is one."""
    path = folder / "design.json"
    return record_of(read_json(path), path, Design) if path.exists() else None


def said(run: Run) -> Said:
    """One pass over the answers; only lines that matter are taken apart."""
    misses: dict[str, list[Miss]] = {}
    errors: list[Row] = []
    cut: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    path = run.stage("ask") / "rows.jsonl"
    for number, line in enumerate(_lines(path), 1):
        row = row_of(line, path, number)
        method, generated = row["method"], row["protocol"] == "generate"
        if row["error"] is not None:
            errors.append(Row(**row))
            continue
        asked[method] += generated
        cut[method] += generated and not row["finished"]
        if row["metric"] == "edit_success" and (miss := _miss(Row(**row))):
            misses.setdefault(f"{method} {row['protocol']}", []).append(miss)
    beside = read_beside(run.folder, run.config, how_again(run))
    broken = count_errors(errors) | beside.errors
    return Said(_by_method(misses), broken, dict(cut), dict(asked))


def _by_method(misses: dict[str, list[Miss]]) -> dict[str, list[Miss]]:
    """Generated answers if there are any: they can be read."""
    generated = any(key.endswith(" generate") for key in misses)
    wanted = " generate" if generated else " teacher_forced"
    return {k.removesuffix(wanted): rows for k, rows in misses.items() if k.endswith(wanted)}


def _miss(row: Row) -> Miss | None:
    score = score_row(row)
    if score is None or score == 1:
        return None
    text = row.text if row.protocol == "generate" else f"{sum(row.hits)} of {len(row.hits)} tokens"
    wanted = row.answers[0][0] if row.answers and row.answers[0] else ""
    return Miss(row.case, row.prompt, wanted, text)


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        yield from (line for line in file if line.endswith("\n"))


def _shares(run: Run) -> list[TableRow]:
    path = run.stage("score") / SHARES
    return [_numbers(row) for row in read_csv(path)] if path.exists() else []


def _json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _curve(folder: Path) -> list[CurveRow]:
    path = folder / "curve.json"
    if not path.exists():
        return []
    return [record_of(row, path, CurveRow) for row in read_json(path)]


def _costs(run: Run, method: str) -> dict[str, Any]:
    """Of making the edit and of asking the edited model."""
    asking = _json(run.stage("ask") / "costs.json").get(method, {})
    return {**costs_of(run, method), **{f"asking_{key}": value for key, value in asking.items()}}


def _table(path: Path) -> list[TableRow]:
    """A table that not every run has."""
    return [_numbers(row) for row in read_csv(path)] if path.exists() else []


def _numbers(row: dict[str, str]) -> TableRow:
    """Cells of a saved table with their types back; an empty number is None."""
    typed: TableRow = dict(row)
    for key in ("mean", "ci_low", "ci_high", "before", "after", "diff", "p", "p_holm"):
        if key in row:
            typed[key] = float(row[key]) if row[key] else None
    for key in ("n", "after_round", "round", "later_edits"):
        if row.get(key, "").isdigit():
            typed[key] = int(row[key])
    if row.get("seed", "").lstrip("-").isdigit():
        typed["seed"] = int(row["seed"])
    return typed
