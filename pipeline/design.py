"""Stage `design`: the agents pack the facts into prompts; `agents.graph.design` writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agents.graph import design
from agents.publish import NeedsApproval, NothingLeft
from agents.records import Design
from pipeline.answering import teacher_key
from pipeline.facts import read_facts
from pipeline.freetext import subjects
from pipeline.reaching import all_answered, reach
from pipeline.run import Run
from pipeline.telling import told_turns
from pipeline.trials import pieces
from ske.io import read_json, record_of
from ske.texts import free_texts
from ske.trace import Trace
from ske.types import Fact

NAME_TEXTS = 256
"""Texts sampled to find subjects that are not edited."""


def run(run: Run, folder: Path) -> None:
    """Design, or go on with an interrupted design."""
    facts = read_facts(run)
    config = run.config
    reach(config.design, folder)
    texts = free_texts(run.base, NAME_TEXTS, config.teach.free_tokens, config.seed)
    edited = {fact.subject for fact in facts}
    names = sorted(set(subjects(texts)) - edited)
    result = _designed(run, folder, facts, names)
    sizes = [len(pack.fact_ids) for pack in result.packs]
    run.console.print(
        f"  {len(facts)} facts in {len(sizes)} prompts of up to {max(sizes)}; "
        f"{len(result.lost)} lost; {result.verdict}",
        highlight=False,
    )
    if config.design.brain == "model":
        run.console.print(f"  {told_turns(result.turns)}", highlight=False)


def _designed(run: Run, folder: Path, facts: Sequence[Fact], names: Sequence[str]) -> Design:
    config = run.config
    with run.progress("trials", config.design.max_trials) as update:
        done = 0

        def progress(line: str) -> None:
            nonlocal done
            done += 1
            update(done, note=line)

        key = teacher_key(config)
        try:
            result = design(
                facts, run.teacher, config.design, folder, progress, names=names, key=key
            )
        except (NeedsApproval, NothingLeft):
            all_answered(folder)
            raise
    all_answered(folder)
    return result


def read_design(run: Run) -> Design:
    """The result of a finished `design` stage."""
    path = run.stage("design") / "design.json"
    return record_of(read_json(path), path, Design)


def examined(run: Run) -> dict[str, list[str]]:
    """What a finished design was searched with, by kind: the questions asked, the prompts' lines.

    Nothing that designs sees a probe; this is so that it can be checked. Prompts are read where
    they are whole: what the Writer decided, and the finished ones; what a turn was asked is cut in
    a trace if it is long.
    """
    questions: dict[str, None] = {}
    prompts: dict[str, None] = {}
    systems = [pack.system for pack in read_design(run).packs]
    for event in Trace(run.stage("design") / "trace.jsonl").events():
        if event.role == "writer":
            systems.append(event.parsed["system"])
        if event.template == "agents/examiner":
            questions.update((row["question"], None) for row in event.parsed.get("rows", ()))
    for system in systems:
        prompts.update((part, None) for part in pieces(system))
    return {"examiner's questions": list(questions), "prompts": list(prompts)}
