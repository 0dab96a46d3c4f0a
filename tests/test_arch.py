"""The parts of decoders are found by structure, in every architecture the same way."""

import pytest
import tiny
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from methods.arch import chosen_layers, decoder_of
from ske.types import UserError

DOWN = {
    "gpt2": "transformer.h.1.mlp.c_proj.weight",
    "gptj": "transformer.h.1.mlp.fc_out.weight",
    "neox": "gpt_neox.layers.1.mlp.dense_4h_to_h.weight",
    "phi": "model.layers.1.mlp.fc2.weight",
    "opt": "model.decoder.layers.1.fc2.weight",
}
ATTENTION = {
    "gpt2": "transformer.h.1.attn.c_proj.weight",
    "gptj": "transformer.h.1.attn.out_proj.weight",
    "neox": "gpt_neox.layers.1.attention.dense.weight",
    "phi": "model.layers.1.self_attn.dense.weight",
    "opt": "model.decoder.layers.1.self_attn.out_proj.weight",
}
NORM = {
    "gpt2": "transformer.ln_f",
    "gptj": "transformer.ln_f",
    "neox": "gpt_neox.final_layer_norm",
    "phi": "model.final_layernorm",
    "opt": "model.decoder.final_layer_norm",
}


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES + tiny.MORE_ARCHITECTURES)
def test_parts_of_every_architecture(architecture: str) -> None:
    model = tiny.lm(architecture).model
    decoder = decoder_of(model)
    assert decoder.hidden == 64
    assert len(decoder.layers) == 2
    layer = decoder.layers[1]
    assert layer.down.name == DOWN.get(architecture, "model.layers.1.mlp.down_proj.weight")
    out = ATTENTION.get(architecture, "model.layers.1.self_attn.o_proj.weight")
    assert layer.attention_out.name == out
    assert layer.down.weight is model.get_parameter(layer.down.name)
    assert decoder.norm is model.get_submodule(NORM.get(architecture, "model.norm"))
    assert decoder.head is model.get_output_embeddings()
    assert decoder.embedding.weight.shape[1] == 64
    assert layer.down.flipped == (architecture == "gpt2")
    # The update of a weight, [out, in], has the weight's shape when it is oriented.
    update = torch.zeros(64, layer.down.inputs)
    assert layer.down.oriented(update).shape == layer.down.weight.shape


@pytest.mark.parametrize(
    ("depth", "rome", "memit"),
    [
        (32, [5], [4, 5, 6, 7, 8]),
        (28, [5], [4, 5, 6, 7]),
        (5, [1], [1]),
        (2, [0], [0]),
        (1, [0], [0]),
    ],
)
def test_layers_follow_the_depth(depth: int, rome: list[int], memit: list[int]) -> None:
    decoder = decoder_of(tiny.lm().model)
    deep = decoder._replace(layers=[decoder.layers[0]._replace(name=str(i)) for i in range(depth)])
    assert [int(layer.name) for layer in chosen_layers(deep, None, 1 / 6, 1 / 6)] == rome
    assert [int(layer.name) for layer in chosen_layers(deep, None, 1 / 8, 1 / 4)] == memit


def test_layers_can_be_named_and_are_checked() -> None:
    decoder = decoder_of(tiny.lm().model)
    named = chosen_layers(decoder, (1, 0, 1), 0, 0)
    assert [layer.name for layer in named] == ["model.layers.0", "model.layers.1"]
    with pytest.raises(UserError, match=r"layers: 2 .* 0 to 1"):
        chosen_layers(decoder, (2,), 0, 0)


def test_a_mixture_of_experts_is_refused() -> None:
    config = AutoConfig.for_model(
        "mixtral",
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=2,
    )
    with pytest.raises(UserError, match=r"Mixtral.*MLP"):
        decoder_of(AutoModelForCausalLM.from_config(config))
