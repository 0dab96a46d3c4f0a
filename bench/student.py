"""The student: its memory against plain LoRA fine-tuning, and its seconds a fact.

Plain fine-tuning is TRL's own trainer, as it comes, on the texts of the same lessons, with the same
adapters, batches and steps.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from bench.facts import facts_of
from bench.memory import held, megabytes
from bench.row import Row
from bench.shapes import random_model
from bench.timing import Work, paired
from methods.adapters import lora_config
from methods.base import Lesson, Workshop
from methods.restore import as_found
from methods.sft import arguments
from methods.student import Student
from ske.backends.local import LocalLM, load
from ske.config import ModelConfig
from ske.lm import Pair, Sampling, ask
from ske.training import SftOptions

FEW, MANY, TOP_K = 64, 1024, 20
OPTIONS: dict[str, Any] = {"epochs": 1, "batch_size": 32}


def measure(long: bool) -> list[Row]:
    """Peak memory on the embedded world's base model; times on a tiny one."""
    return [
        _memory(load(ModelConfig())),
        _flat(load(ModelConfig()) if long else random_model("tiny")),
    ]


def _memory(lm: LocalLM) -> Row:
    lessons = lessons_of(lm, FEW)
    ours = held(lambda: student(lm, lessons), lm.device).peak
    plain = held(lambda: stock(lm, lessons), lm.device).peak
    what = f"student: peak memory beyond the model, {len(lessons)} lessons"
    return Row(what, megabytes(ours), megabytes(plain), [ours / plain], at_most=1.3)


def _flat(lm: LocalLM) -> Row:
    many, few = lessons_of(lm, MANY), lessons_of(lm, FEW)
    found = paired(
        Work(lambda: student(lm, many), MANY), Work(lambda: student(lm, few), FEW), 3,
        warm=lambda: student(lm, few),
    )  # fmt: skip
    what = f"student: seconds a fact, {MANY} facts against {FEW}"
    growth = [1 / ratio for ratio in found.ratios]
    return Row(what, *found.seconds(), growth, at_most=1.1)


def lessons_of(lm: LocalLM, n: int) -> list[Lesson]:
    """For each fact its own lesson, and a neighbour that is held to the base's distribution."""
    facts = facts_of(n)
    near = [ask(f"Who knows {fact.subject}?") for fact in facts]
    said = [reply.text or "?" for reply in lm.generate(near, Sampling(max_new_tokens=4))]
    scored = lm.logprobs([Pair(c, s) for c, s in zip(near, said, strict=True)], TOP_K)
    own = [Lesson(chat=ask(f.prompt), completion=f.target_new, fact=f.id) for f in facts]
    kept = [
        Lesson(
            chat=chat,
            completion=text,
            kind="neighbour",
            ids=tuple(one.tokens),
            top_ids=tuple(map(tuple, one.top_ids)),
            top_logprobs=tuple(map(tuple, one.top_logprobs)),
        )
        for chat, text, one in zip(near, said, scored, strict=True)
    ]
    return [*own, *kept]


def student(lm: LocalLM, lessons: Sequence[Lesson], **options: Any) -> None:
    """Train on lessons once."""
    Student({**OPTIONS, **options}, Workshop(lessons=lambda: lessons)).edit(lm, [])


def stock(lm: LocalLM, lessons: Sequence[Lesson]) -> None:
    """TRL's trainer on the lessons' texts."""
    options = SftOptions(**OPTIONS)
    rows = [
        {"prompt": lm.renderer.text(lesson.chat), "completion": " " + lesson.completion}
        for lesson in lessons
    ]
    with tempfile.TemporaryDirectory() as folder, as_found(lm.model):
        own = arguments(lm, options, Workshop(), Path(folder), len(rows))
        trainer: Any = SFTTrainer(
            model=lm.model,
            args=SFTConfig(**own, completion_only_loss=True),
            train_dataset=Dataset.from_list(rows),
            processing_class=lm.tokenizer,
            peft_config=lora_config(options, lm.model),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        trainer.model.unload()
