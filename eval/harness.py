"""Tasks of lm-evaluation-harness, asked of any `LM`: general benchmarks before and after an edit.

The harness (extra `eval`) draws the questions and scores the answers; here is only the adapter that
answers its three kinds of request. Contexts are put to the model as every other question is, by its
chat template or as plain text, so figures can differ from the harness's own for chat models.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ske.lm import LM, Pair, Sampling, ask
from ske.types import MissingExtra, UserError

MEASURES = ("acc", "exact_match", "em", "f1", "pass@1")
"""What a task's questions are counted by, the first that it has: each from 0 to 1 a question."""
_MOST_TOKENS = 256


class Solved(NamedTuple):
    """One question of a task."""

    task: str
    question: str
    score: float
    """Percent."""


class Tasks(NamedTuple):
    """Which tasks are asked, and where those that are not the harness's own lie."""

    names: list[str]
    folders: list[str]


def check(tasks: Sequence[str]) -> Tasks:
    """See that tasks can be asked, before anything is loaded.

    Raises:
        MissingExtra: the harness is not installed.
        UserError: a task's file is missing or names no task.
    """
    found = Tasks([], [])
    for task in tasks:
        path = Path(task)
        if path.suffix in (".yaml", ".yml"):
            found.names.append(_name_in(path))
            found.folders.append(str(path.parent))
        else:
            found.names.append(task)
    if tasks and importlib.util.find_spec("lm_eval") is None:
        raise MissingExtra(
            f"eval.tasks = {list(tasks)!r}: lm-evaluation-harness is not installed; "
            "pip install -e '.[eval]', or leave eval.tasks empty"
        )
    return found


def _name_in(path: Path) -> str:
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Plain)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"eval.tasks: {path} cannot be read as YAML ({error})") from error
    name = tree.get("task") if isinstance(tree, dict) else None
    if not isinstance(name, str):
        raise UserError(f"eval.tasks: {path} has no key `task` with the task's name, got {name!r}")
    return name


class _Plain(yaml.SafeLoader):
    """Reads the harness's own tags (`!function`) as nothing: only the name is wanted here."""


_Plain.add_multi_constructor("!", lambda loader, suffix, node: None)


def solve(lm: LM, tasks: Sequence[str], limit: int | None) -> list[Solved]:
    """Ask a model the first `limit` questions of each task (None: all).

    Raises:
        MissingExtra, UserError: as `check`; or the harness knows no such task, or counts it by
            none of `MEASURES`.
    """
    names, folders = check(tasks)
    harness: Any = importlib.import_module("lm_eval")
    base: Any = importlib.import_module("lm_eval.api.model").LM
    manager: Any = importlib.import_module("lm_eval.tasks").TaskManager(
        include_path=folders or None
    )
    try:
        told = harness.simple_evaluate(
            model=_adapter(base)(lm),
            tasks=list(names),
            task_manager=manager,
            limit=limit,
            bootstrap_iters=0,
            log_samples=True,
        )
    except (KeyError, ValueError) as error:
        raise UserError(f"eval.tasks = {list(tasks)!r}: lm-evaluation-harness: {error}") from error
    return [
        Solved(task, str(sample["doc_id"]), _percent(task, sample))
        for task, samples in sorted(told["samples"].items())
        for sample in _once(samples)
    ]


def _once(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each question once, in order: a task with several filters lists it under each."""
    first: dict[Any, dict[str, Any]] = {}
    for sample in samples:
        first.setdefault(sample["doc_id"], sample)
    return [first[number] for number in sorted(first)]


def _percent(task: str, sample: dict[str, Any]) -> float:
    for name in MEASURES:
        value = sample.get(name)
        if isinstance(value, int | float) and 0 <= value <= 1:
            return 100.0 * value
    raise UserError(
        f"eval.tasks: {task} counts its questions by {sample.get('metrics')!r}; only tasks with "
        f"one of {', '.join(MEASURES)} from 0 to 1 are read"
    )


def _adapter(base: Any) -> Any:
    """The harness's own LM class over ours; made late, because the harness is optional."""

    class Adapter(base):
        def __init__(self, lm: LM) -> None:
            super().__init__()
            self.lm = lm

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            pairs = [Pair(ask(r.args[0].rstrip()), r.args[1].strip()) for r in requests]
            return [
                (math.fsum(scored.logprobs), scored.tokens == scored.argmax)
                for scored in self.lm.logprobs(pairs)
            ]

        def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
            pairs = [Pair(ask(""), r.args[0]) for r in requests]
            return [math.fsum(scored.logprobs) for scored in self.lm.logprobs(pairs)]

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            replies: list[str] = [""] * len(requests)
            groups: dict[Sampling, list[int]] = {}
            for place, request in enumerate(requests):
                groups.setdefault(_sampling(request.args[1]), []).append(place)
            for sampling, places in groups.items():
                chats = [ask(requests[place].args[0].rstrip()) for place in places]
                for place, reply in zip(places, self.lm.generate(chats, sampling), strict=True):
                    replies[place] = reply.text
            return replies

    return Adapter


def _sampling(wanted: dict[str, Any]) -> Sampling:
    """Greedy, whatever a task asks for: the same question has the same answer in every run."""
    until = wanted.get("until") or []
    stops = tuple([until] if isinstance(until, str) else until)
    return Sampling(max_new_tokens=wanted.get("max_gen_toks", _MOST_TOKENS), stop=stops)
