"""Several runs that differ only in their seeds, as one: their saved rows, with seeds as a level.

Reads of each run folder `config.yaml` and what stage `ask` has saved (`eval.answers`); writes
nothing. `tables.results` and `tables.comparisons` then give each seed's own lines and those over
all seeds.

Runs that also differ in how many edits they make are put together by that number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from eval.answers import Answers, Beside, read_answers
from eval.capability import SkillRow
from eval.judge import JudgedRow
from eval.score import Row
from eval.sentiment import OpinionRow
from ske.config import Config, load
from ske.paths import placed
from ske.types import UserError

SEED_KEYS = ("seed", "edits.seed")
"""The keys in which the runs may differ: training and sampling, and which edits are drawn."""
SIZE_KEYS = ("edits.limit", "edits.rounds")
"""The keys in which runs of different size may differ as well."""
_UNIMPORTANT = ("model.batch_tokens", "model.device")
"""Where and how fast a run was made, not what was made."""


class Runs(NamedTuple):
    """What several runs have saved, each row under the seed that tells its run from the others."""

    config: Config
    """That of the first run."""
    answers: Answers
    seeds: dict[int, Path]
    """Which seed of the rows is which run."""


class _One(NamedTuple):
    folder: Path
    config: Config
    answers: Answers


def gather(folders: Sequence[Path]) -> Runs:
    """Read runs that are asked already.

    The seed of a row becomes `seed` where that differs from run to run, else `edits.seed`, else
    (both vary, neither is different everywhere) the run's number in the order given. Where
    `edits.seed` varies, ids of the embedded world are only positions in what was drawn; then a
    case is named by the prompt that was edited, so that one fact drawn twice is one case.

    Raises:
        UserError: fewer than two runs; one that is not asked; runs that differ in more than their
            seeds (the first such key is named with both values), that have the same seeds, or that
            hold other methods or data sets.
    """
    if len(folders) < 2:
        raise UserError(f"{len(folders)} run folder: to combine seeds, name at least two")
    runs = [_read(folder) for folder in folders]
    for other in runs[1:]:
        _check_alike(runs[0], other, SEED_KEYS)
    return _joined(runs)


def by_size(folders: Sequence[Path]) -> dict[int, Runs]:
    """Runs of several sizes: those with the same number of edits as one, by that number.

    Raises:
        UserError: as `gather` does, but that the runs may differ in how many edits they make; also
            if they all make equally many.
    """
    runs = [_read(folder) for folder in folders]
    for other in runs[1:]:
        _check_alike(runs[0], other, (*SEED_KEYS, *SIZE_KEYS))
    groups: dict[int, list[_One]] = {}
    for run in runs:
        groups.setdefault(len(_prompts(run)), []).append(run)
    if len(groups) < 2:
        told = f"; all of them make {next(iter(groups))} edits" if groups else ""
        raise UserError(
            f"{len(folders)} run folder(s){told}: to see what the number of edits does, name runs "
            f"that differ in {' or '.join(SIZE_KEYS)}; for runs of several seeds, `ske combine`"
        )
    return {size: _joined(groups[size]) for size in sorted(groups)}


def _joined(runs: Sequence[_One]) -> Runs:
    """Runs that are alike but for their seeds, as one."""
    labels = _labels(runs)
    redrawn = len({run.config.edits.seed for run in runs}) > 1
    whole = Answers([], [], Beside([], [], []))
    for label, run in zip(labels, runs, strict=True):
        names = _prompts(run) if redrawn else {}
        own = run.answers
        whole.rows.extend(_own(row, label, names) for row in own.rows)
        whole.retention.extend(
            item.model_copy(update={"row": _own(item.row, label, names)}) for item in own.retention
        )
        beside, all_beside = own.beside, whole.beside
        all_beside.capability.extend(_own(row, label, names) for row in beside.capability)
        all_beside.opinions.extend(_own(row, label, names) for row in beside.opinions)
        all_beside.judged.extend(_own(row, label, names) for row in beside.judged)
    places = {label: run.folder for label, run in zip(labels, runs, strict=True)}
    return Runs(runs[0].config, whole, places)


def _read(folder: Path) -> _One:
    config = folder / "config.yaml"
    if not config.exists():
        raise UserError(f"{folder}: no run folder (it has no config.yaml)")
    again = f"first: ske run {config}"
    if not (folder / "stages" / "ask" / "rows.jsonl").exists():
        raise UserError(f"{folder}: nothing was asked yet; {again}")
    told = placed(load(config))
    one = _One(folder, told, read_answers(folder, told, again))
    if missing := [name for name in one.config.methods if name not in _names(one, "method")]:
        raise UserError(
            f"{folder}: no answers of {', '.join(missing)}, which its config.yaml names; {again}"
        )
    return one


_RowT = TypeVar("_RowT", Row, SkillRow, OpinionRow, JudgedRow)


def _own(row: _RowT, label: int, names: Mapping[str, str]) -> _RowT:
    """A row under its run's seed, and under its case's name among all runs."""
    return row.model_copy(update={"seed": label, "case": names.get(row.case, row.case)})


def _prompts(run: _One) -> dict[str, str]:
    """The edited prompt of each case, behind its data set's name."""
    return {
        row.case: f"{row.dataset}: {row.prompt}"
        for row in run.answers.rows
        if row.metric == "edit_success" and row.probe == 0
    }


def _check_alike(first: _One, other: _One, may_differ: Sequence[str]) -> None:
    a, b = _flat(first.config.model_dump(mode="json")), _flat(other.config.model_dump(mode="json"))
    a |= {"methods": sorted(first.config.methods)}
    b |= {"methods": sorted(other.config.methods)}
    for key in a | b:
        if key not in (*may_differ, *_UNIMPORTANT) and a.get(key) != b.get(key):
            raise UserError(
                f"{first.folder} and {other.folder} differ in {key}: {a.get(key)!r} and "
                f"{b.get(key)!r}; only runs that differ in nothing but {' or '.join(may_differ)} "
                "are combined"
            )
    for column, what in (("dataset", "data sets"), ("method", "methods")):
        if (mine := _names(first, column)) != (yours := _names(other, column)):
            raise UserError(
                f"{first.folder} and {other.folder} hold answers for different {what}: "
                f"{sorted(mine)!r} and {sorted(yours)!r}"
            )


def _names(run: _One, column: str) -> set[str]:
    return {row.dataset if column == "dataset" else row.method for row in run.answers.rows}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"edits": {"seed": 0}} -> {"edits.seed": 0}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        inner = isinstance(value, Mapping)
        flat |= _flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return flat


def _labels(runs: Sequence[_One]) -> list[int]:
    """One seed per run."""
    seen: dict[tuple[int, int], Path] = {}
    for run in runs:
        pair = (run.config.seed, run.config.edits.seed)
        if pair in seen:
            raise UserError(
                f"{seen[pair]} and {run.folder} have the same seeds (seed {pair[0]}, edits.seed "
                f"{pair[1]}): the same run twice tells nothing new"
            )
        seen[pair] = run.folder
    for column in zip(*seen, strict=True):
        if len(set(column)) == len(column):
            return list(column)
    return list(range(len(runs)))
