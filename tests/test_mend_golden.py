"""MEND against numbers of the authors' own code (`tests/golden/mend.json`), in float64.

Three things differ by intention and are allowed for here: the authors add an update where we take
it off, they divide a batch's loss by its tokens where we add up each fact's mean, and they measure
locality on every token.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from mendtoys import batch_of
from transformers import GPT2Config, GPT2LMHeadModel

from methods.arch import Projection
from methods.mend_factors import (
    Batch,
    Factors,
    Row,
    answer_loss,
    collate,
    frozen,
    gradient_factors,
    mlp_matrices,
    updated,
)
from methods.mend_training import together
from methods.mend_transform import GradientTransform, Transforms, informative
from ske.backends.local import LocalLM
from ske.lm import ask

GOLDEN = json.loads((Path(__file__).parent / "golden" / "mend.json").read_text(encoding="utf-8"))
OURS = {"u": "up", "v": "down", "bias": "bias", "mode_scale.weight": "scale"} | {
    "mode_shift.weight": "shift"
}
FACTS = (
    ("The place of birth of Ada Byron is", "Vell"),
    ("Ruria has the capital", "London"),
    ("The employer of Bela Cole is", "Ruria Works"),
)


def draw(shape: Iterable[int], generator: torch.Generator) -> torch.Tensor:
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float32)


def fill(transforms: dict[str, GradientTransform], shapes: dict[str, Any], seed: int) -> None:
    """Parameters by the recipe of the golden numbers, drawn in the order of the authors' names."""
    generator = torch.Generator().manual_seed(seed)
    for name in sorted(shapes):
        owner, _, inner = name.partition("mlp.layers.")
        place, part = inner.split(".", 1)
        noise = 0.1 * draw(shapes[name], generator)
        value = (1 + noise if "mode_scale" in part else noise).double()
        layer = transforms[owner.rstrip(".")].layers[int(place)]
        layer.get_parameter(OURS[part]).data = value


def check(own: torch.Tensor, wanted: Any, rel: float = 1e-6) -> None:
    """Against an array, or against a digest of one."""
    own = own.detach()
    if isinstance(wanted, list):
        expected = torch.tensor(wanted, dtype=torch.float64)
        assert float((own - expected).abs().max()) <= rel * float(expected.abs().max())
        return
    assert list(own.shape) == wanted["shape"]
    flat = own.flatten().double()
    seeded = torch.Generator().manual_seed(1234)
    projection = torch.randn(8, len(flat), generator=seeded, dtype=torch.float32).double() @ flat
    assert float(flat.norm()) == pytest.approx(wanted["norm"], rel=rel)
    norm = wanted["norm"]
    assert flat[:16].tolist() == pytest.approx(wanted["first"], rel=0, abs=rel * norm)
    assert projection.tolist() == pytest.approx(wanted["projection"], rel=0, abs=10 * rel * norm)


def rows_of(transform: GradientTransform, factors: Factors, matrix: int) -> Factors:
    used = informative(factors)
    return Factors(*(part[used] for part in transform(factors, matrix)))


def test_the_transform() -> None:
    golden = GOLDEN["transform"]
    transform = GradientTransform(12, 8, 2, 4, torch.Generator()).double()
    fill({"": transform}, golden["parameters"], 61)
    batches = []
    for i, wanted in enumerate(golden["train"]):
        u = draw((2, 5, 12), torch.Generator().manual_seed(71 + i)).double()
        v = draw((2, 5, 8), torch.Generator().manual_seed(81 + i)).double()
        v[0, 0], u[1, 3] = 0, 0
        batches.append(Factors(u, v))
        transform.observe(batches[-1])
        own = rows_of(transform, batches[-1], wanted["mode"])
        check(own.inputs, wanted["x"])
        check(own.deltas, wanted["delta"])
    known = golden["statistics"]
    check(transform.mean, known["u_mean"] + known["v_mean"])
    check((transform.squares / (transform.count - 1)).sqrt(), known["u_std"] + known["v_std"])
    own = rows_of(transform, batches[golden["eval"]["batch"]], golden["eval"]["mode"])
    check(own.inputs, golden["eval"]["x"])
    check(own.deltas, golden["eval"]["delta"])


def golden_lm() -> LocalLM:
    tokens = tiny.tokenizer()
    config = GPT2Config(vocab_size=len(tokens), n_embd=64, n_layer=6, n_head=2, n_positions=512)
    end: Any = tokens.eos_token_id
    config.bos_token_id = config.eos_token_id = end
    model = GPT2LMHeadModel(config)
    seeded = torch.Generator().manual_seed(11)
    scales = {"wte": 0.3, ".attn.": 0.4, "mlp.c_proj": 0.1}
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            noise = draw(weight.shape, seeded)
            scale = next((scale for part, scale in scales.items() if part in name), 0.15)
            norm = ".ln_" in name and name.endswith("weight")
            weight.copy_(1 + 0.1 * noise if norm else scale * noise)
    return LocalLM(model.double(), tokens)


def golden_batch(lm: LocalLM, facts: Iterable[tuple[str, str]]) -> Batch:
    """Without an end token, which the authors do not train."""
    rows = []
    for prompt, target in facts:
        ids = lm.renderer.prompt_ids(ask(prompt))
        rows.append(Row([*ids, *lm.renderer.answer_ids(ask(prompt), target)], len(ids)))
    return collate(rows, 1, lm.device)


def prepared(lm: LocalLM) -> tuple[list[Projection], Transforms]:
    """With the golden parameters, and the statistics of facts 1 and 2, each alone."""
    golden = GOLDEN["edit"]
    by_name = {matrix.name: matrix for matrix in mlp_matrices(lm.model, 2)}
    matrices = [by_name[name] for name in golden["inner_params"]]
    transforms = Transforms(matrices, 4, 1.0, torch.Generator()).double()
    with torch.no_grad():
        transforms.edit_lrs.copy_(-torch.tensor(golden["edit_lrs"], dtype=torch.float64))
    named: dict[str, GradientTransform] = {}
    for shape, transform in transforms.shapes.items():
        assert isinstance(transform, GradientTransform)
        named[f"({shape.replace('x', ', ')})"] = transform
    fill(named, golden["parameters"], 62)
    for fact in FACTS[1:]:
        transforms.observe(gradient_factors(lm.model, matrices, golden_batch(lm, [fact])))
    for shape, wanted in golden["statistics"].items():
        transform, width = named[shape], named[shape].inputs
        assert transform.count == wanted["k"]
        deviation = (transform.squares / (transform.count - 1)).sqrt()
        for own, part in ((transform.mean, "mean"), (deviation, "std")):
            check(own[:width], wanted[f"u_{part}"])
            check(own[width:], wanted[f"v_{part}"])
    return matrices, transforms


@pytest.mark.parametrize("name", ["single", "batch"])
def test_an_edit(name: str) -> None:
    golden, lm = GOLDEN["edit"][name], golden_lm()
    batch = golden_batch(lm, FACTS if name == "batch" else FACTS[:1])
    with frozen(lm.model):
        matrices, transforms = prepared(lm)
        gradients = gradient_factors(lm.model, matrices, batch)
        # The mean over all tokens instead of the sum of each fact's mean.
        tokens = (batch.labels != -100).sum(1)
        share = (tokens / tokens.sum())[:, None, None]
        gradients = [together(Factors(f.inputs, f.deltas * share), 1) for f in gradients]
        updates = transforms(gradients)
        for matrix, raw, update in zip(matrices, gradients, updates, strict=True):
            assert int(informative(raw).sum()) == golden["rows"][matrix.name]
            own = torch.einsum("eti,eto->io", update.inputs, update.deltas)
            check(own.detach(), golden["updates"][matrix.name])
        with torch.no_grad(), updated(matrices, updates):
            loss = answer_loss(lm.model, batch) if name == "single" else None
    if loss is not None:
        assert float(loss) == pytest.approx(golden["edited_nll"], rel=1e-6)


def test_a_training_step() -> None:
    golden, lm = GOLDEN["training_step"], golden_lm()
    asked = golden_batch(lm, [("Ada Byron comes from", "Vell")])
    stay = golden_batch(
        lm, [("The capital of Ruria is", "Vell"), ("Who is the head of state of", "Ruria")]
    )
    with frozen(lm.model):
        matrices, transforms = prepared(lm)
        gradients = gradient_factors(lm.model, matrices, golden_batch(lm, FACTS[:1]))
        with torch.no_grad():
            before = lm.model(stay.ids, attention_mask=stay.mask).logits.log_softmax(-1)
        with updated(matrices, transforms(gradients, learning=True)):
            edit = answer_loss(lm.model, asked)
            after = lm.model(stay.ids, attention_mask=stay.mask).logits.log_softmax(-1)
        apart = (before.exp() * (before - after)).sum(-1)
        local = (apart * stay.mask).sum() / stay.mask.sum()
        (0.1 * edit + local).backward()
    assert float(edit.detach()) == pytest.approx(golden["l_edit"], rel=1e-6)
    assert float(local.detach()) == pytest.approx(golden["l_loc"], rel=1e-6)
    assert transforms.edit_lrs.grad is not None
    check(-transforms.edit_lrs.grad, golden["edit_lrs_grad"])
    for name, norm in golden["grad_norms"].items():
        shape, rest = name.split(".mlp.layers.")
        place, part = rest.split(".", 1)
        key = shape.strip("()").replace(", ", "x")
        own = transforms.shapes[key].get_parameter(f"layers.{place}.{OURS[part]}").grad
        assert own is not None
        assert float(own.norm()) == pytest.approx(norm, rel=1e-6)


def test_our_rows_are_theirs_and_an_end_token() -> None:
    lm = golden_lm()
    own = batch_of(lm, tiny.FACTS[1:2])
    theirs = golden_batch(lm, [(tiny.FACTS[1].prompt, tiny.FACTS[1].target_new)])
    assert own.ids[0].tolist() == [*theirs.ids[0].tolist(), lm.renderer.end_id]
