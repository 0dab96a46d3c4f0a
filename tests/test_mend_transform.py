"""MEND: gradients in factors, and the transform."""

from __future__ import annotations

import pytest
import tiny
import torch
from mendtoys import (
    BOTH,
    batch_of,
    dense,
    untrained,
    wave,
)
from transformers import AutoModelForCausalLM, GPTJConfig, MixtralConfig, OPTConfig

from methods.delta import DeltaEdit, LowRank
from methods.mend_factors import (
    Batch,
    Factors,
    answer_loss,
    frozen,
    gradient_factors,
    mlp_matrices,
    updated,
)
from methods.mend_transform import GradientTransform
from ske.lm import ask
from ske.types import UserError

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
    with pytest.raises(UserError, match=r"Mixtral.*layers\.0 has no MLP"):
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
