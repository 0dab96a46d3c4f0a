"""Stage `train` where facts are edited in several rounds: each designs, teaches and trains.

A round is a run of its own under `items/round-NNNN/`, on the model as the rounds before it left
it: the agents and the teacher see that model, and neighbours are held to *its* answers. The
original base's answers would take an earlier edit back wherever it is a neighbour of this round's,
and whoever edits a model that was edited before may not have the original any more. The price is
that drift can add up; it is measured, as locality against the base.
Writes `edits.json` (hashes) and, in sequential runs, `student/` in the run folder.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from methods.base import REHEARSED
from pipeline.edits import edited, hash_of, save_student
from pipeline.facts import read_cases, read_facts, summary_of
from pipeline.leaks import Leaks, taught_leaks, together, write_leaks
from pipeline.places import edit_folders, is_taught, round_folder
from pipeline.rounds import Round, read_rounds
from pipeline.run import Run
from pipeline.stage import Stage
from pipeline.stages import STAGES
from ske.config import ModelConfig
from ske.io import write_json, write_rows
from ske.lm import LM
from ske.types import Fact, content_hash

TAUGHT = ("design", "teach", "train")


class RoundRun(Run):
    """One round as a run: its own facts, everybody's probes (for the guard), the edited model."""

    def __init__(self, parent: Run, each: Round, before: Sequence[Path]) -> None:
        """`before` are the edits that the round stands on."""
        edits = parent.config.edits.model_copy(update={"mode": "batch", "limit": len(each.ids)})
        config = parent.config.model_copy(update={"edits": edits})
        folder = round_folder(parent, each.number)
        super().__init__(config, folder, parent.console)
        self.earlier = tuple(round_folder(parent, number) for number in each.before)
        self._parent, self._before, self._stack = parent, before, ExitStack()

    def __enter__(self) -> RoundRun:
        return self

    def __exit__(self, *error: object) -> None:
        """Takes the earlier edits off the model again."""
        self._stack.close()

    @functools.cached_property
    def lm(self) -> Any:
        """The model as the rounds before left it; loaded when a stage has work to do."""
        return self._stack.enter_context(edited(self._parent.lm, self._before))

    def _other(self, model: ModelConfig) -> LM:
        """The same teacher in every round."""
        return self._parent.teacher

    def _engine(self) -> Any:
        """The same model where it is asked by vLLM."""
        return self._stack.enter_context(edited(self._parent.base, self._before))

    @property
    def stages(self) -> tuple[Stage, ...]:
        """What is taught; nobody needs this round's model as a checkpoint."""
        training = {"target": "pipeline.edits:train_edit", "leaves": ()}
        return tuple(
            stage._replace(**training) if stage.name == "train" else stage
            for stage in STAGES
            if stage.name in TAUGHT
        )

    def prepare(self, facts: Sequence[Fact]) -> None:
        """Write what stage `facts` would; the edits below are part of what later stages need."""
        folder = self.stage("facts")
        cases = [case.model_dump(mode="json") for case in read_cases(self._parent)]
        write_rows(folder / "facts.jsonl", [fact.model_dump(mode="json") for fact in facts])
        write_rows(folder / "cases.jsonl", cases)
        write_json(folder / "summary.json", {**summary_of(self._parent), "cases": len(facts)})
        below = [hash_of(place) for place in self._before]
        own = [[fact.model_dump() for fact in facts], cases, below]
        key = content_hash([*own, REHEARSED] if self.earlier else own)
        write_json(folder / "manifest.json", {"stage": "facts", "output": key, "below": below})


def run(run: Run, folder: Path) -> list[Path]:
    """Teach round after round; what is done already is not done again.

    Gives back where the rounds' edits lie and, of sequential runs, the checkpoint.
    """
    facts = {fact.id: fact for fact in read_facts(run)}
    rounds = read_rounds(run)
    numbers = [each.number for each in rounds.rounds]
    made: dict[str, list[str]] = {}
    leaks: dict[str, dict[str, Leaks]] = {}
    left: list[Path] = []
    for method in filter(is_taught, run.config.methods):
        for each in rounds.rounds:
            before = edit_folders(run, method, rounds, each.before)
            run.console.print(f"  round {each.number} of {len(numbers)}", highlight=False)
            with RoundRun(run, each, before) as inner:
                inner.prepare([facts[i] for i in each.ids])
                inner.execute()
        places = edit_folders(run, method, rounds, numbers)
        stages = [round_folder(run, number) / "stages" for number in numbers]
        leaks[method] = together(each for place in stages for each in taught_leaks(place, method))
        made[method] = [hash_of(place) for place in places]
        left += places
        if rounds.mode == "sequential":
            save_student(run, places, run.folder / "student")
            left.append(run.folder / "student")
        else:  # no single model holds all edits
            shutil.rmtree(run.folder / "student", ignore_errors=True)
    write_json(folder / "edits.json", made)
    write_leaks(folder, leaks)
    return left
