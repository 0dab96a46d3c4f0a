"""Low-rank edits as adapter files: what vLLM is given, read by peft, is the edit itself."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import tiny
import torch
from peft import PeftModel

from methods.delta import DeltaEdit, LowRank
from pipeline import answering
from ske.backends.vllm import _joined, write_adapter
from ske.config import ModelConfig
from ske.lm import Pair, ask
from ske.types import MissingExtra, NeedsWeights

PAIRS = [Pair(ask(f.prompt), f.target_new, True) for f in tiny.FACTS]


def edit(seed: int, scale: float = 0.05) -> DeltaEdit:
    """Random low-rank differences of two ranks."""
    rng = torch.Generator().manual_seed(seed)
    model = tiny.lm().model
    deltas: dict[str, LowRank | torch.Tensor] = {}
    for name, rank in (("mlp.down_proj", 3), ("self_attn.q_proj", 1), ("mlp.gate_proj", 2)):
        place = f"model.layers.1.{name}.weight"
        out, inner = model.get_parameter(place).shape
        up = scale * torch.randn(out, rank, generator=rng)
        deltas[place] = LowRank(up, torch.randn(rank, inner, generator=rng))
    return DeltaEdit(deltas, "test")


def flat(scored: list) -> list[float]:
    return [value for one in scored for value in one.logprobs]


def test_an_adapter_file_is_the_edit(tmp_path: Path) -> None:
    lm = tiny.lm()
    with edit(1).applied(lm):
        expected = flat(lm.logprobs(PAIRS))
    base = flat(lm.logprobs(PAIRS))
    write_adapter(tmp_path, edit(1).factors())
    PeftModel.from_pretrained(lm.model, tmp_path)  # puts the adapters into the model's layers
    found = flat(lm.logprobs(PAIRS))
    assert found == pytest.approx(expected, abs=1e-4)
    assert found != pytest.approx(base, abs=1e-2)


def test_edits_on_top_of_each_other_are_one_adapter() -> None:
    one, two = edit(1).factors(), edit(2).factors()
    for name in one:
        up, down = _joined(one[name], two[name])
        apart = one[name][0] @ one[name][1] + two[name][0] @ two[name][1]
        assert torch.allclose(up @ down, apart, atol=1e-5)
        assert _joined(None, one[name]) is one[name]


def test_a_dense_edit_is_no_adapter() -> None:
    dense = DeltaEdit({"model.layers.0.mlp.down_proj.weight": torch.ones(64, 96)}, "ft_m")
    with pytest.raises(NeedsWeights, match=r"'ft_m' .*model\.backend=transformers"):
        dense.factors()


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_it_is_said_what_to_install() -> None:
    with pytest.raises(MissingExtra, match=r"pip install -e '\.\[vllm\]'"):
        answering.ready(ModelConfig(backend="vllm"))
