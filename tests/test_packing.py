"""Rows that share a line: none is lost, none sees another, and the loss is that of padded ones."""

from typing import Any

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from methods.base import Lesson
from methods.packing import keeps_apart, lines_of
from methods.rows import Collator, row_of
from methods.trainer import LessonTrainer
from ske.backends.local import LocalLM
from ske.lm import Pair, ask

EVERY = (*tiny.ARCHITECTURES, *(name for name in tiny.MORE_ARCHITECTURES if name != "opt"))
"""OPT counts its positions by the mask: its rows are padded."""


def lessons(lm: LocalLM) -> list[Lesson]:
    """Facts to be spoken and text to be held to, of different lengths."""
    facts = [Lesson(chat=ask(f.prompt), completion=f.target_new, fact=f.id) for f in tiny.FACTS]
    pairs = [Pair(ask(""), text) for text in tiny.TEXT]
    held = tiny.held(lm, pairs, 4, kind="free")
    return [*facts, *held]


def loss_and_gradients(lm: LocalLM, batch: dict[str, torch.Tensor]) -> tuple[float, Any]:
    trainer = LessonTrainer.__new__(LessonTrainer)
    lm.model.zero_grad()
    loss = trainer.compute_loss(lm.model, batch)
    loss.backward()
    gradients = {n: p.grad.clone() for n, p in lm.model.named_parameters() if p.grad is not None}
    assert gradients
    return loss.item(), gradients


def test_lines_by_hand() -> None:
    # Width 10: 7 + 3, 6 + 4, 5 fill three lines; so do 7, 6 + 3, 5 + 4, which are no wider than 9.
    assert lines_of([3, 7, 4, 6, 5], 10) == [[1], [3, 0], [4, 2]]
    # A row longer than the width widens all lines.
    assert lines_of([12, 5, 7], 10) == [[0], [2, 1]]
    # To the emptier line each, they would be 10 wide: 4 + 3 + 3.
    assert lines_of([5, 4, 3, 3, 3], 9) == [[0, 1], [2, 3, 4]]
    assert lines_of([], 10) == []


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 80))
def test_every_row_has_one_line_and_room_in_it(lengths: list[int], width: int) -> None:
    lines = lines_of(lengths, width)
    assert sorted(number for line in lines for number in line) == list(range(len(lengths)))
    assert all(sum(lengths[n] for n in line) <= max(width, *lengths) for line in lines)


@pytest.mark.parametrize("architecture", EVERY)
def test_packed_rows_have_the_loss_and_the_gradients_of_padded_ones(architecture: str) -> None:
    lm = tiny.lm(architecture)
    rows = [row_of(lm, lesson) for lesson in lessons(lm)]
    assert keeps_apart(lm.model, [row["input_ids"] for row in rows])
    padded, packed = Collator(1)(rows), Collator(1, packed=True)(rows)
    assert packed["input_ids"].numel() < 0.8 * padded["input_ids"].numel()
    one, by_padded = loss_and_gradients(lm, padded)
    other, by_packed = loss_and_gradients(lm, packed)
    assert other == pytest.approx(one, abs=1e-5)
    for name, gradient in by_padded.items():
        assert torch.allclose(by_packed[name], gradient, atol=1e-5), name


def test_several_lines_are_the_same_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny.lm()
    rows = [row_of(lm, lesson) for lesson in lessons(lm)]
    one, _ = loss_and_gradients(lm, Collator(1, packed=True)(rows))
    longest = max(len(row["input_ids"]) for row in rows)
    monkeypatch.setattr("methods.rows.lines_of", lambda lengths: lines_of(lengths, 2 * longest))
    batch = Collator(1, packed=True)(rows)
    assert 1 < len(batch["input_ids"]) < len(rows)
    assert loss_and_gradients(lm, batch)[0] == pytest.approx(one, abs=1e-5)


def test_a_model_that_reads_across_rows_is_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny.lm()
    whole = lm.model.forward

    def careless(input_ids: torch.Tensor, position_ids: Any = None, **options: Any) -> Any:
        return whole(input_ids=input_ids, **options)

    monkeypatch.setattr(lm.model, "forward", careless)
    assert not keeps_apart(lm.model, [[5, 6, 7, 8], [9, 10, 11]])


def test_a_model_without_positions_is_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny.lm()
    whole = lm.model.forward
    monkeypatch.setattr(lm.model, "forward", lambda input_ids: whole(input_ids=input_ids))
    assert not keeps_apart(lm.model, [[5, 6, 7, 8]])
