"""Stage `ask`: every method answers every probe, in chunks that survive a kill.

Writes `rows.jsonl` (one line a probe, method and protocol: all that scores are made of) and
`capability.jsonl` (the suite of `pipeline.suite`). Replies are kept under `items/` by content, so
that a new method in the list costs only its own answers.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.ask import Answer, Item, answer, items, rows
from eval.capability import SkillRow
from pipeline.edits import edit_of
from pipeline.facts import read_cases, summary_of
from pipeline.places import edit_folder
from pipeline.run import Run
from pipeline.stage import fingerprint
from pipeline.suite import suite_items, suite_rows, task_rows
from ske.io import append_rows, drop_torn_line, file_hash, read_rows, write_json, write_rows
from ske.lm import LM
from ske.types import content_hash

CHUNK = 256
"""Items asked between two saves; fixed, so that a resumed run asks in the same batches."""


def run(run: Run, folder: Path) -> None:
    """Ask all methods; the base first, since locality is measured against it."""
    asked = items(read_cases(run), run.config.eval.max_probes)
    suite = suite_items(run, folder)
    everything = [*asked, *suite]
    methods = ["base", *(m for m in run.config.methods if m != "base")]
    said: dict[str, list[Answer]] = {}
    for method in methods:
        said[method] = _answers(run, folder, method, everything, said.get("base"))
    dataset, seed = str(summary_of(run)["dataset"]), run.config.seed
    protocols, cut = run.config.eval.protocols, len(asked)
    before = said["base"][:cut]
    write_rows(
        folder / "rows.jsonl",
        (
            row.model_dump(mode="json")
            for method in run.config.methods
            for row in rows(method, dataset, seed, protocols, asked, said[method][:cut], before)
        ),
    )
    write_rows(
        folder / "capability.jsonl",
        (
            row.model_dump(mode="json")
            for method in run.config.methods
            for row in (
                *suite_rows(method, dataset, seed, suite, said[method][cut:]),
                *_tasks(run, folder, method, dataset),
            )
        ),
    )


def _tasks(run: Run, folder: Path, method: str, dataset: str) -> list[SkillRow]:
    config = run.config.eval
    if not config.tasks:
        return []
    key = _key(run, method, [])
    path = folder / "items" / f"tasks-{method}-{key}.jsonl"
    with edit_of(run, method).applied(run.lm) as lm:
        return task_rows(run, lm, path, method, dataset)


def _answers(
    run: Run,
    folder: Path,
    method: str,
    asked: Sequence[Item],
    before: Sequence[Answer] | None,
) -> list[Answer]:
    """A method's answers, from its file as far as that goes, then from the model.

    `before` is the base's, which the method is also read at; None if it is the base.
    """
    path = folder / "items" / f"{method}-{_key(run, method, asked)}.jsonl"
    drop_torn_line(path)
    done = [Answer(**row) for row in read_rows(path)]
    if len(done) == len(asked):
        return done
    done = done[: len(done) // CHUNK * CHUNK]
    write_rows(path, [row.model_dump(mode="json") for row in done])
    started = time.time()
    numbered = list(enumerate(asked))
    with edit_of(run, method).applied(run.lm) as lm, run.progress(method, len(asked)) as update:
        update(len(done))
        while len(done) < len(asked):
            part = slice(len(done), len(done) + CHUNK)
            chunk = _ask(lm, numbered[part], run, before[part] if before else None)
            append_rows(path, [row.model_dump(mode="json") for row in chunk])
            done += chunk
            update(len(done))
    cost = {"seconds": round(time.time() - started, 1), "answers": len(asked)}
    write_json(path.with_suffix(".cost.json"), cost)
    return done


def _ask(
    lm: LM, chunk: list[tuple[int, Item]], run: Run, before: Sequence[Answer] | None
) -> list[Answer]:
    config = run.config.eval
    return answer(lm, chunk, config.protocols, config.max_new_tokens, before)


def _key(run: Run, method: str, asked: Sequence[Item]) -> str:
    edit = {p.name: file_hash(p) for p in sorted(edit_folder(run, method).glob("edit.*"))}
    config: dict[str, Any] = run.config.eval.model_dump(mode="json")
    return content_hash(
        [
            edit,
            config,
            fingerprint(run.config.model.path),
            run.config.model.style,
            [item.model_dump() for item in asked],
        ]
    )
