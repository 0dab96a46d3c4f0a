"""MEND: its training, its editor and its files."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from mendtoys import (
    SMALL,
    deltas,
    practice,
    silent,
    trainer,
    workshop,
)

from methods.base import Practice, Workshop
from methods.delta import DeltaEdit, LowRank
from methods.fingerprint import fingerprint
from methods.mend import Mend
from methods.mend_factors import (
    Batch,
    answer_loss,
    frozen,
)
from methods.mend_training import drills, split
from ske.backends.local import LocalLM
from ske.types import Fact, UserError

# -- training ---------------------------------------------------------------------------------


@pytest.mark.parametrize("edits", [1, 3])
def test_training_lowers_the_loss_on_subjects_it_never_saw(edits: int) -> None:
    lm = tiny.lm()
    options = {"locality_weight": 0.1, "learning_rate": 5e-3, "layers": 2}
    with frozen(lm.model):
        teacher = trainer(lm, edits=edits, validate_every=4, validation=0.4, epochs=24, **options)
        teacher._observe_some()
        before = teacher.validate()
        progress = teacher.run(None, silent)
        assert progress.best_loss < 0.8 * before
        assert teacher.validate() == progress.best_loss


def test_a_step_in_several_passes_is_the_same_step() -> None:
    lm = tiny.lm()
    with frozen(lm.model):
        episodes = []
        for size in (1, 4):
            teacher = trainer(lm, forward_size=size, normalise=False, validation=0.2)
            episodes.append(teacher.step(1))
            episodes.append(teacher.transforms.edit_lrs.detach().clone())
    assert episodes[0] == pytest.approx(episodes[2], rel=1e-4)
    torch.testing.assert_close(episodes[1], episodes[3])


def test_the_loss_is_edit_plus_locality() -> None:
    lm = tiny.lm()
    with frozen(lm.model):
        both = trainer(lm)
        both._observe_some()
        drawn = both.draw(both.train_drills, random.Random(1), 2)
        parts = []
        for options in ({"locality_weight": 0.0}, {"edit_weight": 1e-9}):
            one = trainer(lm, **options)
            one.transforms.load_state_dict(both.transforms.state_dict())
            parts.append(float(one.loss(drawn).detach()))
        assert parts[0] > 0
        assert parts[1] > 0
        assert float(both.loss(drawn).detach()) == pytest.approx(sum(parts), rel=1e-4)


def test_without_an_update_there_is_no_divergence() -> None:
    lm = tiny.lm()
    with frozen(lm.model):
        teacher = trainer(lm, edit_lr=0.0, edit_weight=1.0)
        drawn = teacher.draw(teacher.train_drills, random.Random(1), 2)
        said = Batch(*(part[drawn.wordings] for part in drawn.asked))
        plain = float(answer_loss(lm.model, said)) / len(said.ids)
        assert float(teacher.loss(drawn).detach()) == pytest.approx(plain, rel=1e-4)


def test_validation_has_subjects_of_its_own() -> None:
    made = drills(tiny.lm(), [*practice(), *practice()])
    train, held = split(made, 0.3)
    assert len(train) + len(held) == 12
    assert len(held) == 4
    assert not {drill.subject for drill in train} & {drill.subject for drill in held}
    assert split(made[:1], 0.5) == (made[:1], made[:1])


def test_training_stops_when_nothing_gets_better() -> None:
    lm, steps = tiny.lm(), []
    options = {"learning_rate": 1e-12, "lr_learning_rate": 1e-12, "edit_lr": -10.0}
    teacher = trainer(lm, validate_every=1, patience=3, epochs=100, **options)
    with frozen(lm.model):
        start = {name: value.clone() for name, value in teacher.transforms.named_parameters()}
        teacher.validate = iter(range(99)).__next__  # type: ignore[method-assign]
        teacher.run(None, lambda step, total, loss: steps.append((step, total)))
    assert [step for step, _ in steps] == [1, 2, 3]
    for name, value in teacher.transforms.named_parameters():
        assert torch.equal(value, start[name])


# -- the editor -------------------------------------------------------------------------------


def test_many_facts_are_the_sum_of_their_edits(tmp_path: Path) -> None:
    lm = tiny.lm("gpt2")
    editor = Mend({**SMALL, "epochs": 2}, workshop(cache=tmp_path))
    whole = deltas(editor.edit(lm, tiny.FACTS))
    single = [deltas(editor.edit(lm, [fact])) for fact in tiny.FACTS]
    for name, delta in whole.items():
        total = torch.stack([one[name] for one in single]).sum(0)
        torch.testing.assert_close(delta, total, rtol=1e-3, atol=1e-6)
    thin = editor.edit(lm, [tiny.FACTS[0]]).deltas.values()
    assert all(isinstance(delta, LowRank) for delta in thin)


def test_a_few_facts_at_a_time_are_the_same_edit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = tiny.lm()
    editor = Mend({**SMALL, "epochs": 1}, workshop(cache=tmp_path))
    at_once = deltas(editor.edit(lm, tiny.FACTS))
    monkeypatch.setattr("methods.mend.PASS_TOKENS", 1)
    one_by_one = editor.edit(lm, tiny.FACTS * 9)
    assert any(isinstance(delta, torch.Tensor) for delta in one_by_one.deltas.values())
    for name, delta in deltas(one_by_one).items():
        torch.testing.assert_close(delta, 9 * at_once[name], rtol=1e-3, atol=1e-4)


def test_training_is_done_once_for_a_model_and_its_practice(tmp_path: Path) -> None:
    steps: list[int] = []

    def report(step: int, total: int, loss: float) -> None:
        steps.append(step)

    def run(lm: LocalLM, facts: Sequence[Fact], **options: Any) -> DeltaEdit:
        steps.clear()
        editor = Mend({**SMALL, "epochs": 4, **options}, workshop(cache=tmp_path, progress=report))
        return editor.edit(lm, facts)

    lm = tiny.lm()
    first = deltas(run(lm, tiny.FACTS))
    assert steps
    again = deltas(run(tiny.lm(), tiny.FACTS))
    assert not steps
    assert all(torch.equal(first[name], again[name]) for name in first)
    run(lm, tiny.FACTS[:1])
    assert not steps
    run(lm, tiny.FACTS, rank=9)
    assert steps
    with torch.no_grad():
        lm.model.get_parameter("model.norm.weight")[0] += 1e-3
    run(lm, tiny.FACTS)
    assert steps
    assert {path.name.split(".", 1)[1] for path in tmp_path.iterdir()} == {"safetensors"}


def test_an_editor_remembers_its_transform_while_the_model_is_the_same() -> None:
    calls: list[int] = []

    def counted() -> list[Practice]:
        calls.append(1)
        return practice()

    lm = tiny.lm()
    editor = Mend({**SMALL, "epochs": 1}, Workshop(practice=counted))
    first = editor.edit(lm, tiny.FACTS)
    editor.edit(lm, tiny.FACTS[:1])
    assert len(calls) == 1
    with first.applied(lm):
        editor.edit(lm, tiny.FACTS[:1])
    assert len(calls) == 2


class Killed(Exception):
    pass


@pytest.mark.parametrize("place", ["cache", "folder"])
def test_a_killed_training_goes_on_with_the_same_result(tmp_path: Path, place: str) -> None:
    options = {**SMALL, "epochs": 10, "batch_size": 2, "validate_every": 4}
    steps: list[int] = []

    def dying(step: int, total: int, loss: float) -> None:
        steps.append(step)
        if step == 10:
            raise Killed

    lm = tiny.lm()
    whole = deltas(Mend(options, workshop()).edit(lm, tiny.FACTS))
    kept: dict[str, Any] = {place: tmp_path}
    with pytest.raises(Killed):
        Mend(options, workshop(progress=dying, **kept)).edit(lm, tiny.FACTS)
    assert not any(module._forward_hooks for module in lm.model.modules())
    assert all(parameter.requires_grad for parameter in lm.model.parameters())
    steps.clear()

    def report(step: int, total: int, loss: float) -> None:
        steps.append(step)

    resumed = deltas(Mend(options, workshop(progress=report, **kept)).edit(lm, tiny.FACTS))
    assert steps[0] == 9
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_an_edit_goes_its_way_in_bf16() -> None:
    lm = tiny.lm("gpt2")
    for parameter in lm.model.parameters():
        parameter.data = parameter.data.bfloat16()
    edit = Mend({**SMALL, "epochs": 2}, workshop()).edit(lm, tiny.FACTS)
    found = deltas(edit)
    assert all(delta.dtype == torch.float32 for delta in found.values())
    assert all(bool(delta.isfinite().all()) and bool(delta.any()) for delta in found.values())


def test_no_practice_is_refused() -> None:
    lm = tiny.lm()
    with pytest.raises(UserError, match=r"mend.*given none.*Workshop\.practice"):
        Mend({}, Workshop()).edit(lm, tiny.FACTS)
    bare = [item.model_copy(update={"unrelated": ()}) for item in practice()]
    with pytest.raises(UserError, match=r"6 practice facts, none with unrelated"):
        Mend({}, Workshop(practice=lambda: bare)).edit(lm, tiny.FACTS)


def test_a_fingerprint_sees_one_bit() -> None:
    one, other = tiny.lm().model, tiny.lm().model
    assert fingerprint(one) == fingerprint(other)
    weight = one.get_parameter("model.layers.0.mlp.up_proj.weight")
    with torch.no_grad():
        weight.view(torch.int32)[5, 7] += 1
    assert fingerprint(one) != fingerprint(other)
    before = fingerprint(other)
    with torch.no_grad():
        other.get_parameter("model.norm.weight").data = torch.ones(64, dtype=torch.float64)
    assert fingerprint(other) != before
