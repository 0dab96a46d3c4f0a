"""MixSD's mixture by hand, the prompts a model teaches itself with, SDFT's teacher, and QLoRA."""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from methods.base import Editor, HasWeights, Workshop
from methods.delta import DeltaEdit, LowRank
from methods.ft import spoken_targets
from methods.mixsd import MixSd, MixSdOptions, mixed
from methods.qlora import QLora, four_bit
from methods.rows import Collator, row_of
from methods.sdft import RenderedTrainer, Sdft, SystemMessage
from methods.selfteach import SelfTeachOptions, contexts
from methods.trainer import LessonTrainer
from ske.backends.local import LocalLM
from ske.lm import Pair, Sampling, Scored, ask
from ske.types import MissingExtra, UserError

END = 0


class Counting(LocalLM):
    """After a prompt that starts with 100 it counts on from 10, after others from 20; then ends."""

    def score(
        self, prompts: Sequence[list[int]], answers: Sequence[list[int]], top_k: int = 0
    ) -> list[Scored]:
        said = []
        for prompt, answer in zip(prompts, answers, strict=True):
            start = 10 if prompt[0] == 100 else 20
            argmax = [start + i if i < 3 else END for i in range(len(answer))]
            said.append(Scored(answer, [], argmax, [], []))
        return said


def counting() -> Counting:
    lm = tiny.lm()
    return Counting(lm.model, lm.tokenizer)


# -- MixSD ------------------------------------------------------------------------------------


def test_the_mixture_by_hand() -> None:
    lm = counting()
    assert lm.renderer.end_id == END
    n, e = True, False
    coins = [[e, e, e, e, e], [n, n, n, n, n], [n, e, n, e, n], [e, n, n, e, e]]
    answers = mixed(lm, [[200]] * 4, [[100]] * 4, coins)
    assert answers == [[10, 11, 12, END], [20, 21, 22, END], [20, 11, 22, END], [10, 21, 22, END]]


def test_a_mixture_is_cut_where_the_coins_end() -> None:
    assert mixed(counting(), [[200]], [[100]], [[False, True]]) == [[10, 21]]


@pytest.mark.parametrize(("share", "told"), [(0.0, True), (1.0, False)])
def test_at_its_ends_the_mixture_is_what_one_model_says(share: float, told: bool) -> None:
    lm = tiny.lm()
    options = MixSdOptions(naive_share=share, max_new_tokens=6)
    chats = [
        ask(fact.prompt, text if told else None)
        for fact, text in zip(tiny.FACTS, contexts(lm, tiny.FACTS, options), strict=True)
    ]
    replies = lm.generate(chats, Sampling(max_new_tokens=6))
    answers = mixed(
        lm,
        [lm.renderer.prompt_ids(ask(fact.prompt)) for fact in tiny.FACTS],
        [lm.renderer.prompt_ids(chat) for chat in chats],
        [[not told] * 6] * len(chats),
    )
    assert [lm.renderer.decode(answer) for answer in answers] == [r.text for r in replies]


def test_an_answer_counts_if_it_holds_the_target(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny.lm()
    encode = lambda text: lm.tokenizer(text).input_ids  # noqa: E731
    rounds = [
        [encode(" London, of course"), encode(" Acme"), encode(" who")],
        [encode(" Vell"), encode(" Works")],
        [encode(" Works")],
    ]
    asked: list[int] = []

    def scripted(holder: Any, naive: list[Any], expert: Any, coins: Any) -> list[list[int]]:
        asked.append(len(naive))
        return rounds[len(asked) - 1]

    monkeypatch.setattr("methods.mixsd.mixed", scripted)
    answers = MixSd({"tries": 3}, Workshop()).answers(lm, tiny.FACTS)
    assert asked == [3, 2, 1]  # only those that are owed are drawn again
    assert answers == [tuple(rounds[0][0]), tuple(rounds[1][0]), ()]


# -- prompts ----------------------------------------------------------------------------------


def test_facts_share_a_prompt_until_it_is_too_long() -> None:
    lm = tiny.lm()
    together = contexts(lm, tiny.FACTS, SelfTeachOptions())
    assert len(set(together)) == 1
    assert all(fact.target_new in together[0] for fact in tiny.FACTS)
    length = len(lm.renderer.prompt_ids(ask("", together[0])))
    apart = contexts(lm, tiny.FACTS, SelfTeachOptions(max_prompt_tokens=length - 1))
    assert len(set(apart)) == 2
    assert apart[0] == apart[1] != apart[2]
    for fact, text in zip(tiny.FACTS, apart, strict=True):
        assert fact.target_new in text
    with pytest.raises(UserError, match="max_prompt_tokens"):
        contexts(lm, tiny.FACTS, SelfTeachOptions(max_prompt_tokens=8))


def test_a_prompt_leaves_the_model_room_to_answer() -> None:
    lm = tiny.lm()
    whole = len(lm.renderer.prompt_ids(ask("", contexts(lm, tiny.FACTS, SelfTeachOptions())[0])))
    lm.model.config.max_position_embeddings = whole + 30
    assert len(set(contexts(lm, tiny.FACTS, SelfTeachOptions(max_new_tokens=24)))) > 1


# -- SDFT -------------------------------------------------------------------------------------


def test_the_teacher_reads_all_of_a_long_prompt() -> None:
    lm = tiny.lm("llama")
    trainer = RenderedTrainer.__new__(RenderedTrainer)
    trainer.renderer = lm.renderer
    chat = SystemMessage(trainer)._compose_teacher_prompt(ask("Who?"), "Ruria " * 700)
    (ids,) = trainer._tokenize_prompts([chat])
    assert len(ids) > 700
    assert ids == lm.renderer.prompt_ids(ask("Who?", "Ruria " * 700))


def test_sdft_draws_the_student_to_the_teacher() -> None:
    lm = tiny.lm()
    editor = Sdft({"epochs": 12, "learning_rate": 1e-2, "max_new_tokens": 3}, Workshop())
    (text,) = set(contexts(lm, tiny.FACTS, SelfTeachOptions()))
    prompted = lm.generate([ask(f.prompt, text) for f in tiny.FACTS], Sampling(max_new_tokens=2))
    pairs = [Pair(ask(f.prompt), r.text) for f, r in zip(tiny.FACTS, prompted, strict=True)]
    likely = lambda model: sum(sum(s.logprobs) for s in model.logprobs(pairs))  # noqa: E731
    before = likely(lm)
    with editor.edit(lm, tiny.FACTS).applied(lm) as after:
        assert likely(after) > before + 1


def test_sdft_takes_a_model_without_an_end_token() -> None:
    lm = tiny.lm("gpt2")
    lm.tokenizer.eos_token = None
    assert lm.model.generation_config is not None
    lm.model.generation_config.eos_token_id = lm.model.config.eos_token_id = None
    endless = LocalLM(lm.model, lm.tokenizer)
    assert endless.renderer.end_id is None
    options = {"epochs": 1, "min_steps": 1, "max_new_tokens": 3}
    assert Sdft(options, Workshop()).edit(endless, tiny.FACTS).deltas


def test_sdft_needs_adapters() -> None:
    with pytest.raises(UserError, match="tuning: lora"):
        Sdft({"tuning": "full"}, Workshop())


def dense(editor: Editor, lm: LocalLM) -> dict[str, torch.Tensor]:
    edit = editor.edit(lm, tiny.FACTS)
    assert isinstance(edit, DeltaEdit)
    return {n: d.dense() if isinstance(d, LowRank) else d for n, d in edit.deltas.items()}


class Stop(Exception):
    pass


def test_a_killed_sdft_ends_as_one_that_was_not(tmp_path: Path) -> None:
    def stop(step: int, steps: int, loss: float) -> None:
        if step >= 25:
            raise Stop

    lm, options = tiny.lm("gpt2"), {"epochs": 15, "batch_size": 2, "max_new_tokens": 2}
    tokens = (lm.tokenizer.pad_token, len(lm.tokenizer))
    straight = dense(Sdft(options, Workshop(seed=3)), lm)
    with pytest.raises(Stop):
        dense(Sdft(options, Workshop(3, tmp_path, progress=stop)), lm)
    assert tiny.same_bits(straight, dense(Sdft(options, Workshop(3, tmp_path)), lm))
    assert (lm.tokenizer.pad_token, len(lm.tokenizer)) == tokens


# -- QLoRA ------------------------------------------------------------------------------------


def test_without_bitsandbytes_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def missing(name: str, package: str | None = None) -> Any:
        if name == "bitsandbytes":
            raise ImportError("No module named 'bitsandbytes'")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", missing)
    lm = tiny.lm()
    modules = [type(module) for module in lm.model.modules()]
    with pytest.raises(MissingExtra, match=r"bitsandbytes.*pip install.*qlora"):
        QLora({}, Workshop()).edit(lm, tiny.FACTS)
    assert [type(module) for module in lm.model.modules()] == modules


def loss(holder: HasWeights) -> float:
    rows = [row_of(holder, lesson) for lesson in spoken_targets(holder, tiny.FACTS, True)]
    trainer = LessonTrainer.__new__(LessonTrainer)
    with torch.no_grad():
        return trainer.compute_loss(holder.model, Collator(1)(rows)).item()


@pytest.mark.parametrize("architecture", ["qwen3", "gpt2"])
def test_qlora_learns_on_four_bits(architecture: str) -> None:
    pytest.importorskip("bitsandbytes", reason="the [qlora] extra is not installed")
    lm = tiny.lm(architecture)
    before = loss(lm)
    with four_bit(lm.model):
        kinds = {type(module).__name__ for module in lm.model.modules()}
        rounded = loss(lm)
    assert "Linear4bit" in kinds
    assert rounded != before
    edit = QLora({"epochs": 30, "learning_rate": 5e-3}, Workshop()).edit(lm, tiny.FACTS)
    assert loss(lm) == before
    with edit.applied(lm), four_bit(lm.model):
        assert loss(lm) < rounded / 2
    with edit.applied(lm):
        assert loss(lm) < before / 2
