"""The retention matrix, the forgetting curve and edit decay, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from eval.retention import (
    DECAY_COLUMNS,
    RETENTION_COLUMNS,
    RetentionRow,
    decay,
    matrix,
    scored,
)
from eval.score import Row


def row(case: str, number: int, after: int, right: bool, **more: Any) -> RetentionRow:
    fields = {"method": "m", "dataset": "d", "metric": "edit_success", "protocol": "generate"}
    fields |= {"seed": 0, "category": "all", "probe": 0, "prompt": "?", **more}
    answered = Row(case=case, answers=(("yes",),), text="yes" if right else "no", **fields)
    return RetentionRow(after_round=after, round=number, row=answered)


# Two facts a round, three rounds: each round forgets one more of what came before.
HISTORY = [
    *(row(case, 1, 1, True) for case in "ab"),
    *(row(case, 1, 2, case == "a") for case in "ab"),
    *(row(case, 2, 2, True) for case in "cd"),
    *(row(case, 1, 3, False) for case in "ab"),
    *(row(case, 2, 3, case == "c") for case in "cd"),
    *(row(case, 3, 3, case == "e") for case in "ef"),
]


def test_the_matrix_and_the_curve_by_hand() -> None:
    found = {
        (line["after_round"], line["round"]): (line["n"], line["mean"])
        for line in matrix(scored(HISTORY))
    }
    assert found == {
        (1, 1): (2, 100),
        (2, 1): (2, 50),
        (2, 2): (2, 100),
        (3, 1): (2, 0),
        (3, 2): (2, 50),
        (3, 3): (2, 50),
        (1, "all"): (2, 100),
        (2, "all"): (4, 75),
        (3, "all"): (6, pytest.approx(100 / 3, abs=1e-4)),
    }


def test_decay_counts_edits_not_rounds() -> None:
    lines = decay(scored(HISTORY))
    assert [(x["later_edits"], x["n"], x["mean"]) for x in lines] == [
        (0, 6, pytest.approx(500 / 6, abs=1e-4)),  # a b c d e right, f wrong
        (2, 4, 50),  # a and c of a b c d
        (4, 2, 0),
    ]
    assert all(line["ci_low"] <= line["mean"] <= line["ci_high"] for line in lines)
    assert set(lines[0]) == set(DECAY_COLUMNS)
    assert set(matrix(scored(HISTORY))[0]) == set(RETENTION_COLUMNS)


def test_one_forgotten_answer_changes_its_cell_and_no_other() -> None:
    place = HISTORY.index(row("c", 2, 3, True))
    changed = [*HISTORY[:place], row("c", 2, 3, False), *HISTORY[place + 1 :]]
    before, after = (
        {(x["after_round"], x["round"]): x["mean"] for x in matrix(scored(rows))}
        for rows in (HISTORY, changed)
    )
    assert {cell for cell in before if before[cell] != after[cell]} == {(3, 2), (3, "all")}
    assert (before[3, 2], after[3, 2]) == (50, 0)


def test_seeds_are_a_level_above() -> None:
    again = [
        line.model_copy(update={"row": line.row.model_copy(update={"seed": 1, "text": "no"})})
        for line in HISTORY
    ]
    lines = matrix(scored([*HISTORY, *again]))
    first = {line["seed"]: line["mean"] for line in lines if line["after_round"] == 1}
    assert first == {0: 100, 1: 0, "all": 50}


def test_a_fact_cannot_be_asked_before_its_round() -> None:
    with pytest.raises(ValueError, match=r"'a' of round 3 was asked after round 2"):
        scored([row("a", 3, 2, True)])
    with pytest.raises(ValueError, match="two rows"):
        scored([row("a", 1, 1, True)] * 2)
