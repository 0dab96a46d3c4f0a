"""Stage `facts`: draws the corrections of a run, and the probes that belong to them.

Writes `facts.jsonl` (what agents and editors may see), `cases.jsonl` (with the probes, for the
evaluators alone), `rounds.json` (which are edited together) and `summary.json` (what was skipped,
and why).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.cases import Case, Loaded, Skipped, conflicts, load
from eval.hard import with_hard
from eval.sentiment import with_outer
from pipeline.rounds import divided, write_rounds
from pipeline.run import Run
from ske.config import DataConfig, EditsConfig, found
from ske.facts import quoted
from ske.io import read_json, read_records, write_json, write_rows
from ske.types import Fact, UserError


def run(run: Run, folder: Path) -> None:
    """Load, choose, write."""
    loaded = load_cases(run.config.data, run.config.world.path, run.config.edits, folder)
    usable, dropped = without_conflicts(loaded.cases)
    cases = choose(with_hard(usable), run.config.edits, shuffled=run.config.data.path is not None)
    cases = with_outer(cases, usable)
    write_rows(folder / "facts.jsonl", [case.fact.model_dump(mode="json") for case in cases])
    write_rows(folder / "cases.jsonl", [case.model_dump(mode="json") for case in cases])
    rounds = divided([case.fact.id for case in cases], run.config.edits)
    write_rounds(folder, rounds)
    summary = {
        "dataset": loaded.name,
        "cases": len(cases),
        "available": len(loaded.cases),
        "conflicting": dropped,
        "skipped": [item.model_dump(mode="json") for item in loaded.skipped],
    }
    write_json(folder / "summary.json", summary)
    note = f"  {len(cases)} of {len(loaded.cases)} cases of {loaded.name}"
    extras = [f"{len(rounds.rounds)} edits, {rounds.mode}"] if rounds.mode != "batch" else []
    extras += [f"{len(dropped)} conflicting left out"] if dropped else []
    extras += [f"{counted(loaded.skipped)} not used"] if loaded.skipped else []
    run.console.print("; ".join([note, *extras]), highlight=False)


def load_cases(data: DataConfig, world: str, edits: EditsConfig, folder: Path) -> Loaded:
    """The cases of a file, or of a benchmark of the embedded world drawn with `edits.seed`.

    Raises:
        UserError: no such file or benchmark, or a file that cannot be read.
    """
    if data.path is not None:
        return load(found(data.path))
    from world.bench import benchmarks, records
    from world.build import load_world

    names = [name for name, _ in benchmarks()]
    if data.name not in names:
        raise UserError(
            f"data.name = {data.name!r}: no such benchmark; there are: "
            f"{', '.join(names)}; for a file of your own set data.path"
        )
    drawn = records(load_world(found(world)), data.name, data.split, edits.seed)
    path = folder / "work" / f"{data.name}.json"
    write_json(path, drawn)
    return load(path)._replace(name=data.name)


def without_conflicts(cases: list[Case]) -> tuple[list[Case], list[str]]:
    """Leave out later cases that ask for another target of the same prompt, and repeats."""
    seen: set[str] = set()
    clashing = {conflict.later.id for conflict in conflicts([case.fact for case in cases])}
    kept, dropped = [], []
    for case in cases:
        repeated = case.fact.prompt in seen or case.fact.id in clashing
        (dropped if repeated else kept).append(case)
        seen.add(case.fact.prompt)
    return kept, [case.fact.id for case in dropped]


def counted(skipped: Sequence[Skipped]) -> str:
    """How many things of each kind are not used: "2 records, 1 probe"."""
    counts: Counter[str] = Counter()
    for item in skipped:
        counts[item.kind] += item.count
    return ", ".join(f"{n} {kind}{'' if n == 1 else 's'}" for kind, n in counts.items())


def left_out(loaded: Loaded) -> list[str]:
    """Which facts of a data set are not edited and why, a line each, skipped records first."""
    lines = [f"{s.file} {s.where}: {s.reason}" for s in loaded.skipped if s.kind == "record"]
    clashing = {clash.later.id: clash.first for clash in conflicts(c.fact for c in loaded.cases)}
    dropped = set(without_conflicts(loaded.cases)[1])
    first: dict[str, Fact] = {}
    for fact in (case.fact for case in loaded.cases):
        earlier = clashing.get(fact.id) or first.setdefault(fact.prompt, fact)
        if fact.id in dropped:
            targets = f"({quoted(earlier.target_new)} there, {quoted(fact.target_new)} here)"
            said = f"another target {targets}" if fact.id in clashing else "the same target"
            lines.append(
                f"fact {quoted(fact.id)}: its prompt {quoted(fact.prompt)} stands also in fact "
                f"{quoted(earlier.id)}, with {said}; the first one stays"
            )
    return lines


def choose(cases: list[Case], edits: EditsConfig, shuffled: bool) -> list[Case]:
    """The cases of this run: the world's come in drawn order, a file's are drawn here.

    A file's keep its order, but for sequential rounds: files are often sorted by relation, and
    then an early round would differ from a late one in more than its age.

    Raises:
        UserError: there are fewer than the rounds need.
    """
    if edits.mode == "sequential":
        return _in_rounds(cases, edits, shuffled)
    limit = min(edits.limit or len(cases), len(cases))
    if not shuffled or limit == len(cases):
        return cases[:limit]
    places = random.Random(edits.seed).sample(range(len(cases)), limit)
    return [cases[place] for place in sorted(places)]


def _in_rounds(cases: list[Case], edits: EditsConfig, shuffled: bool) -> list[Case]:
    wanted = edits.rounds * edits.per_round
    if wanted > len(cases):
        raise UserError(
            f"edits.rounds = {edits.rounds} and edits.per_round = {edits.per_round} need {wanted} "
            f"facts, and there are {len(cases)}; set one of them lower"
        )
    return random.Random(edits.seed).sample(cases, wanted) if shuffled else cases[:wanted]


def read_facts(run: Run) -> list[Fact]:
    """The facts of a finished `facts` stage."""
    return read_records(run.stage("facts") / "facts.jsonl", Fact)


def read_cases(run: Run) -> list[Case]:
    """The cases of a finished `facts` stage; only evaluators may call this."""
    return read_records(run.stage("facts") / "cases.jsonl", Case)


def summary_of(run: Run) -> dict[str, Any]:
    """What `facts` wrote about itself."""
    return read_json(run.stage("facts") / "summary.json", ("dataset",))
