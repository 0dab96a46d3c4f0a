"""The student on top of another method's edit."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch

from methods.base import Lesson, Workshop
from methods.delta import DeltaEdit, LowRank
from methods.memit import Memit
from methods.student import Student
from ske.lm import Sampling, ask
from ske.types import UserError

MEMIT: dict[str, Any] = {"steps": 10, "moment_texts": 16, "moment_tokens": 16, "moment_weight": 1.0}
FEW = {"rank": 2, "epochs": 1, "batch_size": 2}


def student(**options: Any) -> Student:
    lessons = [Lesson(chat=ask(f.prompt), completion=f.target_new, fact=f.id) for f in tiny.FACTS]
    return Student({**FEW, **options}, Workshop(seed=3, lessons=lambda: lessons))


def dense(edit: DeltaEdit) -> dict[str, torch.Tensor]:
    return {n: d.dense() if isinstance(d, LowRank) else d for n, d in edit.deltas.items()}


def test_a_student_that_learns_nothing_is_its_start() -> None:
    lm = tiny.lm()
    before = tiny.bits(lm.model)
    made = student(start="memit", start_options=MEMIT, learning_rate=1e-12).edit(lm, tiny.FACTS)
    assert tiny.same_bits(before, tiny.bits(lm.model))
    alone = Memit(MEMIT, Workshop(seed=3)).edit(lm, tiny.FACTS)
    assert made.method == "ske"
    for name, delta in dense(alone).items():
        assert torch.allclose(dense(made)[name], delta.float(), atol=1e-6), name


def test_it_learns_on_the_model_that_its_start_has_changed() -> None:
    lm = tiny.lm()
    how = {"learning_rate": 5e-3, "epochs": 8, "rank": 4}
    made = student(start="memit", start_options=MEMIT, **how).edit(lm, tiny.FACTS)
    with made.applied(lm):
        said = lm.generate([ask(f.prompt) for f in tiny.FACTS], Sampling(max_new_tokens=4))
    assert [reply.text.strip() for reply in said] == [f.target_new for f in tiny.FACTS]
    alone = student(**how).edit(lm, tiny.FACTS)
    rest = dense(made)
    with Memit(MEMIT, Workshop(seed=3)).edit(lm, tiny.FACTS).applied(lm):
        on_top = student(**how).edit(lm, tiny.FACTS)
    for name, delta in dense(Memit(MEMIT, Workshop(seed=3)).edit(lm, tiny.FACTS)).items():
        rest[name] = rest[name] - delta.float()
    assert all(torch.allclose(rest[name], d, atol=1e-5) for name, d in dense(on_top).items())
    assert not all(torch.allclose(rest[name], d, atol=1e-5) for name, d in dense(alone).items())


@pytest.mark.parametrize(
    ("start", "why"),
    [("memitt", "unknown method 'memitt'"), ("ske", "cannot start from itself")],
)
def test_a_start_that_is_none_is_refused_at_once(start: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        student(start=start)


def test_a_start_without_differences_of_weights_is_refused() -> None:
    with pytest.raises(UserError, match=r"train\.start = 'prompt': it does not change weights"):
        student(start="prompt").edit(tiny.lm(), tiny.FACTS)


def test_bad_options_of_a_start_are_found_before_anything_is_loaded() -> None:
    from pipeline.mistakes import check_options
    from ske.config import parse

    tree = {"train": {"start": "memit", "start_options": {"layer": 3}}}
    with pytest.raises(UserError, match="layer"):
        check_options(parse(tree, "test"))


@pytest.mark.parametrize("thin", [(2, 3), (2, None), (None, 3), (None, None), (20, 20)])
def test_an_edit_on_another_is_their_sum(thin: tuple[int | None, int | None]) -> None:
    def delta(rank: int | None) -> LowRank | torch.Tensor:
        if rank is None:
            return torch.randn(12, 16)
        return LowRank(torch.randn(12, rank), torch.randn(rank, 16))

    one, other = (DeltaEdit({"w": delta(rank), str(rank): torch.ones(2)}, "x") for rank in thin)
    both = other.on(one)
    assert torch.allclose(dense(both)["w"], dense(one)["w"] + dense(other)["w"], atol=1e-5)
    assert both.deltas.keys() == one.deltas.keys() | other.deltas.keys()
    assert isinstance(both.deltas["w"], LowRank) == (thin == (2, 3))
