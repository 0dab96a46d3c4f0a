"""What a run knows about its design and about each fact, put together from saved files.

Reads the stages' folders, the trace line by line (it can be large); writes nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from agents.call import shortened
from agents.records import Design, Pack
from eval.score import Row, score_row
from pipeline.evidence import read_design
from pipeline.facts import read_facts
from pipeline.places import is_taught, round_folder
from pipeline.run import Run
from pipeline.trials import Trials, Tried
from ske.io import record_of, row_of
from ske.trace import Event, Trace
from ske.types import Fact, UserError

AROUND = 240
"""Characters of a prompt that are shown on either side of a fact."""


class Role(NamedTuple):
    """What one role was asked and answered last."""

    number: int
    """Which turn of the trace that was."""
    role: str
    brain: str
    template: str
    times: int
    asked: str
    answered: str
    notes: list[str]


class Exam(NamedTuple):
    """How a fact did under the prompt it ended up in."""

    prompts: int
    """How many prompts were examined with this fact in them, over all trials."""
    rows: list[dict[str, Any]]


class Probe(NamedTuple):
    """One question of the evaluation and how each method fared, by (method, protocol)."""

    metric: str
    category: str
    prompt: str
    wanted: str
    answers: dict[tuple[str, str], Heard]


class Heard(NamedTuple):
    """One answer: its score from 0 to 1 (None for an error), and its text."""

    score: float | None
    text: str


class Story(NamedTuple):
    """One fact's whole way."""

    fact: Fact
    pack: Pack | None
    lost: str | None
    exam: Exam
    queries: list[dict[str, Any]]
    lessons: list[dict[str, Any]]
    probes: list[Probe]


class Chronicle(NamedTuple):
    """The design of a run: trials and roles."""

    design: Design
    trials: list[Tried]
    counts: Counter[str]
    """Events by role."""
    visits: Counter[str]
    """Turns by role: events without the questions to the teacher."""
    roles: list[Role]


def check_designed(run: Run) -> None:
    """Refuse a run without a stage `design`.

    Raises:
        UserError: nothing is taught, or every round has a design of its own (one of them is named:
            the last that was begun).
    """
    if "design" in [stage.name for stage in run.stages]:
        return
    if any(map(is_taught, run.config.methods)):
        begun = sorted((run.stage("train") / "items").glob("round-*/stages/design/design.json"))
        place = begun[-1].parents[2] if begun else round_folder(run, 1)
        raise UserError(
            f"{run.folder}: edits.mode = {run.config.edits.mode!r}, so every round has a "
            f"design of its own; look at one: ske inspect {place}"
        )
    raise UserError(
        f"{run.folder}: methods = {list(run.config.methods)!r} has no 'ske', so no agents "
        "designed anything; add it with --set 'methods=[base, ske]'"
    )


def finished_design(run: Run) -> Design:
    """The design of a run.

    Raises:
        UserError: the run has none, or not yet.
    """
    check_designed(run)
    design = read_design(run.stage("design"))
    if design is None:
        raise UserError(
            f"{run.folder}: the design is not done; first: "
            f"ske run {run.folder}/config.yaml --stage design"
        )
    return design


def events(run: Run, containing: str | None = None) -> Iterator[Event]:
    """The events of the trace, one at a time; only lines with a text in them, if one is given."""
    yield from Trace(run.stage("design") / "trace.jsonl").containing(containing)


def chronicle(run: Run) -> Chronicle:
    """One pass over the trace."""
    design = finished_design(run)
    counts: Counter[str] = Counter()
    visits: Counter[str] = Counter()
    per_template: Counter[tuple[str, str]] = Counter()
    last: dict[tuple[str, str], tuple[int, Event]] = {}
    trials = Trials(run.config.design.recall)
    for number, event in enumerate(events(run)):
        counts[event.role] += 1
        if event.brain != "teacher":
            visits[event.role] += 1
        key = (event.role, event.template)
        per_template[key] += 1
        last[key] = (number, event)
        trials.hear(event)
    roles = [_role(number, event, per_template[key]) for key, (number, event) in last.items()]
    return Chronicle(design, trials.all(), counts, visits, roles)


def turn(run: Run, number: int) -> Event:
    """One event of the trace, by its place.

    Raises:
        UserError: There is none there.
    """
    last = -1
    for last, event in enumerate(events(run)):
        if last == number:
            return event
    if last < 0:
        raise UserError(
            f"--turn {number}: no agent has said anything yet; first: "
            f"ske run {run.folder}/config.yaml --stage design"
        )
    raise UserError(f"--turn {number}: the trace has turns 0 to {last}; ske inspect lists some")


def _role(number: int, event: Event, count: int) -> Role:
    asked, notes = asked_of(event), list(event.notes)
    return Role(number, event.role, event.brain, event.template, count, asked, event.reply, notes)


def asked_of(event: Event) -> str:
    """The messages of a turn as one text."""
    return "\n\n".join(f"[{m['role']}] {m['content']}" for m in event.messages)


def stories(run: Run, only: str | None = None) -> list[Story]:
    """The stories of all facts, or of one; every file is read once."""
    design = finished_design(run)
    packs = {fact: pack for pack in design.packs for fact in pack.fact_ids}
    mark = None if only is None else json.dumps(only, ensure_ascii=False)
    exams = _exams(run, packs, mark)
    queries = _by(run.stage("teach") / "queries.jsonl", "fact_id", mark)
    lessons = _by(run.stage("teach") / "lessons.jsonl", "fact", mark)
    probes = _probes(run.stage("ask") / "rows.jsonl", mark)
    return [
        Story(
            fact,
            packs.get(fact.id),
            design.lost.get(fact.id),
            exams.get(fact.id, Exam(0, [])),
            queries.get(fact.id, []),
            lessons.get(fact.id, []),
            probes.get(fact.id, []),
        )
        for fact in read_facts(run)
        if only is None or fact.id == only
    ]


def _exams(run: Run, packs: dict[str, Pack], mark: str | None) -> dict[str, Exam]:
    """The last exam of each fact under its final prompt, or under any if that is not there."""
    exams: dict[str, Exam] = {}
    final: set[str] = set()
    for event in events(run, mark):
        if event.template != "agents/examiner":
            continue
        rows: dict[str, list[dict[str, Any]]] = {}
        for row in event.parsed.get("rows", []):
            rows.setdefault(row["fact"], []).append(row)
        for fact, own in rows.items():
            before = exams.get(fact, Exam(0, []))
            ours = fact in packs and event.variables.get("system") == shortened(packs[fact].system)
            if ours:
                final.add(fact)
            exams[fact] = Exam(
                before.prompts + 1, own if ours or fact not in final else before.rows
            )
    return exams


def _by(path: Path, key: str, mark: str | None) -> dict[str, list[dict[str, Any]]]:
    """Rows grouped by a fact's id; token distributions are dropped at once, for they are large."""
    grouped: dict[str, list[dict[str, Any]]] = {}
    for number, line in _lines(path, mark):
        row = row_of(line, path, number)
        row.pop("top_ids", None)
        row.pop("top_logprobs", None)
        if row.get(key) is not None:
            grouped.setdefault(row[key], []).append(row)
    return grouped


def _probes(path: Path, mark: str | None) -> dict[str, list[Probe]]:
    grouped: dict[str, dict[tuple[str, str, int], Probe]] = {}
    for number, line in _lines(path, mark):
        row = record_of(row_of(line, path, number), path, Row, number)
        own = grouped.setdefault(row.case, {})
        wanted = " / ".join(aliases[0] for aliases in row.answers if aliases)
        probe = own.setdefault(
            (row.metric, row.category, row.probe),
            Probe(row.metric, row.category, row.prompt, wanted, {}),
        )
        if row.metric == "locality" and row.base_text is not None:
            probe = probe._replace(wanted=row.base_text)
            own[row.metric, row.category, row.probe] = probe
        probe.answers[row.method, row.protocol] = Heard(score_row(row), row.error or row.text)
    return {case: list(probes.values()) for case, probes in grouped.items()}


def _lines(path: Path, mark: str | None) -> Iterator[tuple[int, bytes]]:
    if path.exists():
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n") and (mark is None or mark.encode() in line):
                    yield number, line


def around(system: str, fact: Fact) -> tuple[str, str, str]:
    """The prompt before a fact, where it states it, and after; cut to what is near."""
    start, end = place_of(system, fact)
    before, after = system[:start], system[end:]
    head = before if len(before) <= AROUND else "... " + before[-AROUND:]
    tail = after if len(after) <= AROUND else after[:AROUND] + " ..."
    return head, system[start:end], tail


def place_of(system: str, fact: Fact) -> tuple[int, int]:
    """From the subject to the nearest new value behind it; the subject alone if there is none."""
    best: tuple[int, int] | None = None
    start = system.find(fact.subject)
    while start >= 0:
        end = system.find(fact.target_new, start)
        if end >= 0 and (best is None or end - start < best[1] - len(fact.target_new) - best[0]):
            best = (start, end + len(fact.target_new))
        start = system.find(fact.subject, start + 1)
    if best is not None and best[1] - best[0] <= AROUND:
        return best
    alone = system.find(fact.subject)
    return (alone, alone + len(fact.subject)) if alone >= 0 else (0, 0)
