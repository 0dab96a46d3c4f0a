"""MEND: gradients in factors, the transform, its training, its files."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from transformers import AutoModelForCausalLM, GPTJConfig, MixtralConfig, OPTConfig

from methods.base import Practice, Workshop
from methods.delta import DeltaEdit, LowRank
from methods.fingerprint import fingerprint
from methods.mend import Mend
from methods.mend_factors import (
    Batch,
    Factors,
    Matrix,
    answer_loss,
    collate,
    frozen,
    gradient_factors,
    mlp_matrices,
    updated,
)
from methods.mend_training import MendOptions, Trainer, drills, row, split
from methods.mend_transform import GradientTransform, Transforms
from ske.backends.local import LocalLM
from ske.lm import ask
from ske.types import Fact, UserError

BOTH = ("qwen3", "gpt2")
SMALL: dict[str, Any] = {"layers": 1, "rank": 8, "learning_rate": 1e-3, "edit_lr": 1e-3}
PEOPLE = ("Ada Cole", "Bela Byron", "Cara Vell", "Dora Works", "Ellen London", "Fay Acme")


def practice() -> list[Practice]:
    return [
        Practice(
            fact=Fact(
                id=name,
                subject=name,
                prompt=f"The place of birth of {name} is",
                target_new="Vell" if number % 2 else "London",
            ),
            paraphrases=(f"{name} is of the capital",),
            unrelated=((f"The employer of {name} is", "Acme Works"), ("The head of", "state")),
        )
        for number, name in enumerate(PEOPLE)
    ]


def workshop(**rest: Any) -> Workshop:
    return Workshop(seed=3, practice=practice, **rest)


def batch_of(lm: LocalLM, facts: Sequence[Fact] = tiny.FACTS) -> Batch:
    rows = [row(lm, ask(fact.prompt), fact.target_new) for fact in facts]
    return collate(rows, 0, lm.device)


def dense(factors: Factors) -> torch.Tensor:
    """[out, in]"""
    return torch.einsum("eto,eti->oi", factors.deltas, factors.inputs)


def untrained(lm: LocalLM, normalise: bool, edit_lr: float) -> tuple[list[Matrix], Transforms]:
    matrices = mlp_matrices(lm.model, 2)
    generator = torch.Generator().manual_seed(5)
    return matrices, Transforms(matrices, 1920, edit_lr, generator, normalise)


def wave(*shape: int, f: float) -> torch.Tensor:
    """Numbers that any code can make: sin(f), sin(2 f), ..."""
    steps = torch.arange(1, torch.Size(shape).numel() + 1, dtype=torch.float64)
    return torch.sin(f * steps).reshape(shape).float()


# -- which matrices ---------------------------------------------------------------------------


def test_the_last_layers_mlps_are_found() -> None:
    assert [m.name for m in mlp_matrices(tiny.lm().model, 1)] == [
        f"model.layers.1.mlp.{part}_proj.weight" for part in ("gate", "up", "down")
    ]
    found = mlp_matrices(tiny.lm("gpt2").model, 3)
    assert [m.name.removeprefix("transformer.h.") for m in found] == [
        f"{layer}.mlp.{part}.weight" for layer in (0, 1) for part in ("c_fc", "c_proj")
    ]
    assert [(m.inputs, m.outputs, m.flipped) for m in found[:2]] == [
        (64, 256, True),
        (256, 64, True),
    ]


def test_the_mlp_is_found_without_a_module_of_its_own() -> None:
    opt = OPTConfig(
        vocab_size=9, hidden_size=16, num_hidden_layers=2, ffn_dim=24, num_attention_heads=2
    )
    opt.word_embed_proj_dim = 16
    model = AutoModelForCausalLM.from_config(opt)
    assert [m.name.split(".")[-2] for m in mlp_matrices(model, 1)] == ["fc1", "fc2"]
    gptj = GPTJConfig(vocab_size=9, n_embd=16, n_layer=2, n_head=2, rotary_dim=4)
    gptj.bos_token_id = gptj.eos_token_id = 1
    found = mlp_matrices(AutoModelForCausalLM.from_config(gptj), 1)
    assert [m.name.split(".")[-2] for m in found] == ["fc_in", "fc_out"]


def test_experts_are_refused() -> None:
    config = MixtralConfig(
        vocab_size=9,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=2,
    )
    with pytest.raises(UserError, match=r"layers\.1 of Mixtral.*no MLP"):
        mlp_matrices(AutoModelForCausalLM.from_config(config), 1)


# -- factors ----------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", BOTH)
def test_factors_add_up_to_the_gradient(architecture: str) -> None:
    lm = tiny.lm(architecture)
    matrices, batch = mlp_matrices(lm.model, 2), batch_of(lm)
    weights = [lm.model.get_parameter(matrix.name) for matrix in matrices]
    wanted = torch.autograd.grad(answer_loss(lm.model, batch), weights)
    with frozen(lm.model):
        found = gradient_factors(lm.model, matrices, batch)
    for matrix, gradient, factors in zip(matrices, wanted, found, strict=True):
        own = dense(factors).T if matrix.flipped else dense(factors)
        assert own.shape == gradient.shape
        torch.testing.assert_close(own, gradient, rtol=1e-4, atol=1e-6)


def test_the_loss_is_each_answers_mean_with_its_end() -> None:
    lm = tiny.lm()
    total = 0.0
    for fact in tiny.FACTS:
        prompt = lm.renderer.prompt_ids(ask(fact.prompt))
        answer = lm.renderer.answer_ids(ask(fact.prompt), fact.target_new, end=True)
        assert answer[-1] == lm.renderer.end_id
        logprobs = lm.score([prompt], [answer])[0].logprobs
        total -= sum(logprobs) / len(logprobs)
    assert float(answer_loss(lm.model, batch_of(lm)).detach()) == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("architecture", BOTH)
def test_a_facts_factors_do_not_depend_on_the_others(architecture: str) -> None:
    lm = tiny.lm(architecture)
    matrices = mlp_matrices(lm.model, 2)
    with frozen(lm.model):
        all_ = gradient_factors(lm.model, matrices, batch_of(lm))
        for place, fact in enumerate(tiny.FACTS):
            alone = gradient_factors(lm.model, matrices, batch_of(lm, [fact]))
            for one, many in zip(alone, all_, strict=True):
                tokens = one.inputs.shape[1]
                torch.testing.assert_close(one.deltas[0], many.deltas[place, :tokens])
                assert not many.deltas[place, tokens:].any()


@pytest.mark.parametrize("architecture", BOTH)
def test_an_update_in_the_forward_pass_is_an_update_of_the_weights(architecture: str) -> None:
    lm = tiny.lm(architecture)
    matrices, batch = mlp_matrices(lm.model, 2), batch_of(lm)
    with frozen(lm.model):
        alone = [
            [Factors(f.inputs, -0.1 * f.deltas) for f in gradient_factors(lm.model, matrices, one)]
            for one in (Batch(*(part[place : place + 1] for part in batch)) for place in range(3))
        ]
        # Three edits at once: each row of the batch sees its own.
        stacked = [
            Factors(*(torch.cat(part) for part in zip(*parts, strict=True)))
            for parts in zip(*alone, strict=True)
        ]
        with torch.no_grad(), updated(matrices, stacked):
            together = lm.model(batch.ids, attention_mask=batch.mask).logits
    for place, factors in enumerate(alone):
        deltas: dict[str, LowRank | torch.Tensor] = {
            m.name: dense(f).T if m.flipped else dense(f)
            for m, f in zip(matrices, factors, strict=True)
        }
        with torch.no_grad(), DeltaEdit(deltas, "x").applied(lm):
            logits = lm.model(batch.ids, attention_mask=batch.mask).logits
        torch.testing.assert_close(together[place], logits[place], rtol=1e-4, atol=1e-4)


# -- the transform ----------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", BOTH)
def test_the_untrained_transform_is_a_plain_gradient_step(architecture: str) -> None:
    lm = tiny.lm(architecture)
    matrices, transforms = untrained(lm, normalise=False, edit_lr=0.1)
    with frozen(lm.model):
        gradients = gradient_factors(lm.model, matrices, batch_of(lm))
    for before, after in zip(gradients, transforms(gradients), strict=True):
        torch.testing.assert_close(dense(after), -0.1 * dense(before))


def test_statistics_are_those_of_all_tokens_with_a_gradient() -> None:
    transform = GradientTransform(3, 2, 1, 4, torch.Generator())
    seen = [Factors(wave(2, 3, 3, f=f), wave(2, 3, 2, f=2 * f)) for f in (0.7, 1.3)]
    seen[0].deltas[1, 2] = 0
    seen[1].inputs[0, 0] = 0
    for factors in seen:
        transform.observe(factors)
    tokens = torch.cat([torch.cat(factors, dim=-1).reshape(-1, 5) for factors in seen])
    tokens = tokens[[token for token in range(12) if token not in (5, 6)]]
    assert transform.count == 10
    torch.testing.assert_close(transform.mean, tokens.mean(0))
    torch.testing.assert_close((transform.squares / 9).sqrt(), tokens.std(0))
    # The untrained layers change nothing, so what comes out are the normalised tokens.
    out = torch.cat(transform(seen[1], 0), dim=-1)
    torch.testing.assert_close(
        out[1], (torch.cat(seen[1], dim=-1)[1] - tokens.mean(0)) / tokens.std(0)
    )
    assert not out[0, 0].any()


def test_a_coordinate_that_never_changed_is_left_out() -> None:
    transform = GradientTransform(2, 1, 1, 3, torch.Generator())
    transform.observe(Factors(torch.tensor([[[1.0, 0], [2, 0]]]), torch.tensor([[[1.0], [2]]])))
    out = transform(Factors(torch.tensor([[[1.5, 3.0]]]), torch.tensor([[[1.5]]])), 0)
    assert out.inputs.tolist() == [[[0, 0]]]


def test_the_authors_code_gives_the_same_numbers() -> None:
    """eric-mitchell/mend at e04fdb9c, `GradientTransform` (combined, IDMLP, rank 4, 2 matrices)."""
    transform = GradientTransform(3, 2, 2, 4, torch.Generator())
    for i, layer in enumerate(transform.layers):
        parts = {"up": (5, 4, 1.3), "down": (4, 5, 0.7), "bias": (5, 2.1), "shift": (2, 5, 1.9)}
        for name, (*shape, f) in parts.items():
            layer.get_parameter(name).data = wave(*map(int, shape), f=f + i)
        layer.get_parameter("scale").data = 1 + wave(2, 5, f=0.9 + i)
    first = Factors(wave(2, 3, 3, f=1.1), wave(2, 3, 2, f=1.7))
    first.deltas[1, 2] = 0
    second = Factors(wave(1, 2, 3, f=2.3), wave(1, 2, 2, f=0.3))

    def out(factors: Factors, matrix: int) -> torch.Tensor:
        both = torch.cat(transform(factors, matrix), dim=-1).reshape(-1, 5)
        return both[both.any(-1)]

    transform.observe(first)
    a = out(first, 0)
    transform.observe(second)
    b, c = out(second, 1), out(second, 0)
    wanted_a = [
        [17.661655, 1.065043, 5.070745, 2.111307, 11.410188],
        [-0.174571, -1.2378, 1.41058, 0.706325, 2.685391],
        [16.809769, 0.72498, 4.404526, 1.887921, 10.80808],
        [0.037227, -0.848588, 2.126302, 1.034975, 3.838165],
        [13.890941, 0.296365, 3.671519, 1.481178, 9.124589],
    ]
    wanted_b = [
        [0.535796, 0.195645, 1.30732, 2.059021, 3.13297],
        [-0.051852, -0.926145, 4.02452, 3.182424, 6.817883],
    ]
    wanted_c = [
        [7.359783, -1.08583, 4.008658, 1.652566, 9.233723],
        [3.420458, -0.926145, 3.884282, 2.450501, 8.521654],
    ]
    for own, wanted in ((a, wanted_a), (b, wanted_b), (c, wanted_c)):
        torch.testing.assert_close(own, torch.tensor(wanted), rtol=1e-5, atol=1e-5)


def test_matrices_of_one_shape_share_a_transform() -> None:
    _, transforms = untrained(tiny.lm(), True, 1e-4)
    assert transforms.places == [
        ("64x96", 0),
        ("64x96", 1),
        ("96x64", 0),
        ("64x96", 2),
        ("64x96", 3),
        ("96x64", 1),
    ]
    assert transforms.shapes["64x96"].get_parameter("layers.0.scale").shape == (4, 160)
    assert transforms.shapes["64x96"].get_parameter("layers.0.up").shape == (160, 160)


# -- training ---------------------------------------------------------------------------------


def trainer(lm: LocalLM, **options: Any) -> Trainer:
    chosen = MendOptions.model_validate({**SMALL, "batch_size": 4, "epochs": 12, **options})
    matrices = mlp_matrices(lm.model, chosen.layers)
    generator = torch.Generator().manual_seed(0)
    transforms = Transforms(matrices, chosen.rank, chosen.edit_lr, generator)
    return Trainer(lm, matrices, transforms, drills(lm, practice()), chosen, seed=0)


def silent(step: int, total: int, loss: float) -> None:
    pass


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
            for transform in teacher.transforms.shapes.values():
                assert isinstance(transform, GradientTransform)
                transform.normalise = False
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


def deltas(edit: DeltaEdit) -> dict[str, torch.Tensor]:
    return {n: d.dense() if isinstance(d, LowRank) else d for n, d in edit.deltas.items()}


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
