"""Stage `ask`: every method answers every probe, in chunks that survive a kill.

Writes `rows.jsonl` (one line a probe, method and protocol: all that scores are made of),
`capability.jsonl` (the suite of `pipeline.suite`, and texts written behind the edits' prompts), of
sequential runs `retention.jsonl` (each round's facts after every later round) and of ConvSent
`opinions.jsonl`, and `judged.jsonl` if a judge is named. Replies are kept under `items/` by
content, so that a new method in the list costs only its own answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eval.ask import Answer, Item, answer, items, opinion_rows, opinions, rows, written
from eval.capability import SkillRow
from eval.judge import FILE as JUDGED
from eval.records import Case
from eval.retention import FILE as RETENTION
from eval.score import BASE, Row
from eval.sentiment import FILE as OPINIONS
from pipeline.answering import base_key
from pipeline.edits import edited, hash_of
from pipeline.facts import read_cases, summary_of
from pipeline.judging import check, judge
from pipeline.places import edit_folders
from pipeline.rounds import Rounds, read_rounds
from pipeline.run import Run
from pipeline.sittings import Sitting, latest, retention, sittings
from pipeline.stage import task_hashes, weights_key
from pipeline.suite import suite_items, suite_rows, task_rows
from ske.io import append_rows, read_json, read_kept, write_json, write_rows
from ske.lm import LM
from ske.types import NeedsWeights, content_hash

CHUNK = 256
"""Items asked between two saves; fixed, so that a resumed run asks in the same batches."""


class Asked(NamedTuple):
    """Who is asked the probes."""

    lm: Callable[[], LM]
    """Loads it when there is something to ask."""
    key: str
    """What tells its answers from those of others."""


class Heard(NamedTuple):
    """What one sitting gave, and what it took."""

    answers: list[Answer]
    seconds: float


def run(run: Run, folder: Path) -> None:
    """Ask all methods; the base first, since the others are read at its answers."""
    if run.config.eval.judge is not None:
        check(run.config.eval.judge)  # Before the model is loaded.
    plan = _planned(run, folder)
    (asked, talk, texts), who, rounds = plan.own, plan.who, plan.rounds
    probes, own = slice(len(asked)), [*asked, *talk, *texts]
    heard = _heard(run, folder, plan, run.config.methods)
    write_json(folder / "costs.json", {method: _costs(own) for method, own in heard.items()})
    said = {method: [each.answers for each in own] for method, own in heard.items()}
    final = {method: latest(answers) for method, answers in said.items()}
    dataset = str(summary_of(run)["dataset"])

    def scorable(
        method: str, some: Sequence[Item], own: Sequence[Answer], base: Sequence[Answer]
    ) -> Iterable[Row]:
        return rows(method, dataset, run.config.seed, run.config.eval.protocols, some, own, base)

    probed = [
        row
        for method in run.config.methods
        for row in scorable(method, asked, final[method][probes], final[BASE][probes])
    ]
    write_rows(folder / "rows.jsonl", (row.model_dump(mode="json") for row in probed))
    (folder / JUDGED).unlink(missing_ok=True)
    if run.config.eval.judge is not None:
        with run.progress("judge") as update:
            judge(probed, run.config.eval.judge, folder, update)
    (folder / RETENTION).unlink(missing_ok=True)
    if rounds.mode == "sequential":
        kept = retention(rounds, plan.times, own, said, scorable)
        write_rows(folder / RETENTION, (row.model_dump(mode="json") for row in kept))
    _write_opinions(run, folder, talk, final, slice(len(asked), len(asked) + len(talk)))
    told = {method: answers[len(asked) + len(talk) :] for method, answers in final.items()}
    beside = [*texts, *plan.suite]
    write_rows(
        folder / "capability.jsonl",
        (row.model_dump(mode="json") for row in _suite(run, who, folder, rounds, beside, told)),
    )


def ahead(run: Run, folder: Path, methods: Sequence[str]) -> None:
    """Ask some of the methods, of whom the base is the first; `run` finds their answers."""
    _heard(run, folder, _planned(run, folder), methods)


class _OfCases(NamedTuple):
    """What is asked about single cases."""

    probes: list[Item]
    opinions: list[Item]
    texts: list[Item]


class _Plan(NamedTuple):
    """Who is asked what, and when."""

    own: _OfCases
    suite: list[Item]
    rounds: Rounds
    times: list[Sitting]
    who: Asked

    @property
    def everything(self) -> list[Item]:
        """All that is asked; sittings name places in it."""
        return [*self.own.probes, *self.own.opinions, *self.own.texts, *self.suite]


def _planned(run: Run, folder: Path) -> _Plan:
    rounds, own = read_rounds(run), _of_cases(run, read_cases(run))
    # The suite is asked of the one model that holds all edits, if there is one.
    suite = [] if rounds.mode == "single" else suite_items(run, folder)
    times = sittings(rounds, [*own.probes, *own.opinions, *own.texts], len(suite))
    return _Plan(own, suite, rounds, times, answerer(run, _edits(run, rounds)))


def _of_cases(run: Run, cases: Sequence[Case]) -> _OfCases:
    config = run.config.eval
    write = "generate" in config.protocols and config.fluency_tokens > 0
    return _OfCases(
        items(cases, config.max_probes),
        opinions(cases) if "teacher_forced" in config.protocols else [],
        written(cases) if write else [],
    )


def _write_opinions(
    run: Run, folder: Path, talk: Sequence[Item], said: dict[str, list[Answer]], places: slice
) -> None:
    """What ConvSent is scored by; other data sets have no such file."""
    path, dataset = folder / OPINIONS, str(summary_of(run)["dataset"])
    path.unlink(missing_ok=True)
    if talk:
        rows = (
            row.model_dump(mode="json")
            for method, own in said.items()
            for row in opinion_rows(
                method, dataset, run.config.seed, talk, own[places], said[BASE][places]
            )
        )
        write_rows(path, rows)


def _edits(run: Run, rounds: Rounds) -> list[Path]:
    """Every edit that is asked about."""
    numbers = [each.number for each in rounds.rounds]
    return [f for method in run.config.methods for f in edit_folders(run, method, rounds, numbers)]


def _heard(run: Run, folder: Path, plan: _Plan, methods: Sequence[str]) -> dict[str, list[Heard]]:
    """What methods answered in every sitting, beside what the base did in the same one."""
    heard: dict[str, list[Heard]] = {}
    for method in methods:
        base = [each.answers for each in heard[BASE]] if heard else [None] * len(plan.times)
        heard[method] = [
            _answers(run, folder, plan, method, sitting, before)
            for sitting, before in zip(plan.times, base, strict=True)
        ]
    return heard


def _suite(
    run: Run,
    who: Asked,
    folder: Path,
    rounds: Rounds,
    suite: Sequence[Item],
    told: dict[str, list[Answer]],
) -> Iterator[SkillRow]:
    """The capability suite and the harness's tasks, method by method."""
    dataset, seed = str(summary_of(run)["dataset"]), run.config.seed
    for method in run.config.methods:
        yield from suite_rows(method, dataset, seed, suite, told[method])
        if run.config.eval.tasks and rounds.mode != "single":
            yield from _tasks(run, who, folder, method, rounds)


def _tasks(run: Run, who: Asked, folder: Path, method: str, rounds: Rounds) -> list[SkillRow]:
    """A method's answers to the harness's tasks, with all edits in the model."""
    edits = edit_folders(run, method, rounds, rounds.rounds[-1].stack)
    asked = [run.config.eval.tasks, run.config.eval.task_limit, task_hashes(run.config)]
    key = content_hash([_key(run, who, edits, []), asked])
    path = folder / "items" / f"tasks-{method}-{key}.jsonl"
    with edited(who.lm(), edits) as lm:
        return task_rows(run, lm, path, method, str(summary_of(run)["dataset"]))


def _answers(
    run: Run,
    folder: Path,
    plan: _Plan,
    method: str,
    sitting: Sitting,
    before: Sequence[Answer] | None,
) -> Heard:
    """A method's answers in one sitting, from their file as far as that goes, then its model's.

    `before` is the base's in the same sitting, which the method is also read at; None if it is
    the base.
    """
    edits = edit_folders(run, method, plan.rounds, sitting.edits)
    asked = plan.everything
    numbered = [(place, asked[place]) for place in sitting.places]
    path = folder / "items" / f"{method}-{_key(run, plan.who, edits, numbered)}.jsonl"
    done, costs = read_kept(path, Answer), path.with_suffix(".cost.json")
    if len(done) == len(numbered) and costs.exists():
        return Heard(done, read_json(costs, ("seconds",))["seconds"])
    done = done[: len(done) // CHUNK * CHUNK]
    write_rows(path, [row.model_dump(mode="json") for row in done])
    started = time.time()
    with edited(plan.who.lm(), edits) as lm, run.progress(method, len(numbered)) as update:
        update(len(done))
        while len(done) < len(numbered):
            part = slice(len(done), len(done) + CHUNK)
            chunk = _ask(lm, numbered[part], run, before[part] if before else None)
            append_rows(path, [row.model_dump(mode="json") for row in chunk])
            done += chunk
            update(len(done))
    seconds = round(time.time() - started, 1)
    write_json(costs, {"seconds": seconds, "answers": len(numbered)})
    return Heard(done, seconds)


def answerer(run: Run, edits: Sequence[Path]) -> Asked:
    """Who is asked in a run with these edits: the backend, if it can take every one of them.

    One engine answers for all methods of a run. Engines differ in the last digits, and what
    differs between methods in a table must be the methods.
    """
    model = run.config.model
    by_weights = Asked(lambda: run.lm, weights_key(model))
    if model.backend != "vllm":
        return by_weights
    from methods.table import load_edit

    try:
        for folder in edits:
            with load_edit(folder).applied(run.base):
                pass
    except NeedsWeights as error:
        run.console.print(f"  transformers answers for all methods: {error}", highlight=False)
        return by_weights
    return Asked(lambda: run.base, base_key(model))


def _costs(heard: Sequence[Heard]) -> dict[str, float]:
    seconds = round(sum(each.seconds for each in heard), 1)
    costs = {"seconds": seconds, "answers": sum(len(each.answers) for each in heard)}
    spoken = [one.read + one.tokens for each in heard for one in each.answers if one.read]
    return costs | ({"tokens": round(sum(spoken) / len(spoken), 1)} if spoken else {})


def _ask(
    lm: LM, chunk: list[tuple[int, Item]], run: Run, before: Sequence[Answer] | None
) -> list[Answer]:
    config = run.config.eval
    return answer(lm, chunk, config.protocols, config.max_new_tokens, before, config.fluency_tokens)


def _key(run: Run, who: Asked, edits: Sequence[Path], numbered: Sequence[tuple[int, Item]]) -> str:
    # Which questions there are is in the items themselves.
    aside = {"judge", "tasks", "task_limit", "capability", "max_probes"}
    config: dict[str, Any] = run.config.eval.model_dump(mode="json", exclude=aside)
    return content_hash(
        [
            [hash_of(edit) for edit in edits],
            config,
            who.key,
            [[place, item.model_dump()] for place, item in numbered],
        ]
    )
