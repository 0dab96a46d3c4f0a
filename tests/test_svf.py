"""SVF: which matrices, their decomposition, factor space against dense arithmetic, and training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from methods.arch import projections
from methods.base import Workshop
from methods.delta import DeltaEdit
from methods.general import general_texts
from methods.hooks import at_rest
from methods.svd import factors_of
from methods.svf import Svf
from methods.svf_edit import Laying, SvfEdit, parts_of
from methods.svf_layers import FactorSpace, scaled
from methods.svf_losses import Example, Row, cross_entropy, policy_gradient, row_of, said, scores
from methods.svf_options import SvfOptions
from methods.svf_train import SvfTrainer
from ske.backends.local import LocalLM
from ske.lm import LM, Chat, Pair, Reply, Sampling, ask
from ske.types import Fact, UserError

PAIRS = [Pair(ask(fact.prompt), fact.target_new) for fact in tiny.FACTS]
SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "rotary_dim": 4,
    "pad_token_id": 0,
}


def make(lm: LM, workshop: Workshop | None = None, **options: Any) -> SvfEdit:
    edit = Svf(options, workshop or Workshop(seed=1)).edit(lm, tiny.FACTS)
    assert isinstance(edit, SvfEdit)
    return edit


def said_by(lm: LM) -> torch.Tensor:
    return torch.tensor([p for scored in lm.logprobs(PAIRS) for p in scored.logprobs])


def random_z(lm: LocalLM, spread: float = 0.3, seed: int = 0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        one.name: 1 + spread * torch.randn(min(one.weight.shape), generator=draw)
        for one in projections(lm.model, "all")
    }


def dense(weight: torch.Tensor, z: torch.Tensor, renormalise: bool) -> torch.Tensor:
    """The formula of the authors' code, written out: [out, in] to [out, in]."""
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    new = u @ torch.diag(s * z) @ vh
    return new * (s.sum() / (s * z).sum()) if renormalise else new


# -- which matrices ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "mlp", "attention", "flipped"),
    [
        ("gpt2", 2, 2, True),
        ("gptj", 2, 4, False),
        ("gpt_neox", 2, 2, False),
        ("llama", 3, 4, False),
        ("mistral", 3, 4, False),
        ("qwen2", 3, 4, False),
        ("qwen3", 3, 4, False),
        ("gemma2", 3, 4, False),
        ("phi", 2, 4, False),
        ("olmo2", 3, 4, False),
    ],
)
def test_projections_are_found_by_structure(
    kind: str, mlp: int, attention: int, flipped: bool
) -> None:
    schema = CONFIG_MAPPING[kind]
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(schema(**SMALL))
    for targets, count in (("mlp", mlp), ("attention", attention), ("all", mlp + attention)):
        found = projections(model, targets)
        assert len(found) == 2 * count
        assert all(one.flipped == flipped for one in found)
        assert all(model.get_parameter(one.name) is one.weight for one in found)
    inner, outer = 24 if "n_embd" not in schema.attribute_map.values() else 64, 16
    shapes = {tuple(one.matrix().shape) for one in projections(model, "mlp")}
    assert shapes == {(inner, outer), (outer, inner)}


def test_quantised_projections_are_refused() -> None:
    lm = tiny.lm()
    module = lm.model.get_submodule("model.layers.0.mlp.up_proj")
    module.weight = torch.nn.Parameter(torch.zeros(3, 3, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(UserError, match=r"up_proj.*uint8.*unquantised"):
        projections(lm.model, "mlp")


# -- decomposition ----------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["qwen3", "gpt2"])
def test_factors_give_the_matrix_back(architecture: str) -> None:
    for one in projections(tiny.lm(architecture).model, "all"):
        u, s, v = factors_of(one)
        out, inner = one.matrix().shape
        assert (u.shape, s.shape, v.shape) == (
            (out, min(out, inner)),
            (min(out, inner),),
            (inner, min(out, inner)),
        )
        assert torch.allclose(u @ torch.diag(s) @ v.T, one.matrix(), atol=1e-5)


def test_a_decomposition_is_read_from_the_cache_and_never_for_another_weight(
    tmp_path: Path,
) -> None:
    lm = tiny.lm()
    one = projections(lm.model, "mlp")[0]
    fresh = factors_of(one)
    assert all(map(torch.equal, fresh, factors_of(one, tmp_path)))
    (file,) = tmp_path.iterdir()
    marked = {name: value + 1 for name, value in load_file(file).items()}
    save_file(marked, file)
    assert torch.equal(factors_of(one, tmp_path).s, fresh.s + 1)
    with torch.no_grad():
        one.weight[0, 0] += 1
    assert not torch.equal(factors_of(one, tmp_path).s, fresh.s + 1)
    assert len(list(tmp_path.iterdir())) == 2


# -- arithmetic -------------------------------------------------------------------------------


def test_renormalisation_by_hand() -> None:
    lm = tiny.lm()
    factors = factors_of(projections(lm.model, "mlp")[0])
    by_hand = factors._replace(s=torch.tensor([3.0, 1.0]))
    z = torch.tensor([0.5, 1.0])
    # s z = (1.5, 1), whose sum is 2.5; c = 4 / 2.5 = 1.6.
    assert scaled(by_hand, z, True).tolist() == pytest.approx([2.4, 1.6])
    assert scaled(by_hand, z, False).tolist() == pytest.approx([1.5, 1.0])


@pytest.mark.parametrize("apply", ["merge", "factors"])
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_z_of_one_is_the_model_itself(architecture: str, apply: Any) -> None:
    lm = tiny.lm(architecture)
    before = said_by(lm)
    ones = {name: torch.ones_like(z) for name, z in random_z(lm).items()}
    with SvfEdit(ones, Laying(apply=apply)).applied(lm) as edited:
        assert torch.allclose(said_by(edited), before, atol=1e-5)
    space = FactorSpace(parts_of(lm.model, "all", None), beside=False)
    with (
        torch.no_grad(),
        space.installed(),
        space.using({n: f.s for n, f in space.factors.items()}),
    ):
        assert torch.allclose(said_by(lm), before, atol=1e-4)


@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize("architecture", ["qwen3", "gpt2"])
def test_every_way_to_lay_z_is_the_dense_formula(architecture: str, renormalise: bool) -> None:
    lm, z = tiny.lm(architecture), random_z(tiny.lm(architecture))
    reference = tiny.lm(architecture)
    for one in projections(reference.model, "all"):
        new = dense(one.matrix(), z[one.name], renormalise)
        with torch.no_grad():
            one.weight.copy_(new.T if one.flipped else new)
    expected, bits = said_by(reference), tiny.bits(lm.model)
    with SvfEdit(z, Laying(renormalise=renormalise)).applied(lm) as edited:
        assert torch.allclose(said_by(edited), expected, atol=1e-4)
        for one in projections(lm.model, "all"):
            assert torch.allclose(one.weight, reference.model.get_parameter(one.name), atol=1e-5)
    with SvfEdit(z, Laying(renormalise=renormalise, apply="factors")).applied(lm) as edited:
        assert tiny.same_bits(bits, tiny.bits(lm.model))
        assert torch.allclose(said_by(edited), expected, atol=1e-4)
    space = FactorSpace(parts_of(lm.model, "all", None), beside=False)
    scales = {name: scaled(f, z[name], renormalise) for name, f in space.factors.items()}
    with space.installed(), space.using(scales):
        assert torch.allclose(said_by(lm), expected, atol=1e-4)
    assert tiny.same_bits(bits, tiny.bits(lm.model))


@pytest.mark.parametrize("architecture", ["qwen3", "gpt2"])
def test_gradients_in_factor_space_are_those_of_the_dense_weights(architecture: str) -> None:
    lm = tiny.lm(architecture)
    z = {n: value.requires_grad_() for n, value in random_z(lm).items() if "mlp" in n}
    rows = [row_of(lm, ask(f.prompt), f.target_new) for f in tiny.FACTS]
    space = FactorSpace(parts_of(lm.model, "mlp", None), beside=False)
    with at_rest(lm.model), space.installed():
        scales = {name: scaled(f, z[name], True) for name, f in space.factors.items()}
        with space.using(scales):
            said(lm, rows).own().sum().backward()
    new = {}
    for one in projections(lm.model, "mlp"):
        matrix = dense(one.matrix(), again := z[one.name].detach().requires_grad_(), True)
        new[one.name] = (matrix.T if one.flipped else matrix, again)
    by_row = []
    for row in rows:
        ids = torch.tensor([row.ids])
        weights = {name: matrix for name, (matrix, _) in new.items()}
        logits = torch.func.functional_call(lm.model, weights, (ids,)).logits[0]
        logprobs = torch.log_softmax(logits, -1)
        by_row += [logprobs[at - 1, row.ids[at]] for at in range(row.start, len(row.ids))]
    torch.stack(by_row).sum().backward()
    assert z.keys() == new.keys()
    for name, (_, again) in new.items():
        assert again.grad is not None and again.grad.abs().max() > 1e-3
        assert torch.allclose(z[name].grad, again.grad, atol=1e-4, rtol=1e-3), name


class Allocations(TorchDispatchMode):
    """The numbers in the largest tensor that an operation made, views left out."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        known = {
            one.untyped_storage().data_ptr()
            for one in torch.utils._pytree.tree_leaves((args, kwargs))
            if isinstance(one, torch.Tensor)
        }
        for one in torch.utils._pytree.tree_leaves(result):
            if isinstance(one, torch.Tensor) and one.untyped_storage().data_ptr() not in known:
                self.largest = max(self.largest, one.numel())
        return result


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_nothing_of_a_weights_size_is_made_in_factor_space(architecture: str, beside: bool) -> None:
    lm = tiny.lm(architecture)
    found = projections(lm.model, "all")
    row = Row([5, 6, 7], 1)
    smallest = min(one.weight.numel() for one in found)
    with at_rest(lm.model):
        space = FactorSpace(parts_of(lm.model, "all", None), beside)
        leaves = {n: f.s.clone().requires_grad_() for n, f in space.factors.items()}
        with space.installed(), space.using(leaves), Allocations() as seen:
            said(lm, [row]).own().sum().backward()
    assert all(leaf.grad is not None for leaf in leaves.values())
    assert 0 < seen.largest < smallest
    # The count does see what dense gradients make.
    with Allocations() as seen:
        said(lm, [row]).own().sum().backward()
    assert seen.largest >= smallest


# -- nests and other models -------------------------------------------------------------------


@pytest.mark.parametrize("inner", ["merge", "factors"])
@pytest.mark.parametrize("outer", ["merge", "factors"])
def test_edits_inside_of_an_svf_edit_count(outer: Any, inner: Any) -> None:
    lm = tiny.lm()
    z, other = random_z(lm), random_z(lm, seed=1)
    name = "model.layers.0.mlp.up_proj.weight"
    delta = DeltaEdit({name: torch.full_like(lm.model.get_parameter(name), 0.05)}, "x")
    with SvfEdit(z, Laying(apply=outer)).applied(lm) as once:
        alone = said_by(once)
        with delta.applied(once) as twice:
            assert (said_by(twice) - alone).abs().max() > 1e-3
        with SvfEdit(other, Laying(apply=inner)).applied(once) as twice:
            assert (said_by(twice) - alone).abs().max() > 1e-3
        assert torch.equal(said_by(once), alone)


def test_an_edit_learns_inside_of_one_in_factor_space() -> None:
    lm = tiny.lm()
    with SvfEdit(random_z(lm), Laying(apply="factors")).applied(lm) as once:
        with make(once, epochs=40, learning_rate=0.05, targets="all").applied(once) as twice:
            learned = said_by(twice)
        assert learned.mean() > said_by(once).mean() + 1


@pytest.mark.parametrize("apply", ["merge", "factors"])
def test_a_few_singular_values_may_be_all_that_is_scaled(apply: Any) -> None:
    lm = tiny.lm()
    found = projections(lm.model, "mlp")
    parts = list(parts_of(lm.model, "mlp", None, rank=5))
    for (one, few), (_, all_) in zip(parts, parts_of(lm.model, "mlp", None), strict=True):
        assert few.u.shape == (one.outputs, 5) and few.v.shape == (one.inputs, 5)
        assert torch.equal(few.s, all_.s[:5])
    edit = make(lm, rank=5, epochs=40, learning_rate=0.05, max_mult=2.0, apply=apply)
    assert [len(value) for value in edit.z.values()] == [5] * len(found)
    before = said_by(lm)
    weights = {one.name: one.matrix().clone() for one in found}
    with edit.applied(lm) as once:
        assert said_by(once).mean() > before.mean() + 0.3
        for one in found if apply == "merge" else ():
            change = torch.linalg.svdvals(one.matrix() - weights[one.name])
            assert change[4] > 1e-4 > change[5]
    # More than there are: all of them, as without the option.
    assert [len(v) for v in make(lm, rank=10**4, epochs=1).z.values()] == [64] * len(found)


def test_an_edit_for_another_model_is_refused() -> None:
    edit = make(tiny.lm("qwen3"), epochs=1)
    with pytest.raises(UserError, match="apply it to the model"), edit.applied(tiny.lm("gpt2")):
        pass
    name = "model.layers.0.mlp.up_proj.weight"
    short = SvfEdit({name: torch.ones(3)}, Laying())
    with pytest.raises(UserError, match=r"3 numbers .* 64"), short.applied(tiny.lm()):
        pass


def test_bf16_models_are_edited_too() -> None:
    lm = tiny.lm()
    lm.model.to(torch.bfloat16)
    bits, before = tiny.bits(lm.model), said_by(lm)
    edit = make(lm, epochs=30, learning_rate=0.05, targets="all")
    assert all(z.dtype == torch.float32 for z in edit.z.values())
    for apply in ("merge", "factors"):
        with SvfEdit(edit.z, Laying(apply=apply)).applied(lm) as edited:
            assert said_by(edited).mean() > before.mean() + 1
    assert tiny.same_bits(bits, tiny.bits(lm.model))


# -- the editor -------------------------------------------------------------------------------


def test_the_file_holds_z_and_nothing_else(tmp_path: Path) -> None:
    lm = tiny.lm()
    make(lm, epochs=1, targets="all").save(tmp_path)
    saved = load_file(tmp_path / "edit.safetensors")
    found = projections(lm.model, "all")
    assert sum(z.numel() for z in saved.values()) == sum(min(one.weight.shape) for one in found)
    assert {name: z.shape for name, z in saved.items()} == {
        one.name: (min(one.weight.shape),) for one in found
    }
    again = SvfEdit.load(tmp_path)
    assert again.facts["seed"] == 1
    assert again.facts["options"]["targets"] == "all"


def test_facts_are_learned_by_cross_entropy() -> None:
    lm = tiny.lm()
    edit = make(lm, epochs=150, learning_rate=0.1, targets="all", stop_below=0.05)
    with edit.applied(lm) as edited:
        replies = edited.generate([ask(f.prompt) for f in tiny.FACTS], Sampling(max_new_tokens=16))
    assert [reply.text for reply in replies] == [f.target_new for f in tiny.FACTS]


def test_training_starts_at_the_model_itself_without_renormalising_too() -> None:
    lm = tiny.lm()
    options = {"init_noise": 0, "learning_rate": 1e-12, "epochs": 1}
    for more in ({}, {"renormalise": False, "max_mult": 2.0}, {"init": 1.5, "max_mult": 3.0}):
        with make(lm, **options, **more).applied(lm) as edited:
            assert torch.allclose(said_by(edited), said_by(tiny.lm()), atol=1e-4)
    z = make(lm, **options).z["model.layers.0.mlp.up_proj.weight"]
    assert torch.allclose(z, torch.tensor(1 / (1 + math.exp(-0.1))))
    with pytest.raises(UserError, match=r"svf\.renormalise = False.*max_mult"):
        make(lm, renormalise=False)


def test_a_killed_training_goes_on_with_the_same_result(tmp_path: Path) -> None:
    lm = tiny.lm()
    options = {"epochs": 12, "learning_rate": 0.02, "check_every": 3, "batch_size": 2}
    whole = make(lm, Workshop(seed=1), **options)

    class Killed(Exception):
        pass

    def kill(step: int, total: int, loss: float) -> None:
        if step == 14:
            raise Killed

    with pytest.raises(Killed):
        make(lm, Workshop(seed=1, folder=tmp_path, progress=kill), **options)
    steps: list[int] = []
    workshop = Workshop(seed=1, folder=tmp_path, progress=lambda s, t, loss: steps.append(s))
    resumed = make(lm, workshop, **options)
    assert steps[0] == 13
    assert all(torch.equal(whole.z[name], resumed.z[name]) for name in whole.z)


def trainer(lm: LocalLM, space: FactorSpace, workshop: Workshop, **options: Any) -> SvfTrainer:
    return SvfTrainer(space, lm, SvfOptions(**options), workshop)


def test_the_best_z_is_kept_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny.lm()
    given = iter([(0.3, -5.0), (0.6, -4.0), (0.6, -3.0), (0.6, -3.5), (0.5, -1.0)])
    monkeypatch.setattr("methods.svf_train.scores", lambda *args: next(given))
    short = {"learning_rate": 0.05, "check_every": 1}
    kept = make(lm, epochs=5, **short).z
    # A training of three steps whose scores rise keeps its last.
    given = iter([(0.1, -5.0), (0.2, -5.0), (0.3, -5.0)])
    third = make(lm, epochs=3, **short).z
    assert all(torch.equal(kept[name], third[name]) for name in kept)


def test_held_back_facts_are_not_learned() -> None:
    lm = tiny.lm()
    examples = [Example(ask(f.prompt), f.target_new) for f in tiny.FACTS]
    space = FactorSpace(parts_of(lm.model, "mlp", None), beside=False)
    one = trainer(lm, space, Workshop(), held_back=0.34)
    learned, checked = one._split(examples)
    assert (len(learned), len(checked)) == (2, 1)
    rows = [row_of(lm, *example) for example in learned]
    assert checked[0] not in rows
    assert len(trainer(lm, space, Workshop(), held_back=0.99)._split(examples)[0]) == 1


def test_training_ends_when_the_loss_is_small_enough() -> None:
    steps: list[float] = []
    workshop = Workshop(seed=1, progress=lambda step, total, loss: steps.append(loss))
    make(tiny.lm(), workshop, epochs=200, learning_rate=0.05, targets="all", stop_below=2.0)
    assert len(steps) < 200
    assert steps[-1] < 2.0 <= min(steps[:-1])


def test_the_kl_term_holds_the_model_to_itself() -> None:
    lm = tiny.lm()
    texts = ["Who is the head of state of Ruria?", "The employer of Bela Cole is Acme Works."]
    rows = [row_of(lm, ask(""), text, end=False) for text in texts]
    base = torch.cat([said(lm, [row]).logprobs for row in rows]).detach()
    drift = []
    for weight in (0.0, 10.0):
        edit = make(
            lm,
            Workshop(seed=1, texts=lambda: texts),
            epochs=30,
            learning_rate=0.05,
            kl_weight=weight,
        )
        with edit.applied(lm), torch.no_grad():
            now = torch.cat([said(lm, [row]).logprobs for row in rows])
        drift.append((base.exp() * (base - now)).sum(-1).mean().item())
    assert drift[1] < drift[0] / 3


def test_losses_do_not_depend_on_how_rows_are_cut_to_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lm = tiny.lm()
    rows = [row_of(lm, ask(f.prompt), f.target_new) for f in tiny.FACTS]
    whole, score = sum(piece.item() for piece in cross_entropy(lm, rows)), scores(lm, rows)
    alone = [-said(lm, [row]).own() for row in rows]
    assert whole == pytest.approx(torch.cat(alone).mean().item(), rel=1e-5)
    for limit, value in (("TOKENS", 1), ("LOGITS", 10 * lm.model.config.vocab_size)):
        with monkeypatch.context() as patch:
            patch.setattr(f"methods.svf_losses.{limit}", value)
            cut = list(cross_entropy(lm, rows))
            assert len(cut) > 1
            assert sum(piece.item() for piece in cut) == pytest.approx(whole, rel=1e-5)
            assert scores(lm, rows) == pytest.approx(score, rel=1e-5)


def test_general_texts_are_given_or_drawn_from_the_model() -> None:
    lm = tiny.lm()
    given = Workshop(texts=lambda: ["one", "two", "three"])
    assert list(general_texts(lm, given, 2, "svf")) == ["one", "two"]
    drawn = general_texts(lm, Workshop(seed=3), 4, "svf")
    assert 1 <= len(drawn) <= 4
    torch.rand(3)
    assert general_texts(lm, Workshop(seed=3), 4, "svf") == drawn
    space = FactorSpace(parts_of(lm.model, "mlp", None), beside=False)
    rows = trainer(lm, space, given, kl_weight=1.0)._general()
    assert [lm.renderer.decode(row.ids[row.start :]) for row in rows] == ["one", "two", "three"]


# -- REINFORCE --------------------------------------------------------------------------------


def test_the_policy_gradient_by_hand() -> None:
    lm = tiny.lm()
    rows = [row_of(lm, ask(f.prompt), f.target_new) for f in tiny.FACTS[:2]]
    one, two = (said(lm, [row]).own().sum().item() for row in rows)
    space = FactorSpace(parts_of(lm.model, "mlp", None), beside=False)
    rewarded = [rows[0]._replace(reward=1.0), rows[1]._replace(reward=-1.0)]
    with space.installed(), space.using({n: f.s for n, f in space.factors.items()}):
        loss = sum(piece.item() for piece in policy_gradient(lm, space, rewarded, 0.0))
        with_kl = sum(piece.item() for piece in policy_gradient(lm, space, rewarded, 5.0))
    assert loss == pytest.approx((two - one) / 2, rel=1e-4)
    assert with_kl == pytest.approx(loss, abs=1e-2)  # z = 1: nothing has drifted yet


class Sampler(LocalLM):
    """Replies with one of few texts, as the model would: a toy that one can add up."""

    CHOICES = ("Vell", "London", "Acme")

    def sure(self, chats: Sequence[Chat]) -> torch.Tensor:
        """The probability of each choice, [chats, choices]."""
        rows = [row_of(self, chat, text) for chat in chats for text in self.CHOICES]
        with torch.no_grad():
            now = said(self, rows)
        sums = torch.zeros(len(rows)).index_add(0, now.row, now.own())
        return sums.reshape(len(chats), -1).softmax(1)

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Reply]:
        draw = torch.Generator().manual_seed(sampling.seed)
        drawn = torch.multinomial(self.sure(chats), 1, generator=draw)[:, 0].tolist()
        return [Reply(self.CHOICES[i], 1, 1, True) for i in drawn]


@pytest.mark.parametrize("more", [{}, {"kl_weight": 0.01, "normalise_rewards": True}])
def test_reinforce_raises_the_reward_of_a_toy(more: dict[str, Any]) -> None:
    plain = tiny.lm()
    lm = Sampler(plain.model, plain.tokenizer)
    prompts = ("The capital of Ruria is", "Who is Ada?", "The employer of Bela Cole is")
    chats = [ask(prompt) for prompt in prompts]
    # The second likeliest choice: one that is said now and then, but not most often.
    wanted = lm.sure(chats).argsort(1)[:, 1].tolist()
    facts = [
        Fact(id=str(i), subject="x", prompt=prompt, target_new=lm.CHOICES[choice])
        for i, (prompt, choice) in enumerate(zip(prompts, wanted, strict=True))
    ]
    reward = lambda: sum(lm.sure(chats)[i, c].item() for i, c in enumerate(wanted)) / 3  # noqa: E731
    before, bits = reward(), tiny.bits(lm.model)
    options = {"objective": "reinforce", "epochs": 30, "learning_rate": 0.05, "targets": "all"}
    edit = Svf({**options, **more}, Workshop(seed=1)).edit(lm, facts)
    with edit.applied(lm):
        assert reward() > before + 0.2
    assert tiny.same_bits(bits, tiny.bits(lm.model))


def test_replies_are_rewarded_by_exact_match_and_cut_ones_have_no_end() -> None:
    lm = tiny.lm()
    reply = lm.generate([ask("The capital of Ruria is")], Sampling(max_new_tokens=2))[0]
    right, wrong = (Example(ask("The capital of Ruria is"), t) for t in (reply.text, "London"))

    class Echo(LocalLM):
        def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Reply]:
            return [Reply(reply.text, 1, 2, False), Reply(" " + reply.text, 1, 2, True)]

    echo = Echo(lm.model, lm.tokenizer)
    space = FactorSpace(parts_of(lm.model, "mlp", None), beside=False)
    rows = trainer(echo, space, Workshop())._sampled([right, wrong])
    assert [row.reward for row in rows] == [1.0, -1.0]
    end = lm.renderer.end_id
    assert (rows[0].ids[-1] == end, rows[1].ids[-1] == end) == (False, True)
