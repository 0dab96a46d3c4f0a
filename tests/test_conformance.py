"""Our ROME, R-ROME, MEMIT and AlphaEdit against numbers from their authors' own code.

`golden/README.md` says how the numbers came about: a random GPT-2 in float64, fixed contexts, fixed
second moments. So we run in float64, too, and may differ by what nine digits leave out.
"""

import json
import math
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from methods.alphaedit import AlphaEdit, AlphaEditOptions, NullSpace, null_space
from methods.arch import Layer, decoder_of
from methods.base import Workshop
from methods.delta import LowRank
from methods.keyvalue import KeyValueOptions, Query, contexts_of, keys_and_values, query
from methods.memit import Memit
from methods.moments import Moment
from methods.rome import Rome, RRome
from methods.values import changes
from ske.backends.local import LocalLM
from ske.types import Fact

GOLDEN = Path(__file__).parent / "golden"
TEMPLATES = ("The. {}", "Because of this. {}")
FACTS = (
    Fact(
        id="0", subject="Ada Byron", prompt="The place of birth of Ada Byron is", target_new="Vell"
    ),
    Fact(id="1", subject="Ruria", prompt="Ruria has the capital", target_new="London"),
    Fact(
        id="2", subject="Bela Cole", prompt="The employer of Bela Cole is", target_new="Ruria Works"
    ),
)
ENDING = Fact(
    id="e", subject="Ada Byron", prompt="The employer of Bela Cole is Ada Byron", target_new="Ruria"
)
AS_PUBLISHED: dict[str, Any] = {"end": False, "templates": TEMPLATES}


@cache
def golden(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def model() -> LocalLM:
    tokens = tiny.tokenizer()
    config = GPT2Config(
        vocab_size=len(tokens),
        n_embd=64,
        n_layer=6,
        n_head=2,
        n_positions=512,
        bos_token_id=tokens.eos_token_id,
        eos_token_id=tokens.eos_token_id,
    )
    made = GPT2LMHeadModel(config)
    seeded = torch.Generator().manual_seed(11)
    scales = {"wte": 0.3, ".attn.": 0.4, "mlp.c_proj": 0.1}
    with torch.no_grad():
        for name, weight in sorted(made.named_parameters()):
            noise = torch.randn(weight.shape, generator=seeded, dtype=torch.float32)
            scale = next((s for part, s in scales.items() if part in name), 0.15)
            norm = ".ln_" in name and name.endswith("weight")
            weight.copy_(1 + 0.1 * noise if norm else scale * noise)
    as_double: Any = made.double()
    return LocalLM(as_double, tokens)


def moment(layer: int, size: int = 256) -> Moment:
    seeded = torch.Generator().manual_seed(100 + layer)
    q, _ = torch.linalg.qr(torch.randn(size, size, generator=seeded, dtype=torch.float64))
    spectrum = torch.logspace(math.log10(2e-3), 0, size, dtype=torch.float64)
    return Moment(((q * spectrum) @ q.T).float().double(), 1)


def same(found: torch.Tensor, expected: Any, rtol: float = 1e-6) -> None:
    """Equal but for `rtol` of the largest entry."""
    wanted = torch.tensor(expected, dtype=torch.float64)
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= rtol * wanted.abs().max()


def same_digest(found: torch.Tensor, digest: dict[str, Any], rtol: float = 1e-6) -> None:
    assert list(found.shape) == digest["shape"]
    flat = found.double().flatten()
    seeded = torch.Generator().manual_seed(1234)
    rows = torch.randn(8, len(flat), generator=seeded, dtype=torch.float32).double()
    assert flat.norm().item() == pytest.approx(digest["norm"], rel=rtol)
    same(flat[:16], digest["first"], 10 * rtol)
    same(rows @ flat, digest["projection"], 10 * rtol)


def asked(lm: LocalLM, fact: Fact) -> Query:
    return query(lm, fact, contexts_of(lm, TEMPLATES, (), 0), end=False)


def layer_of(lm: LocalLM, number: int) -> Layer:
    return decoder_of(lm.model).layers[number]


def test_the_recipe_gives_the_same_model() -> None:
    lm, stored = model(), golden("rome")
    for name, total in stored["weights_l1"].items():
        assert lm.model.get_parameter(name).abs().sum().item() == pytest.approx(total, rel=1e-8)
    c = moment(2).mean()
    assert c.abs().sum().item() == pytest.approx(stored["covariance"]["l1"], rel=1e-6)
    same(c[0, :8], stored["covariance"]["first"])


# -- ROME and R-ROME ------------------------------------------------------------------------------

ENTRIES = [("facts", 0, {}), ("facts", 1, {}), ("facts", 2, {}), ("subject_last", None, {})]
EARLY = {"weight_decay": 1e-3, "kl_weight": 1e-3, "steps": 80, "clamp": 40.0}


def entry(name: str, kind: str, number: int | None) -> dict[str, Any]:
    stored = golden(name)[kind]
    return stored if number is None or isinstance(stored, dict) else stored[number]


@pytest.mark.parametrize(
    ("kind", "number", "options"),
    [*ENTRIES, ("no_covariance", 0, {}), ("early_stop", None, EARLY)],
)
def test_rome(kind: str, number: int | None, options: dict[str, Any]) -> None:
    lm, stored = model(), entry("rome", kind, number)
    layer, one = layer_of(lm, 2), asked(lm, ENDING if number is None else FACTS[number])
    rows = [*one.rows, one.essence]
    assert [r.prompt + r.answer[:-1] for r in rows] == stored["prompt_ids"]
    assert [r.place for r in rows] == stored["lookup"]
    assert one.rows[0].answer == stored["target_ids"]

    keys, values = (x[0] for x in keys_and_values(lm, layer.down, [one], 8192))
    same(keys.mean(0), stored["key_mean"])
    same(keys[0], stored["key_divisor"])
    same(values[0], stored["v_init"])

    editor = Rome({**AS_PUBLISHED, **options}, Workshop())
    seen: list[float] = []
    change = changes(
        lm, layer.mlp, values[:1], [one], editor.options, lambda step, total, x: seen.append(x)
    )
    same(change[0], stored["v_delta"])
    assert seen == pytest.approx([row[0] for row in stored["trace"]], rel=1e-6)

    identity = Moment(torch.eye(256, dtype=torch.float64), 1)
    c = identity if kind == "no_covariance" else moment(2)
    (right,), (left,) = editor.updates(lm, layer, c, [one])
    same(left, stored["u"])
    same(right, stored["right"])
    same_digest(torch.outer(left, right), stored["update"])


@pytest.mark.parametrize("number", [0, 1, 2])
def test_r_rome(number: int) -> None:
    lm, stored = model(), entry("rrome", "facts", number)
    layer, one = layer_of(lm, 2), asked(lm, FACTS[number])
    (right,), (left,) = RRome(AS_PUBLISHED, Workshop()).updates(lm, layer, moment(2), [one])
    same(left, stored["u"])
    same(right, stored["right"])
    same_digest(torch.outer(left, right), stored["update"])
    # The mean key makes another update than ROME's of the same fact.
    assert not torch.allclose(right, torch.tensor(entry("rome", "facts", number)["right"]).double())


# -- MEMIT and AlphaEdit --------------------------------------------------------------------------


def moments_by_layer(
    holder: Any, projections: Any, options: Any, workshop: Any, first: int = 1
) -> list[Moment]:
    return [moment(first + number) for number in range(len(projections))]


def dense(delta: LowRank | torch.Tensor) -> torch.Tensor:
    return delta.dense() if isinstance(delta, LowRank) else delta


def check_states(lm: LocalLM, facts: list[Fact], stored: list[dict[str, Any]], **o: Any) -> None:
    """The hidden states that are wanted at the last layer, and all that they come from."""
    queries = [asked(lm, fact) for fact in facts]
    for one, expected in zip(queries, stored, strict=True):
        rows = [*one.rows, one.essence]
        assert [r.prompt + r.answer[:-1] for r in rows] == expected["prompt_ids"]
        assert [r.place for r in rows] == expected["lookup"]
    before = torch.tensor([expected["z_init"] for expected in stored], dtype=torch.float64)
    options = KeyValueOptions(clamp=0.75, **AS_PUBLISHED, **o)
    found = before + changes(lm, layer_of(lm, 3).block, before, queries, options)
    for row, expected in zip(found, stored, strict=True):
        same(row, expected["z"])


@pytest.mark.parametrize(("weight", "kind"), [(20000.0, "layers"), (20.0, "lambda_20")])
def test_memit(weight: float, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lm, stored = model(), golden("memit")
    if kind == "layers":
        check_states(lm, list(FACTS), stored["facts"])
    monkeypatch.setattr("methods.memit.moments", moments_by_layer)
    options = {**AS_PUBLISHED, "layers": (1, 2, 3), "moment_weight": weight}
    edit = Memit(options, Workshop()).edit(lm, FACTS)
    for expected in stored[kind]:
        delta = edit.deltas[f"transformer.h.{expected['layer']}.mlp.c_proj.weight"]
        assert isinstance(delta, LowRank)
        same(delta.down.double(), expected["residual"])
        if "adjusted_keys" in expected:
            same(delta.up.T.double(), expected["adjusted_keys"])
        same_digest(delta.dense(), expected["update"])


def test_alphaedit(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, stored = model(), golden("alphaedit")
    for expected in stored["projector"]:
        basis = null_space(moment(expected["layer"]), AlphaEditOptions(), "a layer")
        assert basis.shape[1] == expected["trace"]
        same_digest(basis @ basis.T, expected["digest"])
    check_states(lm, list(FACTS[:2]), stored["batches"][0]["facts"])
    monkeypatch.setattr("methods.memit.moments", moments_by_layer)
    options = {**AS_PUBLISHED, "layers": (1, 2, 3), "steps": 20, "learning_rate": 0.5}
    edit = AlphaEdit({**options, "batch_facts": 2}, Workshop()).edit(lm, FACTS)
    first, second = (batch["layers"] for batch in stored["batches"])
    for one, other in zip(first, second, strict=True):
        delta = edit.deltas[f"transformer.h.{one['layer']}.mlp.c_proj.weight"]
        assert isinstance(delta, LowRank)
        for part, expected in ((slice(0, 2), one), (slice(2, 3), other)):
            same(delta.down[part].double(), expected["residual"], 2e-6)
            same(delta.up.T[part].double(), expected["adjusted_keys"], 2e-6)
            same_digest(delta.up[:, part] @ delta.down[part], expected["update"], 2e-6)


def test_alphaedits_update_is_the_authors_system() -> None:
    """From the stored keys alone, also with the keys of an earlier batch."""
    first, second = (batch["layers"] for batch in golden("alphaedit")["batches"])
    for one, other in zip(first, second, strict=True):
        basis = null_space(moment(one["layer"]), AlphaEditOptions(), "a layer")
        solver, p = NullSpace(basis, 10.0), basis @ basis.T
        earlier = torch.tensor(one["keys"], dtype=torch.float64)
        same(solver.lefts(earlier), one["adjusted_keys"])
        solver.remember(earlier)
        keys = torch.tensor(other["keys"], dtype=torch.float64)
        system = p @ (keys.T @ keys + earlier.T @ earlier) + 10 * torch.eye(256).double()
        expected = torch.linalg.solve(system, p @ keys.T).T
        torch.testing.assert_close(solver.lefts(keys), expected, rtol=1e-9, atol=1e-12)


def test_the_tests_that_the_page_names_exist() -> None:
    page = (GOLDEN.parent.parent / "docs" / "conformance.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", page)
    assert len(named) > 25
    for file, test in named:
        assert f"def {test}(" in (GOLDEN.parent / file).read_text(encoding="utf-8"), (file, test)
