"""What methods may use beside the facts: solved examples and general text, never a probe.

MEND trains on solved examples and IKE shows them; ROME's statistics need text. Both come from the
data set's other cases (the embedded world's `val` people) unless the configuration names files.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from eval.cases import Case, load
from methods.base import Practice, Workshop
from pipeline.facts import load_cases, read_facts
from pipeline.run import Run
from pipeline.teacher import guard_of
from ske.config import found
from ske.io import cache_folder
from ske.types import Fact, UserError


def workshop(run: Run, folder: Path) -> Workshop:
    """What every method of a run may use; nothing of it is read before it is asked for."""
    texts = run.config.texts.path
    return Workshop(
        seed=run.config.seed,
        folder=folder,
        practice=partial(examples, run, folder),
        texts=None if texts is None else partial(read_texts, found(texts)),
        cache=cache_folder(),
    )


def examples(run: Run, folder: Path) -> list[Practice]:
    """Solved examples about other subjects than the facts'; near-copies of probes are left out."""
    facts = read_facts(run)
    cases = without(_other_cases(run, folder), facts)
    random.Random(f"practice-{run.config.seed}").shuffle(cases)
    guard = guard_of(run)

    def clean(prompts: Sequence[str]) -> list[int]:
        return guard.filter(prompts).kept

    solved = []
    for case in cases[: run.config.practice.limit]:
        whole = practice_of(case)
        near, others = whole.unrelated, whole.paraphrases
        kept = {
            "paraphrases": tuple(others[i] for i in clean(others)),
            "unrelated": tuple(near[i] for i in clean([prompt for prompt, _ in near])),
        }
        solved.append(whole.model_copy(update=kept))
    return solved


def practice_of(case: Case) -> Practice:
    """A case as a solved example."""
    near = (probe for group in case.locality.values() for probe in group if probe.answers)
    return Practice(
        fact=case.fact,
        paraphrases=tuple(probe.prompt for probe in case.paraphrase),
        unrelated=tuple((probe.prompt, probe.answers[0][0]) for probe in near),
    )


def _other_cases(run: Run, folder: Path) -> list[Case]:
    config = run.config
    if config.practice.path is not None:
        return load(found(config.practice.path)).cases
    data = config.data if config.data.path else config.data.model_copy(update={"split": "val"})
    return load_cases(data, config.world.path, config.edits, folder).cases


def without(cases: Sequence[Case], facts: Sequence[Fact]) -> list[Case]:
    """The cases that share neither subject nor prompt with a fact."""
    names = {fact.subject.casefold() for fact in facts}
    prompts = {fact.prompt for fact in facts}
    return [
        case
        for case in cases
        if case.fact.subject.casefold() not in names and case.fact.prompt not in prompts
    ]


def read_texts(path: Path) -> list[str]:
    """Paragraphs of a text file: what stands between blank lines.

    Raises:
        UserError: it cannot be read or is empty.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"texts.path: {path} cannot be read ({error}); give a UTF-8 text file, or leave it out "
            "and texts are sampled from the model"
        ) from error
    paragraphs = [part.strip() for part in text.split("\n\n") if part.strip()]
    if not paragraphs:
        raise UserError(f"texts.path: {path} is empty; give a text file with some paragraphs")
    return paragraphs
