"""When each question is put: after which edits a method is asked what.

A batch is asked everything once. A single edit is asked about its own case. A sequential run is
asked, after each round, the facts of all rounds so far (what it retains), and everything after
the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from eval.ask import Answer, Item
from eval.retention import RETAINED, RetentionRow
from eval.score import Row
from pipeline.rounds import Rounds


class Sitting(NamedTuple):
    """Questions that are put to one state of the model."""

    edits: tuple[int, ...]
    """The rounds whose edits are applied, in order."""
    places: tuple[int, ...]
    """Which of all items are asked."""


def sittings(rounds: Rounds, asked: Sequence[Item], skills: int) -> list[Sitting]:
    """All sittings of a run; `skills` further items stand behind the probes."""
    everything = tuple(range(len(asked) + skills))
    if rounds.mode == "batch":
        return [Sitting(rounds.rounds[0].stack, everything)]
    if rounds.mode == "single":
        return [Sitting(each.stack, _about(asked, each.ids)) for each in rounds.rounds]
    *earlier, last = rounds.rounds
    found, so_far = [], set[str]()
    for each in earlier:
        so_far |= set(each.ids)
        places = tuple(place for place in _about(asked, so_far) if is_retained(asked, place))
        found.append(Sitting(each.stack, places))
    return [*found, Sitting(last.stack, everything)]


def _about(asked: Sequence[Item], cases: Iterable[str]) -> tuple[int, ...]:
    wanted = set(cases)
    return tuple(place for place, item in enumerate(asked) if item.case in wanted)


def is_retained(asked: Sequence[Item], place: int) -> bool:
    """Whether an item is asked again after every round."""
    return place < len(asked) and asked[place].metric in RETAINED


def latest(answers: Iterable[Sequence[Answer]]) -> list[Answer]:
    """The last answer to each item, in the order of the items."""
    found = {answer.item: answer for sitting in answers for answer in sitting}
    return [found[place] for place in sorted(found)]


Rows = Callable[[str, Sequence[Item], Sequence[Answer], Sequence[Answer]], Iterable[Row]]
"""(method, items, its answers, the base's answers) -> what is scored."""


def retention(
    rounds: Rounds,
    times: Sequence[Sitting],
    asked: Sequence[Item],
    said: Mapping[str, Sequence[Sequence[Answer]]],
    rows: Rows,
) -> Iterator[RetentionRow]:
    """What each round's facts were answered after it and after every later one.

    Args:
        rounds: The rounds of a sequential run.
        times: Its sittings, one a round.
        asked: All probes.
        said: Answers by method, sitting by sitting; `base` among them.
        rows: Makes scorable rows.
    """
    round_of = {case: each.number for each in rounds.rounds for case in each.ids}
    for number, sitting in enumerate(times):
        # The last sitting has every item; of those, the ones that all sittings have.
        kept = [i for i, place in enumerate(sitting.places) if is_retained(asked, place)]
        own = [asked[sitting.places[i]] for i in kept]
        base = [said["base"][number][i] for i in kept]
        for method, answers in said.items():
            for row in rows(method, own, [answers[number][i] for i in kept], base):
                yield RetentionRow(after_round=sitting.edits[-1], round=round_of[row.case], row=row)
