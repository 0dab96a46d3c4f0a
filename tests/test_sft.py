"""Training: the divergence by hand, what the loss sees, resuming, and that it learns at all."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import get_peft_model
from peft.tuners.lora import LoraLayer

from methods.adapters import lora_config, low_rank_deltas
from methods.base import Lesson, Workshop
from methods.delta import DeltaEdit, LowRank
from methods.rows import IGNORED, Collator, divergence, row_of
from methods.sft import arguments, batch_of, steps_of, train
from methods.trainer import LessonTrainer
from ske.backends.local import LocalLM
from ske.config import TrainConfig
from ske.lm import Pair, Sampling, ask
from ske.training import Schedule, SftOptions
from ske.types import UserError

SHORT = SftOptions(rank=4, alpha=8, learning_rate=5e-3, epochs=8, batch_size=2)


def taught() -> list[Lesson]:
    return [Lesson(chat=ask(f.prompt), completion=f.target_new, fact=f.id) for f in tiny.FACTS]


def held(lm: LocalLM, top_k: int = 5) -> list[Lesson]:
    """What the model says of itself, as the teacher stores it."""
    pairs = [Pair(ask("Who is the head of state of Ruria?"), "Ada Byron", True)]
    pairs += [Pair(ask(""), "The employer of Bela")]
    return tiny.held(lm, pairs, top_k, kind="neighbour", spoken=False)


def learn(
    lm: LocalLM, lessons: list[Lesson], options: SftOptions = SHORT, **workshop: Any
) -> dict[str, torch.Tensor]:
    edit = train(lm, lessons, options, Workshop(seed=3, **workshop), "test")
    return {
        name: delta.dense() if isinstance(delta, LowRank) else delta
        for name, delta in edit.deltas.items()
    }


def test_a_single_step_is_not_lost_to_a_warm_up() -> None:
    one = SftOptions(rank=4, alpha=8, learning_rate=5e-3, epochs=1, batch_size=32)
    assert any(delta.abs().max() > 0 for delta in learn(tiny.lm(), taught(), one).values())


# -- the divergence ---------------------------------------------------------------------------


def test_divergence_by_hand() -> None:
    # Stored: 0.5 and 0.25, so 0.25 for the rest. The student: 0.4, 0.1, 0.3, 0.2.
    logits = torch.tensor([[0.4, 0.1, 0.3, 0.2]]).log() + 7
    ids, stored = torch.tensor([[0, 2]]), torch.tensor([[0.5, 0.25]]).log()
    by_hand = 0.5 * math.log(0.5 / 0.4) + 0.25 * math.log(0.25 / 0.3) + 0.25 * math.log(0.25 / 0.3)
    assert divergence(logits, ids, stored).tolist() == pytest.approx([by_hand], abs=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(2, 12))
def test_divergence_over_all_tokens_is_the_full_one(seed: int, size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    stored = torch.log_softmax(torch.randn(3, size, generator=generator), -1)
    logits = torch.randn(3, size, generator=generator)
    order = torch.argsort(torch.rand(3, size, generator=generator), dim=1)
    full = torch.nn.functional.kl_div(
        torch.log_softmax(logits, -1), stored, reduction="none", log_target=True
    ).sum(-1)
    found = divergence(logits, order, stored.gather(1, order))
    assert torch.allclose(found, full, atol=1e-4)
    some = divergence(logits, order[:, :1], stored.gather(1, order[:, :1]))
    assert (some >= -1e-5).all()
    assert (some <= full + 1e-4).all()  # merging tokens can only lose information


def test_divergence_of_a_model_from_itself_is_nothing() -> None:
    logits = torch.randn(6, 30, generator=torch.Generator().manual_seed(0)).requires_grad_()
    top = torch.log_softmax(logits.detach(), -1).topk(5)
    kl = divergence(logits, top.indices, top.values)
    assert kl.abs().max() < 1e-6
    kl.sum().backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-5


def test_a_certain_distribution_gives_no_infinite_gradient() -> None:
    logits = torch.tensor([[60.0, 0.0, -60.0]], requires_grad=True)
    kl = divergence(logits, torch.tensor([[0, 1]]), torch.tensor([[0.0, -60.0]]))
    kl.sum().backward()
    assert torch.isfinite(kl).all()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


# -- what the loss sees -----------------------------------------------------------------------


def loss_of(lm: LocalLM, lessons: list[Lesson], weight: float = 1.0) -> torch.Tensor:
    """The trainer's loss on one batch, without a trainer."""
    batch = Collator(1)([row_of(lm, lesson) for lesson in lessons])
    trainer = LessonTrainer.__new__(LessonTrainer)
    trainer.locality_weight = weight
    return trainer.compute_loss(lm.model, batch)


def test_logits_are_made_only_where_something_is_learned() -> None:
    lm = tiny.lm()
    batch = Collator(1)([row_of(lm, lesson) for lesson in taught()])
    loss, outputs = LessonTrainer.__new__(LessonTrainer).compute_loss(lm.model, batch, True)
    whole = lm.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    learned = batch["labels"] != IGNORED
    assert 0 < learned.sum() < learned.numel() / 2
    assert outputs.logits.shape == (1, int(learned.sum()), whole.shape[-1])
    said = torch.nn.functional.cross_entropy(
        whole[:, :-1][learned[:, 1:]], batch["labels"][learned]
    )
    assert loss.item() == pytest.approx(said.item(), abs=1e-6)


def test_only_completions_are_learned() -> None:
    lm = tiny.lm()
    for lesson, row in zip(taught(), [row_of(lm, lesson) for lesson in taught()], strict=True):
        prompt = lm.renderer.prompt_ids(lesson.chat)
        answer = lm.renderer.answer_ids(lesson.chat, lesson.completion, end=True)
        assert row["input_ids"] == prompt + answer
        assert row["labels"] == [IGNORED] * len(prompt) + answer
        assert answer[-1] == lm.renderer.end_id
    scored = lm.logprobs([Pair(le.chat, le.completion, True) for le in taught()])
    mean = -sum(sum(s.logprobs) for s in scored) / sum(len(s.tokens) for s in scored)
    assert loss_of(lm, taught()).item() == pytest.approx(mean, abs=1e-5)


def test_the_loss_sees_nothing_of_a_prompt_or_of_padding() -> None:
    lm = tiny.lm()
    lessons = [*taught(), *held(lm)]
    rows = [row_of(lm, lesson) for lesson in lessons]
    kept: list[torch.Tensor] = []

    def keep(module: Any, inputs: Any, output: torch.Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    hook = lm.model.model.norm.register_forward_hook(keep)  # what the head would read
    for parameter in lm.model.parameters():
        parameter.data += 0.01  # away from its own distribution, where the gradient is nothing
    loss_of(lm, lessons).backward()
    hook.remove()
    assert kept[0].grad is not None
    touched = kept[0].grad.abs().sum(-1) > 0
    for row, seen in zip(rows, touched, strict=True):
        start, end = row["start"], len(row["input_ids"])
        expected = [start - 1 <= place < end - 1 for place in range(len(seen))]
        assert seen.tolist() == expected


def test_a_model_loses_nothing_on_its_own_distribution() -> None:
    lm = tiny.lm()
    assert loss_of(lm, held(lm)).abs() < 1e-5
    assert loss_of(lm, [*taught(), *held(lm)]).item() == pytest.approx(
        loss_of(lm, taught()).item(), abs=1e-5
    )


def test_the_weight_scales_the_divergence_alone() -> None:
    other, lm = tiny.lm("llama"), tiny.lm()
    stored = held(other)
    plain, none = loss_of(lm, taught()).item(), loss_of(lm, [*taught(), *stored], 0).item()
    one, three = (loss_of(lm, [*taught(), *stored], w).item() for w in (1.0, 3.0))
    assert none == pytest.approx(plain, abs=1e-5)
    assert three - plain == pytest.approx(3 * (one - plain), rel=1e-4)


def test_without_locality_weight_stored_distributions_do_not_matter() -> None:
    lm = tiny.lm()
    options = SHORT.model_copy(update={"locality_weight": 0.0, "epochs": 2})
    bare = [
        lesson.model_copy(update={"top_ids": (), "top_logprobs": ()})
        for lesson in [*taught(), *held(lm)]
    ]
    one, other = learn(lm, [*taught(), *held(lm)], options), learn(lm, bare, options)
    assert tiny.same_bits(one, other)
    assert not tiny.same_bits(one, learn(lm, [*taught(), *held(tiny.lm("llama"))], SHORT))


def test_a_batch_of_nothing_but_stored_distributions_trains() -> None:
    lm = tiny.lm()
    for weight in (0.0, 1.0):
        options = SHORT.model_copy(update={"locality_weight": weight, "batch_size": 1, "epochs": 1})
        assert learn(lm, held(lm), options)


def test_no_word_of_the_prompt_is_learned_by_full_tuning_either() -> None:
    lm = tiny.lm("gpt2")
    bits = tiny.bits(lm.model)
    deltas = learn(lm, taught(), SHORT.model_copy(update={"tuning": "full", "epochs": 1}))
    assert tiny.same_bits(bits, tiny.bits(lm.model))
    assert set(deltas) == {name for name, _ in lm.model.named_parameters()}
    longest = max(len(row_of(lm, lesson)["input_ids"]) for lesson in taught())
    assert deltas["transformer.wpe.weight"][: longest - 1].abs().sum() > 0
    assert deltas["transformer.wpe.weight"][longest:].abs().sum() == 0  # no position beyond


# -- low-rank deltas --------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_deltas_are_what_peft_merges(architecture: str) -> None:
    lm = tiny.lm(architecture)
    peft = get_peft_model(copy.deepcopy(lm.model), lora_config(SHORT, lm.model))
    torch.manual_seed(0)
    layers = [layer for layer in peft.modules() if isinstance(layer, LoraLayer)]
    for layer in layers:
        torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.1)
    edit = DeltaEdit(low_rank_deltas(peft), "test")
    merged = peft.merge_and_unload().state_dict()
    assert len(edit.deltas) == len(layers) > 0
    with edit.applied(lm):
        for name, value in lm.model.state_dict().items():
            assert torch.allclose(value, merged[name], atol=1e-6), name


def adapted(architecture: str, **options: Any) -> list[str]:
    return list(learn(tiny.lm(architecture), taught(), SHORT.model_copy(update=options)))


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize(("architecture", "name"), [("qwen3", "v_proj"), ("gpt2", "c_attn")])
def test_adapters_go_where_the_options_say(architecture: str, name: str) -> None:
    everywhere = adapted(architecture)
    chosen = adapted(architecture, target_modules=(name,), layers=(1,))
    assert adapted(architecture, layers=(1,)) == [n for n in everywhere if ".1." in n]
    assert len(chosen) == 1 < len(everywhere)
    assert chosen[0] in everywhere
    assert ".1." in chosen[0] and chosen[0].endswith(f"{name}.weight")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"target_modules": ("v_prj",)}, r"v_prj.*v_proj"), ({"layers": (9,)}, r"layers: 9.*0 to")],
)
def test_a_place_that_is_not_there_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        adapted("qwen3", **options)


# -- interruptions ----------------------------------------------------------------------------


class Stop(Exception):
    pass


def stopping(at: int) -> Any:
    def progress(step: int, steps: int, loss: float) -> None:
        if step >= at:
            raise Stop

    return progress


LONG = SHORT.model_copy(update={"epochs": 24})
"""24 steps for each 2 lessons; a checkpoint every 21."""


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_an_interrupted_training_ends_as_an_uninterrupted_one(tuning: str, tmp_path: Path) -> None:
    lm = tiny.lm()
    bits = tiny.bits(lm.model)
    options = LONG.model_copy(update={"tuning": tuning})
    lessons = [*taught(), *held(tiny.lm("llama"))]
    straight = learn(lm, lessons, options)
    with pytest.raises(Stop):
        learn(lm, lessons, options, folder=tmp_path, progress=stopping(30))
    assert tiny.same_bits(bits, tiny.bits(lm.model))
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-21"]
    steps: list[int] = []
    resumed = learn(
        lm, lessons, options, folder=tmp_path, progress=lambda step, *_: steps.append(step)
    )
    assert min(steps) > 21
    assert tiny.same_bits(straight, resumed)
    assert tiny.same_bits(bits, tiny.bits(lm.model))
    # Killed after the last step, before the edit was saved:
    assert tiny.same_bits(straight, learn(lm, lessons, options, folder=tmp_path))


def test_a_half_written_checkpoint_is_not_resumed_from(tmp_path: Path) -> None:
    lm = tiny.lm()
    straight = learn(lm, taught(), LONG)
    with pytest.raises(Stop):
        learn(lm, taught(), LONG, folder=tmp_path, progress=stopping(30))
    torn = tmp_path / "checkpoint-40"
    torn.mkdir()
    (torn / "adapter_model.safetensors").write_bytes(b"\x08")
    assert tiny.same_bits(straight, learn(lm, taught(), LONG, folder=tmp_path))


def test_an_interrupted_training_leaves_the_model_usable() -> None:
    lm = tiny.lm()
    before = lm.generate([ask("Who?")], Sampling())
    modules = [type(module) for module in lm.model.modules()]
    with pytest.raises(Stop):
        learn(lm, taught(), SHORT, progress=stopping(1))
    assert [type(module) for module in lm.model.modules()] == modules
    assert all(parameter.requires_grad for parameter in lm.model.parameters())
    assert lm.generate([ask("Who?")], Sampling()) == before


# -- learning ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("architecture", "tuning"), [("qwen3", "lora"), ("gpt2", "full")])
def test_it_learns(architecture: str, tuning: str) -> None:
    lm = tiny.lm(architecture)
    options = SftOptions(tuning=tuning, rank=8, alpha=16, learning_rate=5e-3, epochs=60)
    edit = train(lm, taught(), options, Workshop(), "test")
    chats = [ask(fact.prompt) for fact in tiny.FACTS]
    with edit.applied(lm) as edited:
        replies = edited.generate(chats, Sampling())
    assert [reply.text for reply in replies] == [fact.target_new for fact in tiny.FACTS]
    assert all(reply.finished for reply in replies)
    assert not {reply.text for reply in lm.generate(chats, Sampling())} & {"London", "Vell"}


def test_a_spoken_lesson_is_learned_as_well_as_held_to() -> None:
    lm = tiny.lm()
    silent = held(lm)
    spoken = [lesson.model_copy(update={"spoken": True}) for lesson in silent]
    # On the model's own distribution the divergence is 0, so only cross-entropy can move it.
    deltas = learn(lm, spoken, SHORT), learn(lm, silent, SHORT)
    sizes = [sum(float(delta.abs().sum()) for delta in edit.values()) for edit in deltas]
    assert sizes[0] > 3 * sizes[1]


def test_small_steps_of_full_tuning_are_not_lost_in_half_precision() -> None:
    """bf16 has 8 bits: a step of 2e-5 on a weight of 0.02 would be rounded away."""
    lm = tiny.lm()
    before = {name: p.detach().clone() for name, p in lm.model.bfloat16().named_parameters()}
    options = SHORT.model_copy(update={"tuning": "full", "learning_rate": 2e-5})
    deltas = learn(lm, taught(), options)
    weights = {name: delta for name, delta in deltas.items() if "proj" in name}
    moved = sum((delta != 0).sum().item() for delta in weights.values())
    assert moved > 0.5 * sum(delta.numel() for delta in weights.values())
    assert all(torch.equal(p, before[name]) for name, p in lm.model.named_parameters())


@pytest.mark.parametrize(
    ("rows", "least", "batch", "steps"),
    [
        (4769, 8, 32, 750),  # enough of them: as configured
        (1888, 8, 16, 590),  # 295 steps of 32 would be too few
        (560, 8, 8, 350),
        (238, 8, 8, 320),  # and then more passes
        (238, None, 32, 320),
        (238, 32, 32, 320),
        (238, 1, 2, 595),
    ],
)
def test_few_lessons_are_learned_in_smaller_steps(
    rows: int, least: int | None, batch: int, steps: int
) -> None:
    schedule = Schedule(epochs=5, batch_size=32, min_steps=320, least_batch=least)
    assert (batch_of(schedule, rows), steps_of(schedule, rows)) == (batch, steps)
    told = arguments(tiny.lm(), schedule, Workshop(), Path(), rows)
    assert (told["per_device_train_batch_size"], told["max_steps"]) == (batch, steps)


def test_the_student_s_steps_become_smaller_without_being_told_to() -> None:
    assert batch_of(TrainConfig(), 560) < TrainConfig().batch_size == batch_of(TrainConfig(), 4769)
