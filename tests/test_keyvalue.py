"""The mathematics of ROME, R-ROME, MEMIT and AlphaEdit on small random models."""

from typing import Any

import pytest
import tiny
import torch
from transformers import GPT2LMHeadModel

from bench.plain import change
from methods import values
from methods.alphaedit import AlphaEdit, AlphaEditOptions, NullSpace, null_space
from methods.arch import decoder_of
from methods.base import Workshop
from methods.below import below, read
from methods.delta import LowRank
from methods.keyvalue import (
    KeyValueOptions,
    as_delta,
    contexts_of,
    keys_and_values,
    query,
    said_at,
)
from methods.memit import LeastSquares, Memit
from methods.moments import Moment
from methods.rome import Rome, RRome
from methods.values import changes
from ske.backends.local import LocalLM
from ske.lm import Pair, ask
from ske.types import Fact, UserError

SMALL: dict[str, Any] = {
    "templates": ("Yes. {}", "Because of this. {}"),
    "steps": 6,
    "moment_texts": 32,
    "moment_tokens": 16,
}
TWINS = (
    *tiny.FACTS,
    Fact(id="f4", subject="Ruria", prompt="The head of state of Ruria is", target_new="Ada Byron"),
)


def double(architecture: str = "qwen3", chat: bool = False) -> LocalLM:
    lm = tiny.lm(architecture, chat=chat)
    lm.model.double()
    return lm


def dense(edit: Any, name: str) -> torch.Tensor:
    delta = edit.deltas[name]
    return delta.dense() if isinstance(delta, LowRank) else delta


def random_moment(width: int = 8, seed: int = 0) -> Moment:
    seeded = torch.Generator().manual_seed(seed)
    moment = Moment.empty(width, torch.device("cpu"))
    moment.add(torch.randn(50, width, generator=seeded) * torch.linspace(0.05, 2, width))
    return moment


# -- values ---------------------------------------------------------------------------------------


def test_facts_optimised_together_are_what_they_are_alone() -> None:
    """Also when one stops early, one is clamped, and their lengths differ."""
    lm = double()
    module = decoder_of(lm.model).layers[0].mlp
    contexts = contexts_of(lm, SMALL["templates"][:1], (), 0)
    queries = [query(lm, fact, contexts, end=True) for fact in TWINS]
    before = torch.randn(4, 64, generator=torch.Generator().manual_seed(0)).double()
    before[1] *= 0.1
    options = KeyValueOptions(
        steps=12, learning_rate=1.0, clamp=2.0, stop_loss=6.6, weight_decay=0.1
    )

    seen: list[tuple[int, float]] = []
    note = lambda step, total, loss: seen.append((step, loss))  # noqa: E731
    together = changes(lm, module, before, queries, options, note)
    steps = []
    for number, one in enumerate(queries):
        seen.clear()
        alone = changes(lm, module, before[number : number + 1], [one], options, note)
        torch.testing.assert_close(together[number], alone[0], atol=1e-8, rtol=1e-8)
        steps.append(seen[-1][0])
    assert len(set(steps)) > 1  # they did not all stop at the same step
    norms = together.norm(dim=1) / before.norm(dim=1)
    assert norms.max() <= 2 + 1e-9
    assert (norms > 2 - 1e-6).any()
    in_pieces = changes(lm, module, before, queries, options.model_copy(update={"batch_tokens": 1}))
    torch.testing.assert_close(together, in_pieces, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_whole_forward_passes_fact_by_fact_give_the_same_values(architecture: str) -> None:
    """The reference that `bench.values` measures against: nothing is shared there."""
    lm = double(architecture)
    module = decoder_of(lm.model).layers[0].block
    queries = [query(lm, fact, ["{}", "Yes. {}"], end=True) for fact in TWINS]
    before = torch.ones(4, 64).double()
    options = KeyValueOptions(steps=6, clamp=0.5, stop_loss=6.0)
    plain = [change(lm, module, before[i], one, options) for i, one in enumerate(queries)]
    found = changes(lm, module, before, queries, options)
    # Steps of Adam enlarge what rounds otherwise in a batch.
    torch.testing.assert_close(torch.stack(plain), found, atol=1e-6, rtol=1e-5)
    assert found.norm(dim=1).max() > 0.1


@pytest.mark.parametrize("architecture", [*tiny.ARCHITECTURES, *tiny.MORE_ARCHITECTURES])
def test_reading_what_comes_before_a_subject_once_changes_nothing(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for a subject that a prompt begins with, before which there is nothing."""
    lm = double(architecture)
    module = decoder_of(lm.model).layers[0].block
    first = Fact(id="f5", subject="R", prompt="Ruria lies in", target_new="Acme Works")
    queries = [query(lm, fact, ["{}", "Yes. {}"], end=True) for fact in (*TWINS, first)]
    places = {row.place for one in queries for row in one.rows}
    assert min(places) <= 1  # behind a begin token, if the tokenizer writes one
    before = torch.ones(5, 64).double()
    options = KeyValueOptions(steps=4, stop_loss=6.0)
    found = changes(lm, module, before, queries, options)
    nothing = lambda holder, rows: values._Before([], [0] * len(rows))  # noqa: E731
    monkeypatch.setattr(values, "_read", nothing)
    whole = changes(lm, module, before, queries, options)
    torch.testing.assert_close(found, whole, atol=1e-8, rtol=1e-8)
    assert found.norm(dim=1).max() > 0.1


@pytest.mark.parametrize("whole_layer", [True, False])
@pytest.mark.parametrize("architecture", [*tiny.ARCHITECTURES, *tiny.MORE_ARCHITECTURES])
def test_running_the_layers_below_a_change_once_changes_nothing(
    architecture: str, whole_layer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = double(architecture)
    layers = decoder_of(lm.model).layers
    module = layers[0].block if whole_layer else layers[1].mlp
    queries = [query(lm, fact, ["{}", "Yes. {}"], end=True) for fact in TWINS]
    before = torch.ones(4, 64).double()
    options = KeyValueOptions(steps=6, stop_loss=6.0)
    runs: list[int] = []
    handle = layers[0].attention.register_forward_hook(lambda *_: runs.append(1))
    found = changes(lm, module, before, queries, options)
    seldom = len(runs)
    monkeypatch.setattr(values, "read", lambda blocks, run: None)
    whole = changes(lm, module, before, queries, options)
    handle.remove()
    torch.testing.assert_close(found, whole, atol=1e-8, rtol=1e-8)
    assert found.norm(dim=1).max() > 0.1
    # What precedes the subject, and what the first layer says: not again in any of the six steps.
    assert seldom == 2 < len(runs) - seldom
    assert "forward" not in vars(layers[0].block)


def test_a_model_that_hands_on_more_than_hidden_states_is_run_as_a_whole() -> None:
    lm = tiny.lm()
    blocks = below(lm.model, decoder_of(lm.model).layers[1].mlp)
    assert len(blocks) == 1
    ids = torch.tensor([[5, 6, 7]])
    aside: list[torch.Tensor] = []
    blocks[0].register_forward_pre_hook(lambda _, args: aside.append(args[0].detach()))
    careful = lambda: lm.model(input_ids=ids, use_cache=False).logits[0]  # noqa: E731
    assert read(blocks, careful) is not None
    # What a layer says depends on how often it was run: the second time there is something new.
    careless = lambda: careful() + len(aside)  # noqa: E731
    assert read(blocks, careless) is None
    assert below(lm.model, decoder_of(lm.model).layers[0].mlp) == []
    assert read([], careful) is None


def test_the_first_step_has_no_change_in_its_loss() -> None:
    """One context, one step: the loss is the target's mean negative log-probability."""
    lm = tiny.lm()
    one = query(lm, tiny.FACTS[0], ["{}"], end=True)
    row = one.rows[0]
    (scored,) = lm.score([row.prompt], [row.answer])
    seen: list[float] = []
    layer = decoder_of(lm.model).layers[0]
    change = changes(
        lm,
        layer.mlp,
        torch.ones(1, 64),
        [one],
        KeyValueOptions(steps=1),
        lambda step, total, loss: seen.append(loss),
    )
    assert seen == pytest.approx([-sum(scored.logprobs) / len(scored.logprobs)], rel=1e-5)
    assert torch.equal(change, torch.zeros(1, 64))


def test_a_fact_without_a_target_is_refused() -> None:
    fact = tiny.FACTS[0].model_copy(update={"target_new": ""})
    with pytest.raises(UserError, match="target_new"):
        Rome(SMALL, Workshop()).edit(tiny.lm(), [fact])


def test_the_end_token_is_part_of_the_target_if_wanted() -> None:
    lm = tiny.lm()
    with_end, without = (
        query(lm, tiny.FACTS[0], ["{}"], end).rows[0].answer for end in (True, False)
    )
    assert with_end == [*without, lm.renderer.end_id]


# -- contexts -------------------------------------------------------------------------------------


def test_contexts_are_written_by_the_model_and_follow_the_seed() -> None:
    lm = tiny.lm()
    written = (("", 5, 3), ("The", 10, 1))
    first = contexts_of(lm, None, written, seed=1)
    torch.rand(7)
    assert first == contexts_of(lm, None, written, seed=1)
    assert first != contexts_of(lm, None, written, seed=2)
    assert first[0] == "{}"
    assert len(first) == 5
    assert first[-1].startswith("The")
    assert all(context.count("{}") == 1 for context in first)


def test_templates_must_have_a_place_for_the_prompt() -> None:
    with pytest.raises(UserError, match="'no place'"):
        Rome({"templates": ["no place"]}, Workshop()).edit(tiny.lm(), tiny.FACTS)


# -- ROME and R-ROME ------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_r_rome_says_the_wanted_value_for_the_mean_key(architecture: str) -> None:
    """W k* = v* after the edit; ROME's W k = v* holds for the bare prompt's key."""
    lm = double(architecture)
    layer = decoder_of(lm.model).layers[0]
    contexts = contexts_of(lm, SMALL["templates"], (), 0)
    one = query(lm, tiny.FACTS[1], contexts, end=True)
    keys, values = (x[0] for x in keys_and_values(lm, layer.down, [one], 8192))
    for editor in (RRome(SMALL, Workshop()), Rome(SMALL, Workshop())):
        wanted = values[0] + changes(lm, layer.mlp, values[:1], [one], editor.options)[0]
        edit = editor.edit(lm, [tiny.FACTS[1]])
        assert isinstance(edit.deltas[layer.down.name], LowRank)
        update = layer.down.oriented(dense(edit, layer.down.name).double())
        assert torch.linalg.matrix_rank(update, rtol=1e-5) == 1
        key, value = (keys.mean(0), values.mean(0)) if editor.same_key else (keys[0], values[0])
        torch.testing.assert_close(value + update @ key, wanted, atol=1e-5, rtol=1e-5)


def test_rome_edits_facts_one_after_the_other() -> None:
    lm = double()
    name = decoder_of(lm.model).layers[0].down.name
    workshop = Workshop(texts=lambda: tiny.TEXT)
    both = Rome(SMALL, workshop).edit(lm, tiny.FACTS[:2])
    first = Rome(SMALL, workshop).edit(lm, tiny.FACTS[:1])
    delta = both.deltas[name]
    assert isinstance(delta, LowRank)
    torch.testing.assert_close(delta.up[:, :1] @ delta.down[:1], dense(first, name))
    alone = Rome(SMALL, workshop).edit(lm, tiny.FACTS[1:2])
    assert not torch.allclose(delta.up[:, 1:] @ delta.down[1:], dense(alone, name))


# -- MEMIT ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("editor", [Rome, RRome])
@pytest.mark.parametrize("layers", [None, (0, 1)])
def test_many_facts_own_edits_are_those_made_one_by_one(
    editor: type[Rome], layers: tuple[int, ...] | None
) -> None:
    lm = double()
    before = tiny.bits(lm.model)
    made = editor(SMALL | {"layers": layers}, Workshop())
    noted: list[list[str]] = [[] for _ in TWINS]
    told = [lambda kind, texts, own=own: own.extend(texts) for own in noted]
    edits = made.alone(lm, TWINS, told)
    assert tiny.same_bits(before, tiny.bits(lm.model))
    assert [fact.subject in " ".join(own) for fact, own in zip(TWINS, noted, strict=True)] == [
        True
    ] * len(TWINS)
    for fact, edit in zip(TWINS, edits, strict=True):
        alone = made.edit(lm, [fact])
        assert edit.deltas.keys() == alone.deltas.keys()
        for name in edit.deltas:
            assert torch.allclose(dense(edit, name), dense(alone, name), atol=1e-5)


def test_memits_factor_is_the_closed_form() -> None:
    moment, weight = random_moment(), 3.0
    keys = torch.randn(5, 8, generator=torch.Generator().manual_seed(1)).double()
    keys[4] = keys[0]  # the same subject twice
    system = weight * moment.mean() + keys.T @ keys
    expected = torch.linalg.solve(system, keys.T).T
    found = LeastSquares(moment, weight).lefts(keys)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


def test_more_facts_than_a_key_is_wide_give_the_same_update() -> None:
    """The system is then solved in the width of the keys; so is AlphaEdit's in its directions."""
    draw = torch.Generator().manual_seed(2)
    moment, keys = random_moment(), torch.randn(20, 8, generator=draw).double()
    system = 3.0 * moment.mean() + keys.T @ keys
    found = LeastSquares(moment, 3.0).lefts(keys)
    torch.testing.assert_close(found, torch.linalg.solve(system, keys.T).T, rtol=1e-7, atol=1e-9)
    basis = torch.linalg.qr(torch.randn(8, 5, generator=draw).double()).Q
    p, solver = basis @ basis.T, NullSpace(basis, 0.5)
    for first in range(0, 20, 4):  # Remembered keys outgrow the directions, too.
        own = keys[first : first + 4]
        seen = keys[: first + 4]
        system = p @ seen.T @ seen + 0.5 * torch.eye(8).double()
        expected = torch.linalg.solve(system, p @ own.T).T
        torch.testing.assert_close(solver.lefts(own), expected, rtol=1e-7, atol=1e-9)
        solver.remember(own)
        assert len(solver.earlier) <= 5


def test_memit_does_not_depend_on_the_order_of_a_batch() -> None:
    lm = double()
    options = {**SMALL, "layers": (0, 1), "moment_weight": 1.0}
    one = Memit(options, Workshop()).edit(lm, TWINS)
    other = Memit(options, Workshop()).edit(lm, TWINS[::-1])
    for name in one.deltas:
        torch.testing.assert_close(dense(one, name), dense(other, name), atol=1e-6, rtol=1e-4)


def test_memit_reaches_its_states_if_nothing_weighs_against_them() -> None:
    """Distinct subjects: with lambda -> 0, the last layer closes what is left of the gap."""
    lm = double("gpt2")
    layer = decoder_of(lm.model).layers[1]
    editor = Memit({**SMALL, "layers": (0, 1), "moment_weight": 1e-9, "templates": ()}, Workshop())
    queries = [query(lm, fact, ["{}"], end=True) for fact in tiny.FACTS]
    before = said_at(lm, layer.block, queries, 8192)
    wanted = before + changes(lm, layer.block, before, queries, editor.options)
    with editor.edit(lm, tiny.FACTS).applied(lm):
        torch.testing.assert_close(
            said_at(lm, layer.block, queries, 8192), wanted, atol=1e-3, rtol=1e-3
        )
    assert (wanted - before).norm() > 1


def test_a_huge_lambda_leaves_everything_as_it_was() -> None:
    edit = Memit({**SMALL, "moment_weight": 1e15}, Workshop()).edit(tiny.lm(), tiny.FACTS[:1])
    assert all(dense(edit, name).abs().max() < 1e-6 for name in edit.deltas)


def test_batches_of_facts_are_edited_one_after_the_other() -> None:
    lm = double()
    options = {**SMALL, "moment_weight": 1.0}
    whole = Memit({**options, "batch_facts": 2}, Workshop()).edit(lm, TWINS)
    (name,) = whole.deltas
    first = Memit(options, Workshop()).edit(lm, TWINS[:2])
    delta = whole.deltas[name]
    assert isinstance(delta, LowRank)
    torch.testing.assert_close(delta.up[:, :2] @ delta.down[:2], dense(first, name))
    alone = Memit(options, Workshop()).edit(lm, TWINS[2:])
    assert not torch.allclose(delta.up[:, 2:] @ delta.down[2:], dense(alone, name))


# -- AlphaEdit ------------------------------------------------------------------------------------


def test_alphaedits_updates_leave_preserved_keys_alone() -> None:
    """Keys that span half of the space: whatever is written, W k stays for each of them."""
    kept = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)) @ torch.eye(8)[:4]
    moment = Moment.empty(8, torch.device("cpu"))
    moment.add(kept)
    basis = null_space(moment, AlphaEditOptions(), "a layer")
    assert basis.shape == (8, 4)
    lefts = NullSpace(basis, 0.1).lefts(torch.randn(3, 8))
    assert lefts.norm() > 0.1
    assert (lefts @ kept.T.double()).abs().max() < 1e-10


def test_alphaedit_takes_directions_by_threshold_or_share() -> None:
    moment = Moment(torch.diag(torch.tensor([4.0, 1.0, 0.25, 0.0])).double(), 1)
    assert null_space(moment, AlphaEditOptions(threshold=1.0), "x").shape == (4, 2)
    found = null_space(moment, AlphaEditOptions(free_share=0.75), "x")
    assert found.shape == (4, 3)
    assert found[0].abs().max() == 0
    with pytest.raises(UserError, match=r"a\.layer.*threshold = 0\.02.*least 1.*free_share"):
        null_space(Moment(torch.eye(4).double(), 1), AlphaEditOptions(), "a.layer")


def test_alphaedit_keeps_what_earlier_batches_wrote() -> None:
    keys = torch.randn(2, 6, generator=torch.Generator().manual_seed(3)).double()
    solver = NullSpace(torch.eye(6).double(), 1e-6)
    free = solver.lefts(keys[1:])
    solver.remember(keys[:1])
    careful = solver.lefts(keys[1:])
    assert (free @ keys[0]).abs() > 0.05
    assert (careful @ keys[0]).abs() < 1e-5
    assert (careful @ keys[1]).item() == pytest.approx(1, abs=1e-4)


# -- form -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("editor", [Rome, AlphaEdit])
def test_conv1d_is_a_transposed_linear(editor: type[Rome] | type[AlphaEdit]) -> None:
    """The same GPT-2 with its MLP projections as Linear gets the same update, transposed."""
    lm, other = double("gpt2"), double("gpt2")
    model: Any = other.model
    assert isinstance(model, GPT2LMHeadModel)
    for block in model.transformer.h:
        old: Any = block.mlp.c_proj
        new = torch.nn.Linear(*old.weight.shape).double()
        with torch.no_grad():
            new.weight.copy_(old.weight.T)
            new.bias.copy_(old.bias)
        block.mlp.c_proj = new
    options = {**SMALL, **({"free_share": 0.5} if editor is AlphaEdit else {})}
    edits = [editor(options, Workshop()).edit(x, TWINS) for x in (lm, other)]
    for name in edits[0].deltas:
        one, two = (dense(edit, name) for edit in edits)
        torch.testing.assert_close(one, two.T, atol=1e-6, rtol=1e-5)


def test_an_update_is_thin_only_where_that_is_smaller() -> None:
    projection = decoder_of(tiny.lm("gpt2").model).layers[0].down  # [256, 64]
    for n, kind in ((3, LowRank), (51, LowRank), (52, torch.Tensor)):
        rights, lefts = torch.randn(n, 64), torch.randn(n, 256)
        delta = as_delta(projection, rights, lefts)
        assert isinstance(delta, kind)
        full = delta.dense() if isinstance(delta, LowRank) else delta
        torch.testing.assert_close(full, (rights.T @ lefts).T)


@pytest.mark.parametrize("editor", [Rome, Memit])
def test_chat_models_are_edited_as_they_are_asked(editor: type[Rome] | type[Memit]) -> None:
    lm = tiny.lm(chat=True)
    one = query(lm, tiny.FACTS[1], ["{}", "Yes. {}"], end=True)
    said = lm.renderer.tokenizer.decode(one.rows[1].beginning)
    assert isinstance(said, str)
    assert said.endswith("Yes. The place of birth of Ada Byron")
    assert said.startswith("<|im_start|>user")
    options = {**SMALL, "steps": 20, "moment_weight": 1.0, "end": False}
    if editor is Rome:
        del options["moment_weight"]
    pair = Pair(ask(tiny.FACTS[1].prompt), tiny.FACTS[1].target_new)
    before = sum(lm.logprobs([pair])[0].logprobs)
    with editor(options, Workshop()).edit(lm, [tiny.FACTS[1]]).applied(lm) as edited:
        assert sum(edited.logprobs([pair])[0].logprobs) > before + 1


def test_no_facts_make_no_edit() -> None:
    for editor in (Rome, Memit):
        assert editor(SMALL, Workshop()).edit(tiny.lm(), []).deltas == {}
