"""`ske inspect`: what the agents did, and one fact's whole way, on the terminal or as a page.

Reads the stages' folders; `page` writes `inspect.html`, one self-contained file, into the run's.
Texts of models are shown as texts: never as markup, neither here nor there.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from pipeline import pages
from pipeline.facts import read_facts
from pipeline.labels import in_order, method_label, plain
from pipeline.pages import shortened
from pipeline.run import Run
from pipeline.sheets import share
from pipeline.stories import Chronicle, Heard, Probe, Story, around, chronicle, stories
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
    parts: list[RenderableType] = [_trials(found), Text(f"{found.design.verdict}\n")]
    parts += [_packs(found)]
    if found.design.lost:
        parts.append(_lost(found, prompts))
    parts += [_counts(found), _roles(found)]
    first = next(iter(prompts), "ID")
    parts.append(
        Text(
            f"One fact's whole way: ske inspect {run.folder} --fact {first}\n"
            f"All of it as a page: ske inspect {run.folder} --html",
            style="dim",
        )
    )
    return Group(*parts)


def _grid(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table of plain texts; columns that end in a space hold words, the others numbers."""
    drawn = Table(title=title, title_justify="left")
    for name in columns:
        drawn.add_column(name.strip(), justify="left" if name.endswith(" ") else "right")
    for row in rows:
        drawn.add_row(*(Text(value) for value in row))
    return drawn


TRIAL_COLUMNS = (
    "",
    "purpose ",
    "layout ",
    "packer ",
    "facts/prompt",
    "tried",
    "recall %",
    "conseq. %",
    "drift %",
    "tokens/fact",
    "verdict ",
)


def _trials(found: Chronicle) -> Table:
    rows = [trial_cells(number, trial) for number, trial in enumerate(found.trials)]
    return _grid(f"{len(rows)} trials", TRIAL_COLUMNS, rows)


def trial_cells(number: int, trial: Any) -> list[str]:
    """A trial as texts."""
    row = trial.row
    verdict = "chosen" if trial.chosen else ("enough" if trial.passed else "too little")
    return [
        str(number),
        row["purpose"],
        row["layout"],
        row["packer"],
        str(row["facts_per_prompt"]),
        str(row["n"]),
        *(share(row[key]) for key in ("recall", "consequences", "drift")),
        f"{row['tokens_per_fact']:.1f}",
        verdict,
    ]


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
    return _grid(f"{len(packs)} prompts{more} (texts in stages/design/prompts)", columns, rows)


def _lost(found: Chronicle, prompts: dict[str, str]) -> Table:
    lost = list(found.design.lost.items())
    more = f", the first {MOST_LOST}" if len(lost) > MOST_LOST else ""
    rows = [(fact, shortened(prompts.get(fact, ""), 60), why) for fact, why in lost[:MOST_LOST]]
    return _grid(f"{len(lost)} facts lost{more}", ("fact ", "prompt ", "why "), rows)


def _counts(found: Chronicle) -> Text:
    told = ", ".join(f"{role} {count}" for role, count in found.counts.most_common())
    return Text(f"\nThe trace: {sum(found.counts.values())} events ({told})\n")


def _roles(found: Chronicle) -> Group:
    parts: list[RenderableType] = []
    for role in found.roles:
        name = f"{role.role} ({role.brain}, {role.template or 'no prompt'}), {role.count} times"
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
    hint = f"did you mean {', '.join(close)}?" if close else f"they are like {', '.join(ids[:3])}"
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


def where(story: Story) -> str:
    """Which prompt, and which place in it."""
    pack = story.pack
    if pack is None:
        return "In no prompt."
    place = pack.fact_ids.index(story.fact.id) + 1
    again = ", stated a second time at the end" if story.fact.id in pack.repeated else ""
    return (
        f"{pack.id}, fact {place} of {len(pack.fact_ids)}{again}; layout {pack.layout}, "
        f"header {pack.header}, footer {pack.footer}; recall {share(pack.recall)} %, "
        f"{pack.tokens} tokens"
    )


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
    title = f"Examined in {story.exam.count} prompts; the last exam under its own"
    return _grid(title, ("kind ", "asked ", "answered ", "expected ", "right "), rows)


def _ok(good: bool) -> str:
    return "yes" if good else "NO"


def _fact_queries(story: Story) -> Table:
    rows = [
        (row["kind"], row["prompt"], row["reply"], row.get("expected") or "-", row["status"])
        for row in story.queries
    ]
    title = f"{len(rows)} queries to the teacher"
    return _grid(title, ("kind ", "asked ", "answered ", "expected ", "became "), rows)


def lesson_counts(story: Story) -> str:
    """3 paraphrase, 1 fact, ..."""
    counts = Counter(row["kind"] for row in story.lessons)
    return ", ".join(f"{n} {kind}" for kind, n in counts.most_common()) or "none"


def lesson_rows(story: Story) -> list[tuple[str, str, str, str]]:
    """Kind, question, what the student learns to say, and how."""
    return [
        (
            row["kind"],
            row["chat"][-1]["content"],
            row["completion"],
            "the distribution" if row.get("ids") else "the text",
        )
        for row in story.lessons
    ]


def _fact_lessons(story: Story) -> Table:
    title = f"Trained on {lesson_counts(story)}"
    return _grid(title, ("kind ", "asked ", "to say ", "held to "), lesson_rows(story))


def protocols_of(told: Sequence[Story]) -> list[str]:
    """Those that any probe was asked under."""
    return in_order(list({p for s in told for probe in s.probes for _, p in probe.answers}))


def methods_of(told: Sequence[Story]) -> list[str]:
    """Those that answered, in the order of the rows."""
    return list(dict.fromkeys(m for s in told for probe in s.probes for m, _ in probe.answers))


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


def heard_text(heard: Heard) -> str:
    """What was said; under teacher forcing, the share of right tokens."""
    if heard.text:
        return shortened(heard.text, 120)
    return "error" if heard.score is None else f"{100 * heard.score:.0f} %"


def page(run: Run) -> Path:
    """Write `inspect.html`: the overview, and every fact to unfold, with a filter.

    Raises:
        UserError: the run has no finished design.
    """
    found, told = chronicle(run), stories(run)
    first = [protocol for protocol in protocols_of(told)[:1]]
    methods = methods_of(told)
    text = pages.page(
        "inspect.html.j2",
        folder=str(run.folder),
        found=found,
        design=found.design,
        trials=[(trial, trial_cells(n, trial)) for n, trial in enumerate(found.trials)],
        trial_columns=[name.strip() for name in TRIAL_COLUMNS],
        stories=told,
        protocol=first[0] if first else "",
        methods=methods,
        failing={story.fact.id: failing(story, first) for story in told},
        tools={
            "where": where,
            "around": around,
            "share": share,
            "lessons": lesson_rows,
            "lesson_counts": lesson_counts,
            "heard": heard_text,
            "label": method_label,
            "plain": plain,
        },
    )
    path = run.folder / "inspect.html"
    write_text(path, text)
    return path


def failing(story: Story, protocols: Sequence[str]) -> list[str]:
    """Methods whose edit of this fact did not take; the base has none."""
    own = [probe for probe in story.probes if probe.metric == "edit_success"]
    return [
        method
        for probe in own
        for (method, protocol), heard in probe.answers.items()
        if protocol in protocols and method != "base" and heard.score != 1
    ]
