"""Stage `ask`: every method answers every probe, in chunks that survive a kill.

Writes `rows.jsonl` (one line a probe, method and protocol: all that scores are made of) and
`capability.jsonl` (unrelated skills). Replies are kept under `items/` by content, so that a new
method in the list costs only its own answers.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.ask import Answer, Item, answer, items, rows
from pipeline.edits import edit_of
from pipeline.facts import read_cases, summary_of
from pipeline.places import edit_folder
from pipeline.run import Run
from pipeline.stage import fingerprint
from ske.io import append_rows, drop_torn_line, file_hash, read_rows, write_json, write_rows
from ske.lm import LM
from ske.types import content_hash
from world.skills import SKILLS

CHUNK = 256
"""Items asked between two saves; fixed, so that a resumed run asks in the same batches."""


def run(run: Run, folder: Path) -> None:
    """Ask all methods; the base first, since locality is measured against it."""
    asked = items(read_cases(run), run.config.eval.max_probes)
    generated = "generate" in run.config.eval.protocols
    skills = skill_items(run.config.eval.capability if generated else 0)
    everything = [*asked, *skills]
    methods = ["base", *(m for m in run.config.methods if m != "base")]
    said = {method: _answers(run, folder, method, everything) for method in methods}
    dataset = str(summary_of(run)["dataset"])
    protocols = run.config.eval.protocols
    cut = len(asked)
    write_rows(
        folder / "rows.jsonl",
        (
            row.model_dump(mode="json")
            for method in run.config.methods
            for row in rows(
                method,
                dataset,
                run.config.seed,
                protocols,
                asked,
                said[method][:cut],
                said["base"][:cut],
            )
        ),
    )
    write_rows(
        folder / "capability.jsonl",
        (
            {
                "method": method,
                "dataset": dataset,
                "seed": run.config.seed,
                "skill": item.category,
                "prompt": item.prompt,
                "answer": item.answers[0][0],
                "text": own.text,
            }
            for method in run.config.methods
            for item, own in zip(skills, said[method][cut:], strict=True)
        ),
    )


def skill_items(count: int) -> list[Item]:
    """`count` questions of each unrelated skill, the same for everybody."""
    drawn = []
    for skill, draw in SKILLS.items():
        rng = random.Random(f"capability-{skill}")
        for number in range(count):
            prompt, right = draw(rng)
            drawn.append(
                Item(
                    case=f"{skill}-{number}",
                    metric="capability",
                    category=skill,
                    probe=0,
                    prompt=prompt,
                    answers=((right,),),
                )
            )
    return drawn


def _answers(run: Run, folder: Path, method: str, asked: Sequence[Item]) -> list[Answer]:
    """A method's answers, from its file as far as that goes, then from the model."""
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
            chunk = _ask(lm, numbered[len(done) : len(done) + CHUNK], run)
            append_rows(path, [row.model_dump(mode="json") for row in chunk])
            done += chunk
            update(len(done))
    cost = {"seconds": round(time.time() - started, 1), "answers": len(asked)}
    write_json(path.with_suffix(".cost.json"), cost)
    return done


def _ask(lm: LM, chunk: list[tuple[int, Item]], run: Run) -> list[Answer]:
    config = run.config.eval
    return answer(lm, chunk, config.protocols, config.max_new_tokens)


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
