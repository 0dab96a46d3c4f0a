"""One contract for every method on every architecture; nothing here knows which method it tests."""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from methods.base import Edit, Lesson, Practice, Workshop, Wraps, weights_of
from methods.delta import DeltaEdit, LowRank
from methods.prompt import PromptEdit
from methods.table import METHODS, build, load_edit
from ske.backends.local import LocalLM
from ske.lm import LM, Chat, Pair, Reply, Sampling, Scored, ask
from ske.types import Fact, MissingExtra, UserError

FEW: tuple[dict[str, Any], ...] = (
    {"epochs": 2, "learning_rate": 0.05, "max_new_tokens": 3, "tries": 2},
    {"epochs": 2, "learning_rate": 0.05, "max_new_tokens": 3},
    {"epochs": 2, "learning_rate": 0.05},
    {"demonstrations": 2},
    {"steps": 3, "moment_texts": 16, "moment_tokens": 16, "free_share": 0.5},
    {"steps": 3, "moment_texts": 16, "moment_tokens": 16},
    {},
)
"""The first that a method knows is taken. Training: hardly any steps, and large ones; prompts: such
as fit into a tiny model's context window, also one before the other."""
PAIRS = [Pair(ask(fact.prompt), fact.target_new) for fact in tiny.FACTS]
EVERYWHERE = ("rome", "memit", "alphaedit", "lora")
"""One method of each way to look into a model's modules: these meet more architectures."""
CASES = [
    *((name, architecture) for name in METHODS for architecture in tiny.ARCHITECTURES),
    *((name, architecture) for name in EVERYWHERE for architecture in tiny.MORE_ARCHITECTURES),
]


OUTER = ("prompt", "lora", "svf")
"""One method of each form that an edit has; all others take one of these."""


class Shouting:
    """An `LM` without weights."""

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Reply]:
        return [Reply(chat[-1]["content"].upper(), 1, 1, True) for chat in chats]

    def logprobs(self, pairs: Sequence[Pair], top_k: int = 0) -> list[Scored]:
        return [Scored([], [], [], [], []) for _ in pairs]


def lessons() -> list[Lesson]:
    return [Lesson(chat=ask(f.prompt), completion=f.target_new, fact=f.id) for f in tiny.FACTS]


def practice() -> list[Practice]:
    return [
        Practice(
            fact=Fact(
                id=f"p{number}",
                subject=name,
                prompt=f"The employer of {name} is",
                target_new="Acme Works",
            ),
            paraphrases=(f"{name} works for",),
            unrelated=((f"The place of birth of {name} is", "London"),),
        )
        for number, name in enumerate(("Cole Ade", "Dora Eld", "Emil Fay"))
    ]


def make(name: str, lm: LM, facts: Sequence[Fact] = tiny.FACTS) -> Edit:
    workshop = Workshop(seed=1, lessons=lessons, practice=practice)
    for options in FEW:
        try:
            return build(name, options, workshop).edit(lm, facts)
        except MissingExtra as error:
            pytest.skip(str(error))
        except UserError as error:
            if "known options" not in str(error):
                raise
    raise AssertionError(f"{name} knows not even no options")


def snapshot(lm: LocalLM) -> dict[str, Any]:
    """All of a model that an editor might leave changed, but its weights."""
    model, tokens = lm.model, lm.tokenizer
    return {
        "modules": [(name, id(module)) for name, module in model.named_modules()],
        "attributes": {
            (name, key)
            for name, module in model.named_modules()
            for key in module.__dict__
            if not key.startswith("__")
        },
        "flags": {name: (p.requires_grad, p.grad) for name, p in model.named_parameters()},
        "training": [module.training for module in model.modules()],
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
            for m in model.modules()
        ],
        "config": model.config.to_dict(),
        "generation": model.generation_config.to_dict() if model.generation_config else None,
        "tokenizer": (tokens.pad_token, tokens.eos_token, tokens.padding_side, len(tokens)),
        "grad enabled": torch.is_grad_enabled(),
    }


def said(lm: LM) -> list[list[float]]:
    return [scored.logprobs for scored in lm.logprobs(PAIRS)]


def close(one: list[list[float]], other: list[list[float]], atol: float = 1e-5) -> bool:
    return all(a == pytest.approx(b, abs=atol) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("name", "architecture"), CASES)
def test_contract(name: str, architecture: str, tmp_path: Path) -> None:
    lm = tiny.lm(architecture)
    bits, rest, before = tiny.bits(lm.model), snapshot(lm), said(lm)

    edit = make(name, lm)
    assert tiny.same_bits(bits, tiny.bits(lm.model))
    assert snapshot(lm) == rest

    with edit.applied(lm) as edited:
        assert isinstance(edited, LM)
        assert (said(edited) == before) == (name == "base")
        changed = not tiny.same_bits(bits, tiny.bits(lm.model))
        assert changed or isinstance(edited, Wraps) or name == "base"
        after = said(edited)
    assert tiny.same_bits(bits, tiny.bits(lm.model))
    assert snapshot(lm) == rest
    assert said(lm) == before

    with pytest.raises(ZeroDivisionError), edit.applied(lm):
        raise ZeroDivisionError
    assert tiny.same_bits(bits, tiny.bits(lm.model))

    assert isinstance(edit, DeltaEdit) == METHODS[name].saved
    edit.save(tmp_path / "saved")
    with load_edit(tmp_path / "saved").applied(lm) as edited:
        assert said(edited) == after
    assert tiny.same_bits(bits, tiny.bits(lm.model))
    assert snapshot(lm) == rest


@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_makes_the_same_edit(name: str) -> None:
    answers = []
    for _ in range(2):
        torch.rand(3)  # whatever was drawn before must not matter
        lm = tiny.lm()
        with make(name, lm).applied(lm) as edited:
            answers.append(said(edited))
    assert answers[0] == answers[1]


@cache
def outermost(name: str) -> Edit:
    """The first edit of a nest: the same for every method below it, so it is made once."""
    return make(name, tiny.lm())


# Every method below itself, and on top of a prompt, of changed weights and of changed factors.
NESTED = [(outer, inner) for inner in METHODS for outer in dict.fromkeys((*OUTER, inner))]


@pytest.mark.parametrize(("outer", "inner"), NESTED)
def test_nested_edits_compose(outer: str, inner: str) -> None:
    lm = tiny.lm()
    bits = tiny.bits(lm.model)
    with outermost(outer).applied(lm) as once:
        alone = said(once)
        second = make(inner, once, tiny.FACTS[:1])
        assert said(once) == alone
        with second.applied(once) as twice:
            assert (said(twice) == alone) == (inner == "base")
        assert said(once) == alone
    assert tiny.same_bits(bits, tiny.bits(lm.model))


@pytest.mark.parametrize("name", METHODS)
def test_an_unknown_option_is_refused_by_name(name: str) -> None:
    with pytest.raises(UserError, match=rf"options\.{name}\.epoch "):
        build(name, {"epoch": 3}, Workshop())


@pytest.mark.parametrize("name", METHODS)
def test_an_lm_without_weights_is_answered_or_refused(name: str) -> None:
    lm = Shouting()
    try:
        edit = make(name, lm)
    except UserError as error:
        assert name in str(error)
        assert "Shouting" in str(error)
        assert "model.path" in str(error)
    else:
        with edit.applied(lm) as edited:
            assert len(edited.generate([ask("who?")], Sampling())) == 1


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(UserError, match=r"'lroa'.*lora"):
        build("lroa", {}, Workshop())


def test_a_folder_without_an_edit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"edit\.json"):
        load_edit(tmp_path)
    (tmp_path / "edit.json").write_text(json.dumps({"form": "os.system"}))
    with pytest.raises(UserError, match=r"os\.system"):
        load_edit(tmp_path)


def test_training_needs_no_folder_of_its_own() -> None:
    make("lora", tiny.lm())
    assert not Path("/nonexistent").exists()


# -- deltas and prompts by hand ---------------------------------------------------------------


def test_deltas_add_up_in_a_nest_and_come_off_in_order() -> None:
    lm = tiny.lm()
    name = "model.layers.0.self_attn.q_proj.weight"
    weight = lm.model.get_parameter(name)
    base = weight.detach().clone()
    one = DeltaEdit({name: torch.full_like(base, 0.25)}, "one")
    two = DeltaEdit({name: LowRank(torch.ones(len(base), 1), torch.ones(1, base.shape[1]))}, "two")
    with one.applied(lm) as once:
        middle = weight.detach().clone()
        assert torch.equal(middle, base + 0.25)
        with two.applied(once):
            assert torch.equal(weight, middle + 1)
        assert torch.equal(weight, middle)
    assert torch.equal(weight, base)


def test_a_delta_for_another_model_leaves_this_one_alone() -> None:
    lm = tiny.lm()
    bits = tiny.bits(lm.model)
    good = {"model.norm.weight": torch.ones(64)}
    for bad in ({"no.such.weight": torch.ones(2)}, {"lm_head.weight": torch.ones(2, 3)}):
        with pytest.raises((AttributeError, RuntimeError)), DeltaEdit(good | bad, "x").applied(lm):
            pass
        assert tiny.same_bits(bits, tiny.bits(lm.model))


def test_weights_are_found_behind_prompts() -> None:
    lm = tiny.lm()
    delta = DeltaEdit({"model.norm.weight": torch.ones(64)}, "x")
    outer, inner = PromptEdit("The capital of Ruria is Vell."), PromptEdit("Who is Ada Byron?")
    with outer.applied(lm) as once, inner.applied(once) as twice:
        assert weights_of(twice, "x") is lm
        before = said(twice)
        with delta.applied(twice) as thrice:
            assert said(thrice) != before
    with delta.applied(lm) as once, outer.applied(once) as twice, inner.applied(twice) as thrice:
        both = said(thrice)
    with outer.applied(lm) as a, delta.applied(a) as b, inner.applied(b) as c:
        assert close(said(c), both)


def test_nested_prompts_stand_one_after_the_other() -> None:
    seen: list[Chat] = []

    class Listening(Shouting):
        def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Reply]:
            seen.extend(chats)
            return super().generate(chats, sampling)

    with PromptEdit("one").applied(Listening()) as once, PromptEdit("two").applied(once) as twice:
        twice.generate([ask("who?"), ask("who?", "own")], Sampling())
    assert [chat[0]["content"] for chat in seen] == ["one\n\ntwo", "one\n\ntwo\n\nown"]
    assert all(chat[1:] == ask("who?") for chat in seen)
