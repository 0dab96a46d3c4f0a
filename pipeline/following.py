"""`ske inspect --follow`: a design as it runs, one line a turn, until its prompts are written.

Reads the growing trace; writes nothing, so it can watch a run of another process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.labels import counted
from pipeline.pages import shortened
from pipeline.places import whole_run
from pipeline.run import Run
from pipeline.stories import check_designed
from ske.io import in_use
from ske.trace import Event

EVERY = 0.5
"""Seconds between two looks at the trace."""
QUIET = 20
"""After so many looks at a trace that does not grow: is anybody at work at all?"""


def follow(run: Run, pause: Callable[[float], None] = time.sleep) -> Iterator[str]:
    """Lines as they come; ends when the prompts are written, or nobody designs any more.

    Args:
        run: Whose design; it need not have begun.
        pause: Waits so many seconds.

    Raises:
        UserError: the run has no stage `design`.
    """
    check_designed(run)
    trace, design = run.stage("design") / "trace.jsonl", run.stage("design") / "design.json"
    whole = whole_run(run.folder)
    place = number = trial = silent = 0
    if not trace.exists():
        yield f"waiting for the design to begin: ske run {whole}/config.yaml"
    while True:
        if trace.exists() and trace.stat().st_size < place:
            place = number = trial = 0  # The design was begun anew.
            yield "the design starts afresh"
        new, place = read_from(trace, place)
        for event in new:
            yield line(number, trial, event)
            number += 1
            trial += event.role == "judge"
        if not new and _written(trace, design):
            yield f"the prompts are written: ske inspect {run.folder}"
            return
        silent = 0 if new else silent + 1
        if silent and silent % QUIET == 0 and number and not in_use(whole):
            yield f"nobody works on this design; it goes on with: ske run {whole}/config.yaml"
            return
        if not new:
            pause(EVERY)


def read_from(path: Path, place: int) -> tuple[list[Event], int]:
    """The whole lines behind a place in a file, as events, and where they end."""
    if not path.exists():
        return [], 0
    with path.open("rb") as file:
        file.seek(place)
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    lines = whole.split(b"\n")[:-1]
    return [Event.model_validate_json(text) for text in lines], place + len(whole)


def _written(trace: Path, design: Path) -> bool:
    """Whether prompts were written after the last turn."""
    return design.exists() and (
        not trace.exists() or design.stat().st_mtime_ns >= trace.stat().st_mtime_ns
    )


def line(number: int, trial: int, event: Event) -> str:
    """A turn in one line: its number, its trial, who, what."""
    return f"{number:5} trial {trial:<3} {event.role:<10} {shortened(_what(event), 160)}"


def _what(event: Event) -> str:
    said = event.parsed
    if event.brain == "teacher":
        return f"{counted(int(event.scores.get('questions', 0)), 'question')} to the teacher"
    what = {
        "planner": lambda: (
            f"{said['purpose']}: {said['layout']} x {said['capacity']} ({said['packer']}), "
            f"{said['reason']}"
        ),
        "packer": lambda: f"{counted(len(said['packs']), 'prompt')}",
        "writer": lambda: f"{len(said['system'])} characters, {len(event.facts)} facts",
        "questioner": lambda: f"{len(said['queries'])} questions about {', '.join(event.facts)}",
        "examiner": lambda: f"recall {event.scores['recall']:.0%} of {len(event.facts)} facts",
        "critic": lambda: "; ".join(f"{r['fact']}: {r['why']}" for r in said["reasons"]),
        "judge": lambda: f"{said['phase']}: {said['reason']}",
        "approval": lambda: event.reply,
    }
    told = what[event.role]() if event.role in what else event.reply
    by = "" if event.brain in ("rules", "person") else f" [{event.brain}]"
    return " ".join(told.split()) + by + "".join(f" | {note}" for note in event.notes[:1])
