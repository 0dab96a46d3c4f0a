"""Tasks of lm-evaluation-harness, asked of any `LM`: general benchmarks before and after an edit.

The harness (extra `eval`) draws the questions and scores the answers; here is only the adapter that
answers its three kinds of request. Contexts are put to the model as every other question is, by its
chat template or as plain text, so figures can differ from the harness's own for chat models.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import math
from collections.abc import Sequence
from difflib import get_close_matches
from textwrap import shorten
from typing import Any, NamedTuple

from eval.taskfiles import located
from ske.lm import LM, Pair, Sampling, ask
from ske.types import MissingExtra, UserError

MEASURES = ("acc", "exact_match", "em", "f1", "pass@1")
"""What a task's questions are counted by, the first that it has: each from 0 to 1 a question."""
_MOST_TOKENS = 256
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""What tasks call the longest reply."""


class Solved(NamedTuple):
    """One question of a task."""

    task: str
    question: str
    score: float
    """Percent."""


def check(tasks: Sequence[str]) -> None:
    """See that tasks can be asked, before anything is loaded.

    Tasks in files of the user's are read with their data. The harness's own are looked up, which
    takes seconds; their data sets are only fetched when they are asked.

    Raises:
        MissingExtra: the harness is not installed.
        UserError: there is no such task, or its file or its data cannot be read.
    """
    if tasks and importlib.util.find_spec("lm_eval") is None:
        raise MissingExtra(
            f"eval.tasks = {list(tasks)!r}: lm-evaluation-harness is not installed; "
            "pip install -e '.[eval]', or leave eval.tasks empty"
        )
    for task in tasks:
        if located(task) is not None:
            load(task)
        else:
            _check_name(task)


def _check_name(task: str) -> None:
    known = _manager(own=True).all_tasks
    if task in known:
        return
    near = get_close_matches(task, known, n=3)
    raise UserError(
        f"eval.tasks: {task!r} is no task of lm-evaluation-harness"
        + (f"; did you mean {' or '.join(near)}?" if near else "")
        + "; `lm-eval ls tasks` lists its names, and a task of your own is named by its YAML file"
    )


@functools.cache
def _manager(own: bool) -> Any:
    """The harness's index of tasks; its `own` are thousands of files, read once a process."""
    return importlib.import_module("lm_eval.tasks").TaskManager(include_defaults=own)


def load(task: str) -> list[Any]:
    """The harness's objects for a name or a file: one task, or those of a group.

    Raises:
        UserError: the file, the task in it or its data set cannot be had.
    """
    path = located(task)
    if path is not None and not path.is_file():
        raise UserError(
            f"eval.tasks: {task!r}: there is no such file; give a task's YAML file, from where ske "
            "runs or from the checkout, or the name of a task of lm-evaluation-harness"
        )
    manager = _manager(own=path is None)
    try:
        found = manager.load([str(path or task)])["tasks"]
    # A task is a program, the user's or the harness's: whatever stops it, its name helps more than
    # a traceback through the harness.
    except Exception as error:
        raise UserError(
            f"eval.tasks: {task!r} cannot be loaded ({_reason(error)}); mend the task, or take it "
            "out of eval.tasks"
        ) from error
    if not found:
        raise UserError(f"eval.tasks: {task!r} has no task in it; it needs the key `task`")
    if unsafe := [name for name, one in found.items() if getattr(one, "UNSAFE_CODE", False)]:
        raise UserError(
            f"eval.tasks: {task!r} would run code that a model has written ({unsafe[0]}), which is "
            "never done here; take it out of eval.tasks"
        )
    return list(found.values())


def _reason(error: BaseException) -> str:
    """An error in a line, with what caused it: behind "cannot be generated" is the broken row."""
    told = shorten(str(error) or type(error).__name__, 300)
    return f"{told}: {_reason(error.__cause__)}" if error.__cause__ else told


def solve(lm: LM, tasks: Sequence[str], limit: int | None) -> list[Solved]:
    """Ask a model the first `limit` questions of each task (None: all).

    Raises:
        MissingExtra, UserError: as `check`; or a task's data set cannot be had, or it counts its
            questions by none of `MEASURES`.
    """
    check(tasks)
    harness: Any = importlib.import_module("lm_eval")
    base: Any = importlib.import_module("lm_eval.api.model").LM
    told = harness.simple_evaluate(
        model=adapter(base)(lm),
        tasks=[one for task in tasks for one in load(task)],
        task_manager=_manager(own=False),  # Tasks are loaded already; the default would be made.
        limit=limit,
        bootstrap_iters=0,
        log_samples=True,
    )
    return [
        Solved(task, str(sample["doc_id"]), percent(task, sample))
        for task, samples in sorted(told["samples"].items())
        for sample in once(samples)
    ]


def once(samples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each question once, in order: a task with several filters lists it under each."""
    first: dict[Any, dict[str, Any]] = {}
    for sample in samples:
        first.setdefault(sample["doc_id"], sample)
    return [first[number] for number in sorted(first)]


def percent(task: str, sample: dict[str, Any]) -> float:
    """How right an answered question is.

    Raises:
        UserError: the task counts by none of `MEASURES`.
    """
    for name in MEASURES:
        value = sample.get(name)
        if isinstance(value, int | float) and 0 <= value <= 1:
            return 100.0 * value
    raise UserError(
        f"eval.tasks: {task} counts its questions by {sample.get('metrics')!r}; only tasks with "
        f"one of {', '.join(MEASURES)} from 0 to 1 are read"
    )


def adapter(base: Any) -> Any:
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
    lengths = [wanted[name] for name in _LENGTHS if wanted.get(name) is not None]
    return Sampling(max_new_tokens=[*lengths, _MOST_TOKENS][0], stop=stops)
