"""Stage `ask`: every method answers every probe, in chunks that survive a kill.

Writes `rows.jsonl` (one line a probe, method and protocol: all that scores are made of),
`capability.jsonl` (unrelated skills) and, of sequential runs, `retention.jsonl` (each round's facts
after every later round). Replies are kept under `items/` by content, so that a new method in the
list costs only its own answers.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from eval.ask import Answer, Item, answer, items, rows
from eval.score import Row
from pipeline.edits import edited, hash_of
from pipeline.facts import read_cases, summary_of
from pipeline.places import edit_folders
from pipeline.rounds import Rounds, read_rounds
from pipeline.run import Run
from pipeline.sittings import Sitting, latest, retention, sittings
from pipeline.stage import fingerprint
from ske.io import append_rows, drop_torn_line, read_rows, write_json, write_rows
from ske.lm import LM
from ske.types import content_hash
from world.skills import SKILLS

CHUNK = 256
"""Items asked between two saves; fixed, so that a resumed run asks in the same batches."""


class Heard(NamedTuple):
    """What one sitting gave, and what it took."""

    answers: list[Answer]
    seconds: float


def run(run: Run, folder: Path) -> None:
    """Ask all methods; the base first, since locality is measured against it."""
    asked = items(read_cases(run), run.config.eval.max_probes)
    rounds = read_rounds(run)
    # Unrelated skills are asked of the one model that holds all edits, if there is one.
    generated = "generate" in run.config.eval.protocols and rounds.mode != "single"
    skills = skill_items(run.config.eval.capability if generated else 0)
    everything, times = [*asked, *skills], sittings(rounds, asked, len(skills))
    heard = {
        method: [_answers(run, folder, method, rounds, sitting, everything) for sitting in times]
        for method in run.config.methods
    }
    said = {method: [each.answers for each in own] for method, own in heard.items()}
    write_json(folder / "costs.json", {method: _costs(own) for method, own in heard.items()})
    final = {method: latest(answers) for method, answers in said.items()}
    dataset = str(summary_of(run)["dataset"])
    protocols = run.config.eval.protocols
    cut = len(asked)

    def scorable(
        method: str, some: Sequence[Item], own: Sequence[Answer], base: Sequence[Answer]
    ) -> Iterable[Row]:
        return rows(method, dataset, run.config.seed, protocols, some, own, base)

    write_rows(
        folder / "rows.jsonl",
        (
            row.model_dump(mode="json")
            for method in run.config.methods
            for row in scorable(method, asked, final[method][:cut], final["base"][:cut])
        ),
    )
    (folder / "retention.jsonl").unlink(missing_ok=True)
    if rounds.mode == "sequential":
        kept = retention(rounds, times, asked, said, scorable)
        write_rows(folder / "retention.jsonl", (row.model_dump(mode="json") for row in kept))
    told = {method: answers[cut:] for method, answers in final.items()}
    write_rows(folder / "capability.jsonl", _capability(run, skills, told))


def _capability(
    run: Run, skills: Sequence[Item], told: dict[str, list[Answer]]
) -> Iterator[dict[str, Any]]:
    dataset = str(summary_of(run)["dataset"])
    for method in run.config.methods:
        for item, own in zip(skills, told[method], strict=True):
            yield {
                "method": method,
                "dataset": dataset,
                "seed": run.config.seed,
                "skill": item.category,
                "prompt": item.prompt,
                "answer": item.answers[0][0],
                "text": own.text,
            }


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


def _answers(
    run: Run, folder: Path, method: str, rounds: Rounds, sitting: Sitting, asked: Sequence[Item]
) -> Heard:
    """A method's answers in one sitting, from their file as far as that goes, then its model's."""
    edits = edit_folders(run, method, rounds, sitting.edits)
    numbered = [(place, asked[place]) for place in sitting.places]
    path = folder / "items" / f"{method}-{_key(run, edits, numbered)}.jsonl"
    drop_torn_line(path)
    done, costs = [Answer(**row) for row in read_rows(path)], path.with_suffix(".cost.json")
    if len(done) == len(numbered) and costs.exists():
        return Heard(done, json.loads(costs.read_text(encoding="utf-8"))["seconds"])
    done = done[: len(done) // CHUNK * CHUNK]
    write_rows(path, [row.model_dump(mode="json") for row in done])
    started = time.time()
    with edited(run.lm, edits) as lm, run.progress(method, len(numbered)) as update:
        update(len(done))
        while len(done) < len(numbered):
            chunk = _ask(lm, numbered[len(done) : len(done) + CHUNK], run)
            append_rows(path, [row.model_dump(mode="json") for row in chunk])
            done += chunk
            update(len(done))
    seconds = round(time.time() - started, 1)
    write_json(costs, {"seconds": seconds, "answers": len(numbered)})
    return Heard(done, seconds)


def _costs(heard: Sequence[Heard]) -> dict[str, float]:
    seconds = round(sum(each.seconds for each in heard), 1)
    return {"seconds": seconds, "answers": sum(len(each.answers) for each in heard)}


def _ask(lm: LM, chunk: list[tuple[int, Item]], run: Run) -> list[Answer]:
    config = run.config.eval
    return answer(lm, chunk, config.protocols, config.max_new_tokens)


def _key(run: Run, edits: Sequence[Path], numbered: Sequence[tuple[int, Item]]) -> str:
    config: dict[str, Any] = run.config.eval.model_dump(mode="json")
    return content_hash(
        [
            [hash_of(edit) for edit in edits],
            config,
            fingerprint(run.config.model.path),
            run.config.model.style,
            [[place, item.model_dump()] for place, item in numbered],
        ]
    )
