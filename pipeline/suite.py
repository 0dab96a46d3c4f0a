"""The capability suite of stage `ask`: what is asked beside the probes, of every method alike.

Unrelated skills, people of the embedded world whom no edit and no training query names, reading
facts in a prompt, text sampled from the base model (perplexity), and tasks of
lm-evaluation-harness. Reads what the teacher asked; keeps what it samples under `items/`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.ask import Answer, Item
from eval.capability import SkillRow
from eval.fluency import FLUENCY
from eval.harness import solve
from pipeline.answering import base_key
from pipeline.facts import read_facts
from pipeline.freetext import without_subjects
from pipeline.places import teach_folders
from pipeline.run import Run
from ske.config import found
from ske.io import read_json, read_records, read_rows, write_json, write_rows
from ske.lm import LM
from ske.texts import free_texts
from ske.types import content_hash
from world.build import load_world
from world.capability import Asked, held_out, reading, untouched
from world.skills import SKILLS

HELD_OUT, READING, FREE_TEXT = "held_out", "in_context", "free_text"
TEXT_TOKENS = 64
_TEXT_SEED = 7_919
"""Far from the seeds of the texts that students are held to."""


def suite_items(run: Run, folder: Path) -> list[Item]:
    """Every question and text of the suite, in a fixed order; none without `generate`."""
    count = run.config.eval.capability
    if "generate" not in run.config.eval.protocols or count == 0:
        return []
    groups = [*_skills(count).items(), (READING, reading(count)), (HELD_OUT, _known(run, count))]
    asked = [
        _item("capability", name, number, one)
        for name, group in groups
        for number, one in enumerate(group)
    ]
    texts = [Asked("", (text,)) for text in _texts(run, folder, count)]
    return asked + [_item("perplexity", FREE_TEXT, *numbered) for numbered in enumerate(texts)]


def _item(metric: str, category: str, number: int, one: Asked) -> Item:
    return Item(
        case=f"{category}-{number}",
        metric=metric,
        category=category,
        probe=0,
        prompt=one.prompt,
        answers=(one.answers,),
        system=one.system,
    )


def _skills(count: int) -> dict[str, list[Asked]]:
    """`count` questions of each unrelated skill, the same for everybody."""
    drawn: dict[str, list[Asked]] = {}
    for skill, draw in SKILLS.items():
        rng = random.Random(f"capability-{skill}")
        drawn[skill] = [
            Asked(prompt, (right,)) for prompt, right in (draw(rng) for _ in range(count))
        ]
    return drawn


def _known(run: Run, count: int) -> list[Asked]:
    """Questions about people of the world whom neither an edit nor a training query names."""
    if run.config.data.path is not None:
        return []
    world = load_world(found(run.config.world.path))
    edits = [str(value) for fact in read_facts(run) for value in fact.model_dump().values()]
    queries = [
        " ".join(str(query.get(key) or "") for key in ("prompt", "expected", "reply"))
        for folder in teach_folders(run)
        for query in read_rows(folder / "queries.jsonl")
    ]
    return held_out(world, untouched(world, edits, queries), count)


def _texts(run: Run, folder: Path, count: int) -> list[str]:
    """What the base model says by itself, before any edit, and not about an edited subject."""
    seed = run.config.seed + _TEXT_SEED
    key = content_hash([base_key(run.config.model), seed, count])
    path = folder / "items" / f"texts-{key}.json"
    if not path.exists():
        write_json(path, free_texts(run.base, count, TEXT_TOKENS, seed))
    read = {
        row["completion"]
        for taught in teach_folders(run)
        for row in read_rows(taught / "lessons.jsonl")
    }
    texts: list[str] = read_json(path)
    return [text for text in without_subjects(texts, read_facts(run)) if text not in read]


def suite_rows(
    method: str, dataset: str, seed: int, asked: Sequence[Item], said: Sequence[Answer]
) -> list[SkillRow]:
    """What is saved of the suite's answers."""
    return [
        SkillRow.model_validate(
            {
                "method": method,
                "dataset": dataset,
                "seed": seed,
                "skill": item.category,
                "metric": item.metric,
                "error": own.error,
                **_told(item, own),
            }
        )
        for item, own in zip(asked, said, strict=True)
    ]


def _told(item: Item, own: Answer) -> dict[str, Any]:
    if item.metric == FLUENCY:
        return {"case": item.case, "prompt": item.prompt, "text": own.text}
    [(answer, *aliases)] = item.answers
    if item.metric == "capability":
        told = {"prompt": item.prompt, "answer": answer, "aliases": aliases, "text": own.text}
        return told
    # A loss of 100 nats a token is as broken as any; its exponential must stay a number.
    score = None if own.loss is None else math.exp(min(own.loss, 100.0))
    return {"answer": answer, "score": score}


def task_rows(run: Run, lm: LM, path: Path, method: str, dataset: str) -> list[SkillRow]:
    """A method's answers to the harness's tasks, from their file if it is there."""
    config = run.config.eval
    if not path.exists():
        rows = [
            SkillRow(
                method=method,
                dataset=dataset,
                seed=run.config.seed,
                skill=solved.task,
                prompt=solved.question,
                score=solved.score,
            )
            for solved in solve(lm, config.tasks, config.task_limit)
        ]
        write_rows(path, [row.model_dump(mode="json") for row in rows])
    return read_records(path, SkillRow)
