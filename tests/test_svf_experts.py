"""Experts: the search for a mixture, the two passes, and one z for each relation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from methods.arch import projections
from methods.base import Workshop, Wraps, weights_of
from methods.cem import search
from methods.delta import DeltaEdit
from methods.experts import NO_RELATION, OTHER, ExpertsEdit, ExpertsLM, kind_of, question_about
from methods.svf import Svf, _Maker, mixed
from methods.svf_edit import Laying, SvfEdit, Z
from methods.table import load_edit
from ske.backends.local import LocalLM
from ske.lm import Chat, Pair, Reply, Sampling, Scored, ask
from ske.types import Fact

FACTS = (
    *tiny.FACTS,
    Fact(
        id="f4", subject="Ada Byron", prompt="The employer of Ada Byron is", target_new="Acme Works"
    ),
)
QUICK: dict[str, Any] = {"experts": "relation", "learning_rate": 0.1, "targets": "all"}


def z_of(lm: LocalLM, seed: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        one.name: 1 + 0.3 * torch.randn(min(one.weight.shape), generator=draw)
        for one in projections(lm.model, "mlp")
    }


# -- the search -------------------------------------------------------------------------------


def test_the_search_finds_a_known_optimum_and_stays_in_bounds() -> None:
    goal, seen = torch.tensor([0.7, 0.1, 1.0]), []

    def score(weights: torch.Tensor) -> tuple[float, float]:
        seen.append(weights)
        return -((weights - goal) ** 2).sum().item(), 0.0

    found = search(score, 3, 32, 0.2, 50, torch.Generator().manual_seed(0))
    assert torch.allclose(found.weights, goal, atol=0.02)
    assert found.score == max(score(one) for one in list(seen))
    assert all(one.min() >= 0 and one.max() <= 1 for one in seen)
    again = search(score, 3, 32, 0.2, 50, torch.Generator().manual_seed(0))
    assert torch.equal(found.weights, again.weights)


def test_ties_of_the_search_are_broken_by_the_second_score() -> None:
    found = search(
        lambda weights: (1.0, -abs(weights[0].item() - 0.9)),
        1,
        16,
        0.25,
        30,
        torch.Generator().manual_seed(0),
    )
    assert found.weights.item() == pytest.approx(0.9, abs=0.01)


def test_mixtures_by_hand() -> None:
    one, two = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 6.0])}
    assert mixed([one, two], torch.tensor([0.5, 0.5]))["w"].tolist() == [2.0, 4.0]
    assert mixed([one, two], torch.tensor([1.0, 0.0]))["w"].tolist() == [1.0, 2.0]
    assert mixed([one, two], torch.tensor([0.25, 0.75]))["w"].tolist() == [2.5, 5.0]
    assert mixed([one, two], torch.tensor([0.0, 0.0]))["w"].tolist() == [2.0, 4.0]


def test_cem_finds_the_better_of_two_experts(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny.lm()
    facts = [f.model_copy(update={"relation": f"kind {i}"}) for i, f in enumerate(FACTS[:2])]
    options = {**QUICK, "dispatch": "cem", "epochs": 40, "generations": 8, "population": 16}

    searched = _Maker._searched
    monkeypatch.setattr(_Maker, "_searched", lambda self, f, z: searched(self, f[:1], z))
    edit = Svf(options, Workshop(seed=1)).edit(lm, facts)
    assert isinstance(edit, SvfEdit)
    mixture = edit.facts["mixture"]
    assert mixture["kind 0"] > mixture["kind 1"]
    with edit.applied(lm) as edited:
        assert edited.generate([ask(facts[0].prompt)], Sampling())[0].text == facts[0].target_new


# -- the two passes ---------------------------------------------------------------------------


class Naming:
    """An `LM` that names a chat's kind by a word in it, and says which z is on it."""

    def __init__(self) -> None:
        self.on: str | None = None
        self.calls: list[tuple[str | None, int]] = []

    @contextmanager
    def using(self, z: Z) -> Iterator[None]:
        before, self.on = self.on, next(iter(z))
        yield
        self.on = before

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Reply]:
        self.calls.append((self.on, len(chats)))
        return [Reply(f"{self.on}: {chat[-1]['content']}", 1, 1, True) for chat in chats]

    def logprobs(self, pairs: Sequence[Pair], top_k: int = 0) -> list[Scored]:
        self.calls.append((self.on, len(pairs)))
        scored = []
        for pair in pairs:
            question = pair.chat[-1]["content"].split("Question: ")[-1]
            fits = pair.answer in question or (pair.answer == OTHER and "weather" in question)
            scored.append(Scored([1], [0.0 if fits else -5.0], [1], [[]], [[]]))
        return scored


QUESTIONS = ["capital of A", "weather", "employer of B", "capital of C"]


def test_each_question_is_answered_by_its_expert_in_one_batch_each() -> None:
    lm = Naming()
    experts = {name: {name: torch.ones(1)} for name in ("capital", "employer")}
    edited = ExpertsLM(lm, lm.using, experts, None)
    assert edited.choose([ask(q) for q in QUESTIONS]) == ["capital", OTHER, "employer", "capital"]
    lm.calls.clear()
    replies = edited.generate([ask(q, "a system message") for q in QUESTIONS], Sampling())
    assert [reply.text for reply in replies] == [
        "capital: capital of A",
        "None: weather",
        "employer: employer of B",
        "capital: capital of C",
    ]
    # The first pass puts 4 questions x 3 names to the plain model; then a batch an expert.
    assert lm.calls == [(None, 12), ("capital", 2), (None, 1), ("employer", 1)]
    lm.calls.clear()
    scored = edited.logprobs([Pair(ask(q), "capital") for q in QUESTIONS])
    assert [one.logprobs for one in scored] == [[0.0], [-5.0], [-5.0], [0.0]]
    assert edited.generate([], Sampling()) == []
    assert isinstance(edited, Wraps)


def test_a_classifier_is_on_during_the_first_pass_only() -> None:
    lm = Naming()
    experts = {name: {name: torch.ones(1)} for name in ("capital", "employer")}
    edited = ExpertsLM(lm, lm.using, experts, {"classifier": torch.ones(1)})
    edited.generate([ask("capital of A")], Sampling())
    assert lm.calls == [("classifier", 3), ("capital", 1)]


def test_the_first_pass_asks_about_the_last_question() -> None:
    chat: Chat = [*ask("first?", "rules"), {"role": "assistant", "content": "x"}, *ask("last?")]
    (message,) = question_about(chat, ["capital", "employer"])
    assert "Question: last?" in message["content"]
    assert "first?" not in message["content"]
    assert f"- capital\n- employer\n- {OTHER}\n" in message["content"]


@pytest.mark.parametrize("apply", ["merge", "factors"])
def test_experts_change_the_model_only_while_they_answer(apply: Any, tmp_path: Path) -> None:
    lm = tiny.lm()
    pairs = [Pair(ask(f.prompt), f.target_new) for f in FACTS]
    experts = {"one": z_of(lm, 1), "two": z_of(lm, 2)}
    alone = {}
    for name, z in experts.items():
        with SvfEdit(z, Laying(apply=apply)).applied(lm) as edited:
            alone[name] = [one.logprobs for one in edited.logprobs(pairs)]
    alone[OTHER] = [one.logprobs for one in lm.logprobs(pairs)]
    bits, modules = tiny.bits(lm.model), {m: set(m.__dict__) for m in lm.model.modules()}
    edit = ExpertsEdit(experts, z_of(lm, 3), Laying(apply=apply), {"seed": 1})
    edit.save(tmp_path)
    answers = []
    for each in (edit, load_edit(tmp_path)):
        with each.applied(lm) as edited:
            assert isinstance(edited, ExpertsLM)
            assert weights_of(edited, "x") is lm
            names = edited.choose([pair.chat for pair in pairs])
            scored = [one.logprobs for one in edited.logprobs(pairs)]
            for place, name in enumerate(names):
                assert scored[place] == pytest.approx(alone[name][place], abs=1e-4)
            answers.append((names, scored))
            assert tiny.same_bits(bits, tiny.bits(lm.model))
    assert answers[0] == answers[1]
    assert {m: set(m.__dict__) for m in lm.model.modules()} == modules


def test_an_edit_inside_of_experts_counts() -> None:
    lm = tiny.lm()
    name = "model.layers.0.mlp.up_proj.weight"
    delta = DeltaEdit({name: torch.full_like(lm.model.get_parameter(name), 0.05)}, "x")
    pairs = [Pair(ask(FACTS[0].prompt), FACTS[0].target_new)]
    with ExpertsEdit({"one": z_of(lm, 1)}, None, Laying()).applied(lm) as once:
        before = once.logprobs(pairs)
        with delta.applied(once) as twice:
            assert twice.logprobs(pairs) != before
        assert once.logprobs(pairs) == before


# -- the editor -------------------------------------------------------------------------------


def test_a_fact_belongs_to_its_relation() -> None:
    assert kind_of(tiny.FACTS[1]) == "place of birth"
    named = tiny.FACTS[0].model_copy(update={"relation": "my own task"})
    assert kind_of(named) == "my own task"
    assert kind_of(Fact(id="x", subject="Ada", prompt="Who is Ada?", target_new="x")) == NO_RELATION


def test_a_trained_classifier_sends_facts_to_their_experts() -> None:
    lm = tiny.lm()
    facts = [FACTS[1], FACTS[3]]
    options = {**QUICK, "dispatch": "classifier", "epochs": 40, "stop_below": 0.2}
    texts = ["Who is the head of state of Ruria?", "I don't know."]
    workshop = Workshop(seed=1, texts=lambda: texts)
    edit = Svf(options, workshop).edit(lm, facts)
    assert isinstance(edit, ExpertsEdit)
    kinds = [kind_of(fact) for fact in facts]
    assert list(edit.experts) == kinds
    with edit.applied(lm) as edited:
        assert isinstance(edited, ExpertsLM)
        chats = [ask(fact.prompt) for fact in facts]
        assert edited.choose([*chats, *map(ask, texts)]) == [*kinds, OTHER, OTHER]
        replies = edited.generate(chats, Sampling())
        assert [reply.text for reply in replies] == [fact.target_new for fact in facts]
        after = edited.generate([ask(texts[0])], Sampling())
    assert after == lm.generate([ask(texts[0])], Sampling())


def test_experts_trained_by_relation_are_the_same_for_the_same_seed() -> None:
    lm = tiny.lm()
    one, two = (Svf({**QUICK, "epochs": 2}, Workshop(seed=1)).edit(lm, FACTS) for _ in range(2))
    assert isinstance(one, ExpertsEdit) and isinstance(two, ExpertsEdit)
    assert list(one.experts) == list(dict.fromkeys(map(kind_of, FACTS)))
    assert len(one.experts) == 2
    for name, z in one.experts.items():
        assert all(torch.equal(z[key], two.experts[name][key]) for key in z)
