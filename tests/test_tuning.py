"""FT-L, FT-M, LocFT-BF and AdaLoRA: what they train, how far, on which tokens; and going on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import yaml
from peft import PeftModel, get_peft_model
from peft.tuners.adalora.layer import SVDLinear
from safetensors.torch import load_file
from transformers import TrainerCallback

from methods.adalora import (
    AdaLora,
    AdaLoraOptions,
    Allocate,
    AllocatingTrainer,
    adalora_config,
    not_orthogonal,
)
from methods.adapters import low_rank_deltas
from methods.base import Editor, Workshop
from methods.delta import DeltaEdit, LowRank
from methods.ft import FtL, FtM, NormBound, StopBelow, spoken_targets, weights_at
from methods.locft import LocFt
from methods.rows import IGNORED, Collator, row_of
from methods.sft import Recipe, train_with
from methods.table import CONFIGS, build
from methods.trainer import WEIGHTS, LessonTrainer
from ske.backends.local import LocalLM
from ske.lm import Pair, Sampling, ask
from ske.training import Schedule
from ske.types import UserError

DOWN = {
    "qwen3": "model.layers.{}.mlp.down_proj",
    "llama": "model.layers.{}.mlp.down_proj",
    "gpt2": "transformer.h.{}.mlp.c_proj",
}


def dense(edit: DeltaEdit) -> dict[str, torch.Tensor]:
    return {n: d.dense() if isinstance(d, LowRank) else d for n, d in edit.deltas.items()}


def edited(editor: Editor, lm: LocalLM) -> dict[str, torch.Tensor]:
    edit = editor.edit(lm, tiny.FACTS)
    assert isinstance(edit, DeltaEdit)
    return dense(edit)


# -- which weights ----------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_mlp_projections_are_chosen(architecture: str) -> None:
    model = tiny.lm(architecture).model
    names = [f"{DOWN[architecture].format(layer)}.weight" for layer in range(2)]
    assert weights_at(model, None, 0.6563) == [names[1]]
    assert weights_at(model, None, 0.0) == [names[0]]
    assert weights_at(model, (1, 0, 1), 0.0) == names
    with pytest.raises(UserError, match=r"layers: 2 .* 0 to 1"):
        weights_at(model, (2,), 0.0)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("method", [FtM, FtL, LocFt])
def test_exactly_one_parameter_changes(method: Callable[..., Editor], architecture: str) -> None:
    lm = tiny.lm(architecture)
    deltas = edited(method({"epochs": 1}, Workshop()), lm)
    assert list(deltas) == [DOWN[architecture].format(1) + ".weight"]
    assert all(delta.abs().max() > 0 for delta in deltas.values())


def test_layers_name_what_changes() -> None:
    lm = tiny.lm()
    deltas = edited(FtM({"epochs": 1, "layers": (0, 1)}, Workshop()), lm)
    assert set(deltas) == {DOWN["qwen3"].format(layer) + ".weight" for layer in (0, 1)}


# -- how far ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [5e-4, 3e-3])
def test_no_weight_moves_further_than_the_bound(bound: float) -> None:
    options = {"learning_rate": 1e-2, "epochs": 4}
    free = edited(FtL({**options, "norm_bound": None}, Workshop()), tiny.lm())
    kept = edited(FtL({**options, "norm_bound": bound}, Workshop()), tiny.lm())
    (far,), (near,) = free.values(), kept.values()
    assert far.abs().max() > 2 * bound
    assert near.abs().max() == pytest.approx(bound, rel=1e-3)


def test_the_bound_by_hand() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, -1.0, 0.0]))
    bound = NormBound({"w": weight}, 0.5)
    weight.data = torch.tensor([1.2, -2.0, 0.7])
    bound.on_optimizer_step(None, None, None)  # pyright: ignore[reportArgumentType]
    assert weight.tolist() == pytest.approx([1.2, -1.5, 0.5])


def test_training_stops_once_the_loss_is_small() -> None:
    steps: list[int] = []

    def watch(step: int, total: int, loss: float) -> None:
        steps.append(step)
        assert total == 60

    options = {"epochs": 60, "learning_rate": 1e-2, "stop_below": 0.3}
    edited(FtM(options, Workshop(progress=watch)), tiny.lm())
    assert 0 < max(steps) < 60
    assert StopBelow(0.3).loss == 0.3


def test_a_model_in_bfloat16_is_trained_in_float32() -> None:
    lm = tiny.lm()
    lm.model.to(torch.bfloat16)
    bits = tiny.bits(lm.model)
    (delta,) = edited(FtM({"epochs": 4, "learning_rate": 1e-5}, Workshop()), lm).values()
    assert tiny.same_bits(bits, tiny.bits(lm.model))
    # Four steps of 1e-5 are lost in bfloat16 next to weights of 0.15.
    assert delta.dtype == torch.float32
    assert 1e-5 < delta.abs().max() < 5e-5


# -- on which tokens --------------------------------------------------------------------------


def test_ft_m_learns_the_target_alone() -> None:
    lm = tiny.lm()
    for end in (True, False):
        for fact, lesson in zip(tiny.FACTS, spoken_targets(lm, tiny.FACTS, end), strict=True):
            row = row_of(lm, lesson)
            prompt = lm.renderer.prompt_ids(ask(fact.prompt))
            target = lm.renderer.answer_ids(ask(fact.prompt), fact.target_new, end=end)
            assert row["labels"] == [IGNORED] * len(prompt) + target
            assert (target[-1] == lm.renderer.end_id) == end


def test_ft_l_asks_for_every_target_token_right_after_the_prompt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lm = tiny.lm()
    seen: dict[str, Any] = {}

    def keep(holder: Any, lessons: Any, *rest: Any) -> DeltaEdit:
        seen["lessons"] = lessons
        return DeltaEdit({}, "ft_l")

    monkeypatch.setattr("methods.ft.train_weights", keep)
    FtL({}, Workshop()).edit(lm, tiny.FACTS[2:])
    prompt = ask(tiny.FACTS[2].prompt)
    target = lm.renderer.answer_ids(prompt, "Ruria Works")
    rows = [row_of(lm, lesson) for lesson in seen["lessons"]]
    assert [row["labels"][-1] for row in rows] == target
    assert len(target) > 1
    trainer = LessonTrainer.__new__(LessonTrainer)
    loss = trainer.compute_loss(lm.model, Collator(1)(rows))
    (scored,) = lm.score([lm.renderer.prompt_ids(prompt)], [target[:1]], top_k=340)
    known = dict(zip(scored.top_ids[0], scored.top_logprobs[0], strict=True))
    by_hand = -sum(known[token] for token in target) / len(target)
    assert loss.item() == pytest.approx(by_hand, abs=1e-5)


@pytest.mark.parametrize("method", [FtM, LocFt])
def test_full_tuning_of_one_matrix_makes_the_edits(method: Callable[..., Editor]) -> None:
    lm = tiny.lm()
    options = {"epochs": 60, "learning_rate": 1e-2, "layers": (0,)}
    edit = method(options, Workshop()).edit(lm, tiny.FACTS)
    with edit.applied(lm) as after:
        replies = after.generate([ask(fact.prompt) for fact in tiny.FACTS], Sampling())
    assert [reply.text for reply in replies] == [fact.target_new for fact in tiny.FACTS]


# -- AdaLoRA ----------------------------------------------------------------------------------


class Ranks(TrainerCallback):
    """How many directions are in use after each step."""

    def __init__(self) -> None:
        self.used: list[int] = []

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        layers = [layer for layer in model.modules() if isinstance(layer, SVDLinear)]
        self.used.append(sum(int((la.lora_E["default"] != 0).sum()) for la in layers))
        self.layers = len(layers)


@pytest.mark.parametrize("architecture", ["qwen3", "gpt2"])
def test_the_budget_of_ranks_ends_at_the_configured_one(architecture: str) -> None:
    options = AdaLoraOptions(rank=4, epochs=40, learning_rate=5e-3)
    ranks, lm = Ranks(), tiny.lm(architecture)
    recipe = Recipe(
        adapter=lambda steps: adalora_config(options, lm.model, steps),
        trainer=AllocatingTrainer,
        callbacks=(Allocate(), ranks),
    )
    edit = train_with(
        recipe, lm, spoken_targets(lm, tiny.FACTS, True), options, Workshop(), "adalora"
    )
    assert ranks.used[1] == 6 * ranks.layers  # the first step is the warm-up's, of length 0
    assert ranks.used[10] > ranks.used[-11] == ranks.used[-1] == 4 * ranks.layers
    sizes = [delta.up.shape[1] for delta in edit.deltas.values() if isinstance(delta, LowRank)]
    assert sum(sizes) == 4 * ranks.layers
    assert len(set(sizes)) > 1  # shared out by importance, not evenly


def test_adalora_shares_out_ranks_with_one_fact_and_one_epoch() -> None:
    edit = AdaLora({"epochs": 1, "rank": 2}, Workshop()).edit(tiny.lm(), tiny.FACTS[:1])
    assert edit.deltas


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_adalora_deltas_are_what_peft_merges(architecture: str) -> None:
    lm, peft = tiny.lm(architecture), _adapted(architecture)
    edit = DeltaEdit(low_rank_deltas(peft), "test")
    merged: Any = peft.merge_and_unload()  # pyright: ignore[reportCallIssue]
    with edit.applied(lm):
        for name, value in lm.model.state_dict().items():
            assert torch.allclose(value, merged.state_dict()[name], atol=1e-6), name


def _adapted(architecture: str = "qwen3", **options: Any) -> PeftModel:
    model = tiny.lm(architecture).model
    config = adalora_config(AdaLoraOptions(rank=4, **options), model, 100)
    config.fan_in_fan_out = architecture == "gpt2"
    peft = get_peft_model(model, config)
    assert isinstance(peft, PeftModel)
    for layer in peft.modules():
        if isinstance(layer, SVDLinear):
            torch.nn.init.normal_(layer.lora_E["default"])
            layer.lora_E["default"].data[1] = 0
    return peft


def test_the_penalty_by_hand() -> None:
    class Factors(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # Rows of length 1 and at right angles; columns of length 2.
            self.lora_A = torch.nn.Parameter(torch.eye(2, 3))
            self.lora_B = torch.nn.Parameter(2 * torch.eye(3, 2))

    # B^T B - I = 3 I, of norm 3 sqrt(2); A contributes nothing; the mean is over both.
    assert not_orthogonal(Factors()).item() == pytest.approx(3 * 2**0.5 / 2)


@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_the_penalty_is_part_of_the_loss(weight: float) -> None:
    peft, lm = _adapted(orthogonality=weight), tiny.lm()
    batch = Collator(1)([row_of(lm, le) for le in spoken_targets(lm, tiny.FACTS, True)])
    trainer = AllocatingTrainer.__new__(AllocatingTrainer)
    trainer.model = peft
    plain = LessonTrainer.compute_loss(trainer, peft, batch).item()
    penalty = not_orthogonal(peft).item()
    assert penalty > 0.1
    loss = trainer.compute_loss(peft, batch).item()
    assert loss == pytest.approx(plain + weight * penalty, rel=1e-5)


# -- interruptions ----------------------------------------------------------------------------


class Stop(Exception):
    pass


def stopping(at: int) -> Callable[[int, int, float], None]:
    def progress(step: int, steps: int, loss: float) -> None:
        if step >= at:
            raise Stop

    return progress


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (FtM, {"epochs": 24, "batch_size": 2, "stop_below": 0.05, "learning_rate": 5e-3}),
        (FtL, {"epochs": 24, "batch_size": 2, "stop_below": 0.0}),
        (AdaLora, {"epochs": 24, "batch_size": 2, "learning_rate": 5e-3, "rank": 2}),
    ],
)
def test_a_killed_training_ends_as_one_that_was_not(
    method: Callable[..., Editor], options: dict[str, Any], tmp_path: Path
) -> None:
    lm = tiny.lm()
    bits = tiny.bits(lm.model)
    straight = edited(method(options, Workshop(seed=3)), lm)
    with pytest.raises(Stop):
        edited(method(options, Workshop(3, tmp_path, progress=stopping(25))), lm)
    assert tiny.same_bits(bits, tiny.bits(lm.model))
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    steps: list[int] = []
    watched = Workshop(3, tmp_path, progress=lambda step, *_: steps.append(step))
    assert tiny.same_bits(straight, edited(method(options, watched), lm))
    assert min(steps) > int(checkpoint.name.split("-")[1]) > 0
    assert tiny.same_bits(bits, tiny.bits(lm.model))


def test_a_checkpoint_of_one_matrix_holds_one_matrix(tmp_path: Path) -> None:
    lm = tiny.lm()
    recipe = Recipe(weights=("model.norm.weight",))
    lessons = spoken_targets(lm, tiny.FACTS, True)
    train_with(recipe, lm, lessons, Schedule(min_steps=20), Workshop(folder=tmp_path), "test")
    (checkpoint,) = tmp_path.glob("checkpoint-*")
    assert list(load_file(checkpoint / WEIGHTS)) == ["model.norm.weight"]
    others = [path for path in checkpoint.glob("*.safetensors") if path.name != WEIGHTS]
    assert others == []


def test_answers_are_scored_as_before_after_an_aborted_training() -> None:
    lm = tiny.lm()
    pairs = [Pair(ask(fact.prompt), fact.target_new) for fact in tiny.FACTS]
    before = lm.logprobs(pairs)
    with pytest.raises(Stop):
        edited(FtM({"epochs": 5}, Workshop(progress=stopping(1))), lm)
    assert lm.logprobs(pairs) == before
    assert all(parameter.requires_grad for parameter in lm.model.parameters())


# -- tuned values -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["adalora", "ft_l", "ft_m", "locft", "mixsd", "qlora", "sdft"])
def test_the_worlds_tuned_values_are_known_options(name: str) -> None:
    path = CONFIGS.parent / "world" / f"{name}.yaml"
    tuned = yaml.safe_load(path.read_text(encoding="utf-8"))
    editor: Any = build(name, tuned, Workshop())
    assert tuned.items() <= editor.options.model_dump(mode="json").items()
