"""Stage `report`: what a reader of the run wants to see, from saved files alone.

Writes `report.md`, `report.html` (one self-contained file) and `figures/*.png` into the run folder,
and `written.json`, their hashes, into the stage's. Loads no model and imports none.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from eval.ratios import SHARE
from eval.tables import markdown
from pipeline import figures, published, retained, sayings, sheets
from pipeline.evidence import Evidence, gather
from pipeline.facts import read_facts
from pipeline.labels import METRICS, PROTOCOLS, in_order, method_label, plain
from pipeline.pages import data_uri, document, page
from pipeline.run import Run
from ske.config import resolved
from ske.io import file_hash, write_json, write_text

BY_CATEGORY = ("portability", SHARE, "locality", "hard", "edit_success_by_belief")


def run(run: Run, folder: Path) -> list[Path]:
    """Write the report and its figures; gives back what it wrote into the run folder."""
    evidence = gather(run)
    prompts = {fact.id: fact.prompt for fact in read_facts(run)}
    drawn = draw(evidence, run.folder / "figures")
    values = contents(evidence, prompts)
    paths = {name: f"figures/{path.name}" for name, path in drawn.items()}
    write_text(run.folder / "report.md", document("report.md.j2", figures=paths, **values))
    inside = {name: data_uri(path) for name, path in drawn.items()}
    write_text(run.folder / "report.html", page("report.html.j2", figures=inside, **values))
    written = [run.folder / "report.md", run.folder / "report.html", *drawn.values()]
    write_json(
        folder / "written.json",
        {str(path.relative_to(run.folder)): file_hash(path) for path in written},
    )
    return written


def draw(evidence: Evidence, folder: Path) -> dict[str, Path]:
    """Every figure that the run has numbers for, by name; figures of earlier reports go."""
    shutil.rmtree(folder, ignore_errors=True)
    drawn: dict[str, Path] = {}
    for protocol in in_order(evidence.protocols):
        for name, panels in _panels(evidence, protocol).items():
            shown = [panel for panel in panels if panel.values]
            if shown:
                key = f"{name}-{protocol}"
                drawn[key] = figures.dots(shown, evidence.methods, folder / f"{key}.png")
        success, kept = (
            figures.Panel(plain(m), evidence.values(protocol, m))
            for m in ("edit_success", "locality")
        )
        if success.values and kept.values:
            key = f"pareto-{protocol}"
            drawn[key] = figures.pareto(success, kept, evidence.methods, folder / f"{key}.png")
    drawn |= retained.draw(evidence, folder)
    if evidence.curve:
        wanted = evidence.config.design.recall
        drawn["capacity"] = figures.curve(evidence.curve, wanted, folder / "capacity.png")
    return drawn


def _panels(evidence: Evidence, protocol: str) -> dict[str, list[figures.Panel]]:
    metrics = [figures.Panel(plain(m), evidence.values(protocol, m)) for m in METRICS]
    locality = [
        figures.Panel(plain(name), evidence.values(protocol, "locality", name))
        for name in sheets.categories(evidence, protocol, "locality")
    ]
    return {"metrics": metrics, "locality": locality}


def contents(evidence: Evidence, prompts: dict[str, str]) -> dict[str, Any]:
    """What both templates show."""
    return {
        **_heading(evidence),
        "summary": sayings.summary(evidence),
        "caveats": sayings.caveats(evidence),
        "protocols": [_protocol(evidence, name) for name in in_order(evidence.protocols)],
        "published": published.beside(str(evidence.facts.get("dataset", ""))),
        "family": len(sayings.comparisons(evidence)),
        "reference": method_label(evidence.reference),
        "capability": sheets.category_table(evidence, "generate", "capability"),
        "changes": sheets.change_table(evidence),
        "retained": retained.section(evidence),
        "costs": sheets.cost_table(evidence),
        "design": evidence.design,
        "curve": sheets.curve_table(evidence.curve),
        "taught": sheets.teacher_table(evidence.taught),
        "leaks": sheets.leak_table(evidence.leaks),
        "leaked": sheets.leak_examples(evidence.leaks),
        "lost": sheets.lost_table(evidence, prompts),
        "misses": _misses(evidence),
        "facts": evidence.facts,
        "skipped": sheets.skipped_table(evidence.facts),
        "stages": sheets.stage_table(evidence.manifests),
        "made": _origin(evidence),
        "config": resolved(evidence.config),
    }


def _heading(evidence: Evidence) -> dict[str, Any]:
    config, n = evidence.config, evidence.facts.get("cases", 0)
    dataset = evidence.facts.get("dataset", config.data.name)
    split = "" if config.data.path is not None else f", split {config.data.split}"
    return {
        "title": f"{n} edit{'' if n == 1 else 's'} of {config.model.path}",
        "about": [
            ("model", config.model.path),
            ("data", f"{dataset}{split}"),
            ("edits", f"{n} of {evidence.facts.get('available', n)}, {_made(evidence)}"),
            ("compared", ", ".join(method_label(m) for m in evidence.methods)),
            ("seed", f"{config.seed} (edits drawn with {config.edits.seed})"),
        ],
    }


def _made(evidence: Evidence) -> str:
    """How many at a time."""
    mode, rounds = evidence.rounds
    if mode == "single":
        return "each alone on a fresh base, asked about its own case"
    if mode == "sequential":
        return (
            f"in {len(rounds)} rounds of {len(rounds[0].ids)}, each on the model as the rounds "
            "before left it; asked after the last one"
        )
    return "all made together"


def _protocol(evidence: Evidence, protocol: str) -> dict[str, Any]:
    own = [row for row in evidence.results if row["protocol"] == protocol]
    errors = {k: n for k, n in evidence.said.errors.items() if k.protocol == protocol}
    tables = [sheets.graded_table(evidence, protocol)]
    tables += [sheets.category_table(evidence, protocol, metric) for metric in BY_CATEGORY]
    return {
        "name": protocol,
        "about": PROTOCOLS[protocol],
        "table": sheets.main_table(evidence, protocol),
        "markdown": markdown(own, errors),
        "against": _against(evidence, protocol),
        "categories": [table for table in tables if table is not None],
    }


def _against(evidence: Evidence, protocol: str) -> list[tuple[str, list[sayings.Comparison]]]:
    grouped: dict[str, list[sayings.Comparison]] = {}
    for found in sayings.comparisons(evidence):
        if found.protocol == protocol:
            grouped.setdefault(method_label(found.other), []).append(found)
    return list(grouped.items())


def _misses(evidence: Evidence) -> list[dict[str, Any]]:
    return [
        {
            "method": method_label(method),
            "count": len(misses),
            "shown": min(len(misses), sheets.MOST_MISSES),
            "table": sheets.miss_table(misses),
        }
        for method, misses in evidence.said.misses.items()
        if method != "base"
    ]


def _origin(evidence: Evidence) -> list[tuple[str, str]]:
    done = [manifest for manifest in evidence.manifests.values() if manifest]
    if not done:
        return []
    last = done[-1]
    versions = [f"{name} {version}" for name, version in last.get("versions", {}).items()]
    return [
        ("commit", str(last.get("git") or "unknown")),
        ("versions", ", ".join([f"Python {last.get('python', '?')}", *versions])),
        ("machine", str(last.get("machine", "?"))),
        ("repeat with", f"ske run {evidence.folder}/config.yaml --out runs/again"),
    ]
