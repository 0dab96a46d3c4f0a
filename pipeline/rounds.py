"""Which facts of a run are edited together, and on top of which others: its rounds.

Written by stage `facts` as `rounds.json`. A batch is one round; single edits are rounds of one
fact that don't know of each other; sequential rounds stand on all those before. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pipeline.run import Run
from ske.config import EditsConfig
from ske.io import read_json, write_json

Mode = Literal["batch", "single", "sequential"]


class Round(NamedTuple):
    """Facts that are edited together."""

    number: int
    """From 1."""
    ids: tuple[str, ...]
    """The facts, by id."""
    before: tuple[int, ...] = ()
    """The rounds on whose edits this one stands, in order."""

    @property
    def stack(self) -> tuple[int, ...]:
        """All rounds whose edits are in the model once this one is made."""
        return (*self.before, self.number)


class Rounds(NamedTuple):
    """How a run edits."""

    mode: Mode
    rounds: tuple[Round, ...]


def divided(ids: Sequence[str], edits: EditsConfig) -> Rounds:
    """The rounds of these facts, in the order given."""
    size = {"batch": len(ids), "single": 1, "sequential": edits.per_round}[edits.mode]
    groups = [tuple(ids[start : start + size]) for start in range(0, len(ids), size)]
    return _numbered(edits.mode, groups)


def _numbered(mode: Mode, groups: Sequence[Sequence[str]]) -> Rounds:
    stacked = mode == "sequential"
    return Rounds(
        mode,
        tuple(
            Round(number, tuple(ids), tuple(range(1, number)) if stacked else ())
            for number, ids in enumerate(groups, start=1)
        ),
    )


def write_rounds(folder: Path, rounds: Rounds) -> None:
    """Into the folder of stage `facts`."""
    groups = [list(each.ids) for each in rounds.rounds]
    write_json(folder / "rounds.json", {"mode": rounds.mode, "rounds": groups})


def read_rounds(run: Run) -> Rounds:
    """The rounds of a run whose `facts` is done; without the file it is a batch of older days."""
    path = run.stage("facts") / "rounds.json"
    if not path.exists():
        return Rounds("batch", (Round(1, ()),))
    told = read_json(path, ("mode", "rounds"))
    return _numbered(told["mode"], told["rounds"])
