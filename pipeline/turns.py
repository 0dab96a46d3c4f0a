"""`ske inspect --turn | --diff`: one agent's turn in full, and two prompts of a design compared.

Reads the design's trace, and `items/calls.jsonl` where a model was asked: there its questions are
whole, which a trace cuts if they are long.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.text import Text

from agents.calls import Call
from agents.meter import TEACHER
from agents.model_brain import CALLS
from pipeline.labels import counted
from pipeline.run import Run
from pipeline.stories import asked_of, check_designed, events, finished_design, turn
from pipeline.trials import Prompt, Trials, pieces, versions
from ske.io import read_rows
from ske.trace import Event
from ske.types import UserError

MOST_NAMES = 12


def one_turn(run: Run, number: int) -> RenderableType:
    """All that one turn of the trace holds, also while the design is still under way.

    Raises:
        UserError: the run designs nothing, or there is no such turn (yet).
    """
    check_designed(run)
    event = turn(run, number)
    how = "asks the teacher" if event.brain == TEACHER else f"decided by {event.brain}"
    head = f"turn {number}: {event.role}, {how}"
    source = f"prompts/{event.template}.md {event.template_hash}" if event.template else "no prompt"
    facts = f"\nabout {counted(len(event.facts), 'fact')}: {', '.join(event.facts)}"
    parts: list[RenderableType] = [
        Text(head, style="bold"),
        Text(f"{source}; {event.seconds:.2f} s, {event.tokens} tokens", style="dim"),
        *[Text(f"note: {note}", style="yellow") for note in event.notes],
        *([Text(facts.strip(), style="dim")] if event.facts else []),
        Rule(Text("asked"), align="left", style="dim"),
        Text(_asked(run, event)),
        Rule(Text("answered"), align="left", style="dim"),
        Text(event.reply),
    ]
    for name, value in (("parsed", event.parsed), ("scores", event.scores)):
        if value:
            parts += [Rule(Text(name), align="left", style="dim"), Text(_json(value))]
    return Group(*parts)


def _asked(run: Run, event: Event) -> str:
    """The question, whole if a model was asked it."""
    if event.call:
        for row in read_rows(run.stage("design") / CALLS):
            if row["key"] == event.call:
                call = Call(**row)
                return "\n\n".join(f"[{m['role']}] {m['content']}" for m in call.messages)
    return asked_of(event)


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False)


def compared(run: Run, old: str, new: str) -> RenderableType:
    """Two prompts, line by line; each is a finished one (pack-00) or one of a trial (3.0).

    Raises:
        UserError: no finished design, or no such prompt.
    """
    known = prompts_of(run)
    texts = [_found(known, name) for name in (old, new)]
    parts: list[RenderableType] = [Text(f"{old}  ->  {new}", style="bold")]
    for line in diff_lines(texts[0].system, texts[1].system):
        style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
        parts.append(Text(line, style=style))
    if len(parts) == 1:
        parts.append(Text("the same, word for word", style="dim"))
    return Group(*parts)


def diff_lines(old: str, new: str) -> list[str]:
    """A unified diff of two texts; long lines are compared sentence by sentence."""
    before, after = pieces(old), pieces(new)
    return list(difflib.unified_diff(before, after, lineterm="", n=2))[2:]


def prompts_of(run: Run) -> dict[str, Prompt]:
    """Every prompt that was ever written, and the finished ones, by name."""
    design = finished_design(run)
    trials = Trials(run.config.design.recall)
    for event in events(run):
        trials.hear(event)
    return {prompt.name: prompt for prompt in versions(design, trials.all())}


def _found(known: Mapping[str, Prompt], name: str) -> Prompt:
    if name in known:
        return known[name]
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.3)
    some = ", ".join(list(known)[:MOST_NAMES])
    near = f"did you mean {', '.join(close)}? " if close else ""
    raise UserError(
        f"--diff {name!r}: no such prompt; {near}{counted(len(known), 'prompt')} of all trials "
        f"(TRIAL.PLACE) and of the design: {some}, ..."
    )
