"""`ske inspect`: what the agents did, and one fact's whole way, on the terminal or as a page.

Reads the stages' folders; `page` writes `inspect.html`, one self-contained file, into the run's.
Texts of models are shown as texts: never as markup, neither here nor there.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from pipeline import pages
from pipeline.approving import waits
from pipeline.drawing import marked, panels, recall_map
from pipeline.facts import read_facts
from pipeline.labels import counted, method_label, plain
from pipeline.pages import shortened
from pipeline.run import Run
from pipeline.sheets import share
from pipeline.stories import Chronicle, Heard, Probe, Story, around, chronicle, stories
from pipeline.telling import (
    GRAPH_COLUMNS,
    PLACE_COLUMNS,
    TRIAL_COLUMNS,
    failing,
    graph_rows,
    heard_text,
    lesson_counts,
    lesson_rows,
    methods_of,
    place_rows,
    protocols_of,
    told_turns,
    trial_cells,
    where,
)
from pipeline.trials import versions
from ske.io import write_text
from ske.types import UserError

MOST_PACKS = 30
MOST_LOST = 30
MOST_IDS = 8


def overview(run: Run) -> RenderableType:
    """Trials, prompts, lost facts, and what each role was asked last.

    Raises:
        UserError: the run has no finished design.
    """
    found = chronicle(run)
    prompts = {fact.id: fact.prompt for fact in read_facts(run)}
    parts: list[RenderableType] = [_graph(found), _trials(found)]
    parts.append(Text(f"{found.design.verdict}\n"))
    if places := place_rows(found.trials):
        parts.append(_grid("Recall by place in the prompt", PLACE_COLUMNS, places))
    for no in found.design.rejected:
        told = f"rejected: {no.layout} x {no.capacity}, header {no.header}: {no.reason}\n"
        parts.append(Text(told, style="yellow"))
    if waits(run):
        how = f"ske inspect {run.folder} --approve | --reject REASON"
        parts.append(Text(f"These prompts wait for your approval: {how}\n", style="yellow"))
    parts += [_packs(found)]
    if found.design.lost:
        parts.append(_lost(found, prompts))
    parts += [_counts(found), _roles(found)]
    first = next(iter(prompts), "ID")
    parts.append(
        Text(
            f"One fact's whole way: ske inspect {run.folder} --fact {first}\n"
            f"One turn in full: ske inspect {run.folder} --turn 0\n"
            f"Two prompts compared: ske inspect {run.folder} --diff 0.0 pack-00\n"
            f"All of it as a page: ske inspect {run.folder} --html",
            style="dim",
        )
    )
    return Group(*parts)


def _grid(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table of plain texts; columns that end in a space hold words, the others numbers."""
    drawn = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False)
    lines = list(rows)
    for place, name in enumerate(columns):
        # Terminals are narrow: headings are broken, single words never.
        whole = not any(" " in line[place] for line in lines)
        side = "left" if name.endswith(" ") else "right"
        drawn.add_column(_broken(name), justify=side, no_wrap=whole)
    for line in lines:
        drawn.add_row(*(Text(value) for value in line))
    return drawn


def _broken(heading: str) -> str:
    """A heading with a word a line."""
    return heading.strip().replace(" / ", "/").replace("/", "/ ").replace(" ", "\n")


def _graph(found: Chronicle) -> Table:
    rows = graph_rows(found.visits, found.trials, len(found.design.rejected))
    return _grid("The agents' graph", GRAPH_COLUMNS, rows)


def _trials(found: Chronicle) -> Table:
    rows = [trial_cells(number, trial) for number, trial in enumerate(found.trials)]
    return _grid(counted(len(rows), "trial"), TRIAL_COLUMNS, rows)


def _packs(found: Chronicle) -> Table:
    packs = found.design.packs
    more = f", the first {MOST_PACKS}" if len(packs) > MOST_PACKS else ""
    rows = [
        (
            pack.id,
            str(len(pack.fact_ids)),
            pack.layout,
            f"{pack.header} / {pack.footer}",
            share(pack.recall),
            str(pack.tokens),
        )
        for pack in packs[:MOST_PACKS]
    ]
    columns = ("prompt ", "facts", "layout ", "header / footer ", "recall %", "tokens")
    return _grid(
        f"{counted(len(packs), 'prompt')}{more} (texts in stages/design/prompts)", columns, rows
    )


def _lost(found: Chronicle, prompts: dict[str, str]) -> Table:
    lost = list(found.design.lost.items())
    more = f", the first {MOST_LOST}" if len(lost) > MOST_LOST else ""
    rows = [(fact, shortened(prompts.get(fact, ""), 60), why) for fact, why in lost[:MOST_LOST]]
    return _grid(f"{counted(len(lost), 'fact')} lost{more}", ("fact ", "prompt ", "why "), rows)


def _counts(found: Chronicle) -> Text:
    told = ", ".join(f"{role} {count}" for role, count in found.counts.most_common())
    events = counted(sum(found.counts.values()), "event")
    return Text(f"\n{told_turns(found.design.turns)}\nThe trace: {events} ({told})\n")


def _roles(found: Chronicle) -> Group:
    parts: list[RenderableType] = []
    for role in found.roles:
        origin = f"{role.brain}, {role.template or 'no prompt'}"
        name = f"{role.role} ({origin}), {counted(role.times, 'time')}, last in turn {role.number}"
        parts += [
            Rule(Text(name), align="left", style="dim"),
            Text("asked     ", style="bold").append(_line(role.asked), style="not bold"),
            Text("answered  ", style="bold").append(_line(role.answered), style="not bold"),
        ]
        parts += [Text(f"note      {note}", style="yellow") for note in role.notes]
    return Group(*parts, Text(""))


def _line(text: str, most: int = 260) -> str:
    return shortened(" ".join(text.split()), most)


def fact(run: Run, fact_id: str) -> RenderableType:
    """One fact's whole way: packed where, asked how, answered what, trained on what, scored how.

    Raises:
        UserError: no such fact, or the run has no finished design.
    """
    found = stories(run, fact_id)
    if not found:
        raise unknown(run, fact_id)
    story = found[0]
    parts: list[RenderableType] = [_fact_head(story), _fact_prompt(story)]
    parts += [_fact_exam(story), _fact_queries(story), _fact_lessons(story)]
    parts += [_fact_probes(story.probes, protocol) for protocol in protocols_of([story])]
    if not story.probes:
        parts.append(Text("Not asked yet: stage ask is not done.", style="dim"))
    return Group(*parts)


def unknown(run: Run, fact_id: str) -> UserError:
    """Names close ids, and how to see all."""
    ids = [found.id for found in read_facts(run)]
    close = difflib.get_close_matches(fact_id, ids, n=MOST_IDS, cutoff=0.5)
    hint = f"did you mean {', '.join(close)}?" if close else f"they are like {', '.join(ids[:3])}."
    return UserError(
        f"--fact {fact_id!r}: no such fact among the {len(ids)} of this run; {hint} "
        f"All are in {run.stage('facts')}/facts.jsonl, or: ske inspect {run.folder} --html"
    )


def _fact_head(story: Story) -> Group:
    own = story.fact
    head = Text(f"{own.id}  ", style="bold").append(own.prompt, style="not bold")
    head.append(f"  ->  {own.target_new}", style="bold green")
    before = f"  (was: {own.ground_truth})" if own.ground_truth else ""
    head.append(before, style="dim")
    lost = [Text(f"Lost: {story.lost}", style="red")] if story.lost is not None else []
    return Group(head, *lost, Text(""))


def _fact_prompt(story: Story) -> Group:
    parts: list[RenderableType] = [Text(f"Packed in {where(story)}", style="bold")]
    if story.pack is not None:
        before, hit, after = around(story.pack.system, story.fact)
        parts.append(Text(before).append(hit, style="black on yellow").append(after))
    return Group(*parts, Text(""))


def _fact_exam(story: Story) -> Table:
    rows = [
        (row["kind"], row["question"], row["answer"], row["expected"] or "-", _ok(row["ok"]))
        for row in story.exam.rows
    ]
    title = f"Examined in {counted(story.exam.prompts, 'prompt')}; the last exam under its own"
    return _grid(title, ("kind ", "asked ", "answered ", "expected ", "right "), rows)


def _ok(good: bool) -> str:
    return "yes" if good else "NO"


def _fact_queries(story: Story) -> Table:
    rows = [
        (row["kind"], row["prompt"], row["reply"], row.get("expected") or "-", row["status"])
        for row in story.queries
    ]
    title = f"Asked of the teacher: {len(rows)}"
    return _grid(title, ("kind ", "asked ", "answered ", "expected ", "became "), rows)


def _fact_lessons(story: Story) -> Table:
    title = f"Trained on {lesson_counts(story)}"
    return _grid(title, ("kind ", "asked ", "to say ", "held to "), lesson_rows(story))


def _fact_probes(probes: Sequence[Probe], protocol: str) -> Table:
    methods = list(dict.fromkeys(m for probe in probes for m, p in probe.answers if p == protocol))
    drawn = Table(title=f"Scored, {plain(protocol)}", title_justify="left")
    for name in ("metric", "asked", "wanted", *map(method_label, methods)):
        drawn.add_column(name)
    for probe in probes:
        kind = plain(probe.metric) + ("" if probe.category == "all" else f"\n{probe.category}")
        heard = [_heard(probe.answers.get((method, protocol))) for method in methods]
        drawn.add_row(Text(kind), Text(probe.prompt), Text(probe.wanted), *heard)
    return drawn


def _heard(heard: Heard | None) -> Text:
    if heard is None:
        return Text("-")
    return Text(heard_text(heard), style={1.0: "green", None: "yellow"}.get(heard.score, "red"))


def page(run: Run) -> Path:
    """Write `inspect.html`: the overview, and every fact to unfold, with a filter.

    Raises:
        UserError: the run has no finished design.
    """
    found, told = chronicle(run), stories(run)
    facts = {story.fact.id: story.fact for story in told}
    first = protocols_of(told)[:1]
    methods = methods_of(told)
    text = pages.page(
        "inspect.html.j2",
        folder=str(run.folder),
        found=found,
        design=found.design,
        trials=[(trial, trial_cells(n, trial)) for n, trial in enumerate(found.trials)],
        trial_columns=[name.strip() for name in TRIAL_COLUMNS],
        graph=graph_rows(found.visits, found.trials, len(found.design.rejected)),
        places=place_rows(found.trials),
        place_columns=PLACE_COLUMNS,
        panels=panels(found.design.curve),
        recall_map=recall_map(list(facts), found.trials),
        order={fact_id: place for place, fact_id in enumerate(facts)},
        prompts=versions(found.design, found.trials),
        stories=told,
        protocol=first[0] if first else "",
        methods=methods,
        failing={story.fact.id: failing(story, first) for story in told},
        tools={
            "where": where,
            "turns": told_turns,
            "around": around,
            "marked": lambda pack: marked(pack, facts, found.design.lost),
            "share": share,
            "lessons": lesson_rows,
            "lesson_counts": lesson_counts,
            "heard": heard_text,
            "label": method_label,
            "plain": plain,
            "counted": counted,
        },
    )
    path = run.folder / "inspect.html"
    write_text(path, text)
    return path
