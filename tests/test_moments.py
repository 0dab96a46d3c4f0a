"""Second moments: the same as by brute force, however they are gathered."""

from pathlib import Path

import pytest
import tiny
import torch

from methods.arch import decoder_of
from methods.base import Workshop
from methods.moments import Moment, TextOptions, count, moments
from ske.lm import ask
from ske.types import UserError

ROWS = [[5, 6, 7, 8, 9], [10, 11], [12, 13, 14]]
FEW = TextOptions(moment_texts=6, moment_tokens=12)


def brute(architecture: str) -> list[torch.Tensor]:
    """Every row by itself, so that nothing is padded; k k^T token by token."""
    lm = tiny.lm(architecture)
    totals = []
    for layer in decoder_of(lm.model).layers:
        seen: list[torch.Tensor] = []
        handle = layer.down.module.register_forward_pre_hook(lambda _, x, s=seen: s.append(x[0]))
        with torch.no_grad():
            for row in ROWS:
                lm.model(torch.tensor([row]))
        handle.remove()
        keys = torch.cat([k[0] for k in seen]).double()
        totals.append(sum(torch.outer(k, k) for k in keys) / len(keys))
    return totals


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("batch_tokens", [1, 9, 1000])
def test_it_is_the_mean_of_outer_products_without_padding(
    architecture: str, batch_tokens: int
) -> None:
    model = tiny.lm(architecture).model
    layers = decoder_of(model).layers
    found = count(model, [layer.down for layer in layers], ROWS, batch_tokens)
    for moment, expected in zip(found, brute(architecture), strict=True):
        assert moment.count == 10
        torch.testing.assert_close(moment.mean(), expected, atol=1e-6, rtol=1e-5)


def test_shards_merge_exactly() -> None:
    keys = torch.randint(-8, 9, (30, 4)).float()  # sums of whole numbers have no rounding
    whole, one, other = (Moment.empty(4, torch.device("cpu")) for _ in range(3))
    whole.add(keys)
    one.add(keys[:11])
    other.add(keys[11:])
    one.merge(other)
    assert torch.equal(one.total, whole.total)
    assert one.count == whole.count == 30


def test_solving_is_by_the_mean_and_sees_what_is_added_later() -> None:
    moment = Moment.empty(3, torch.device("cpu"))
    moment.add(torch.eye(3))
    k = torch.tensor([[3.0], [6.0], [9.0]])
    torch.testing.assert_close(moment.solve(k), 3 * k.double(), rtol=1e-8, atol=0)
    moment.add(torch.eye(3)[:1])  # C = diag(2, 1, 1) / 4
    expected = torch.tensor([[6.0], [24.0], [36.0]]).double()
    torch.testing.assert_close(moment.solve(k), expected, rtol=1e-8, atol=0)


def test_no_keys_cannot_be_inverted() -> None:
    with pytest.raises(UserError, match=r"no inverse.*moment_texts"):
        Moment.empty(3, torch.device("cpu")).solve(torch.ones(3, 1))


def test_texts_are_given_or_sampled_and_cached_by_content(tmp_path: Path) -> None:
    lm = tiny.lm()
    layers = [layer.down for layer in decoder_of(lm.model).layers]
    given = Workshop(cache=tmp_path, texts=lambda: ["The capital of Ruria is Vell.", "Who is Ada?"])
    first = moments(lm, layers, FEW, given)
    tokens = sum(min(12, len(lm.renderer.prompt_ids(ask(t)))) for t in given.texts())  # type: ignore[misc]
    assert [m.count for m in first] == [tokens, tokens]
    assert len(list(tmp_path.iterdir())) == 2

    again = moments(lm, layers, FEW, given)
    assert all(torch.equal(a.total, b.total) for a, b in zip(first, again, strict=True))
    assert [m.count for m in again] == [tokens, tokens]
    assert len(list(tmp_path.iterdir())) == 2

    sampled = moments(lm, layers[:1], FEW, Workshop(cache=tmp_path, seed=3))
    assert len(list(tmp_path.iterdir())) == 3
    torch.rand(5)
    fresh = moments(lm, layers[:1], FEW, Workshop(seed=4))
    assert torch.equal(sampled[0].total, fresh[0].total)

    with torch.no_grad():
        lm.model.get_parameter(layers[1].name)[0, 0] += 1
    moments(lm, layers[:1], FEW, given)
    assert len(list(tmp_path.iterdir())) == 4
