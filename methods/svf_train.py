"""Trains the z of SVF: by cross-entropy on targets, or by REINFORCE on sampled replies.

z = sigmoid(p) * max_mult, and only p is trained, in factor space. What is kept is not the last p
but the one that answered most examples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from methods.base import HasWeights, Workshop
from methods.svf_layers import FactorSpace, scaled
from methods.svf_losses import (
    Example,
    Row,
    cross_entropy,
    held_to_base,
    policy_gradient,
    row_of,
    scores,
)
from methods.svf_options import SvfOptions
from ske.facts import same_text
from ske.lm import LM, Sampling, ask
from ske.types import UserError, content_hash

CHECKPOINT = "svf.pt"
GENERAL_TOKENS = 64
"""Of each general text; more of one text says little more."""


class SvfTrainer:
    """One training of one z; all trainings on a model share its factor space."""

    def __init__(
        self, space: FactorSpace, lm: HasWeights, options: SvfOptions, workshop: Workshop
    ) -> None:
        """`space` is installed on `lm`'s model."""
        self.space, self.lm, self.options, self.workshop = space, lm, options, workshop
        self.p = self._start()
        self.optimizer = torch.optim.Adam(self.p.values(), lr=options.learning_rate)
        self.step, self.best = 0, (-1.0, -math.inf)
        self.kept = {name: p.detach().clone() for name, p in self.p.items()}

    def train(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """The z that answers these examples best, by weight name, fp32 on the CPU.

        With a folder in the workshop, a killed training goes on there with the same result.
        """
        texts = (text for e in examples for text in (*(m["content"] for m in e.chat), e.answer))
        self.workshop.used("training", texts)
        self._resume()
        learned, checked = self._split(examples)
        general = self._general()
        in_a_pass = math.ceil(len(learned) / self.options.batch_size)
        steps = max(1, round(self.options.epochs * in_a_pass))
        done = False
        while self.step < steps and not done:
            batch = self._batch(learned, in_a_pass)
            loss = self._improve(batch, general)
            self.step += 1
            done = self.options.objective == "sft" and loss < self.options.stop_below
            if done or self.step % self.options.check_every == 0 or self.step == steps:
                self._check(checked)
            self.workshop.progress(self.step, steps, loss)
        return {name: self._z(p).cpu() for name, p in self.kept.items()}

    # -- one step -------------------------------------------------------------------------------

    def _improve(self, batch: Sequence[Example], general: Sequence[Row]) -> float:
        """One step of Adam. The gradient stops at the scales and goes on to p once a batch."""
        scales = self._scales()
        leaves = {name: scale.detach().requires_grad_() for name, scale in scales.items()}
        total = 0.0
        with torch.enable_grad(), self.space.using(leaves):
            for loss in self._losses(batch, general):
                loss.backward()
                total += loss.item()
        touched = [name for name in scales if leaves[name].grad is not None]
        if touched:
            torch.autograd.backward(
                [scales[name] for name in touched], [leaves[name].grad for name in touched]
            )
            torch.nn.utils.clip_grad_norm_(self.p.values(), self.options.max_grad_norm)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return total

    def _losses(self, batch: Sequence[Example], general: Sequence[Row]) -> Iterator[torch.Tensor]:
        weight = self.options.kl_weight
        if self.options.objective == "reinforce":
            if rows := self._sampled(batch):
                yield from policy_gradient(self.lm, self.space, rows, weight)
            return
        yield from cross_entropy(self.lm, [row_of(self.lm, *example) for example in batch])
        if weight > 0 and general:
            draw = torch.randperm(len(general), generator=self._draw("general", self.step))
            some = [general[i] for i in draw[: self.options.batch_size].tolist()]
            yield from held_to_base(self.lm, self.space, some, weight)

    def _sampled(self, batch: Sequence[Example]) -> list[Row]:
        """One reply a chat at temperature 1, with its reward: 1 for the target, else -1."""
        if not isinstance(self.lm, LM):
            raise UserError(f"objective 'reinforce' samples, and {type(self.lm).__name__} cannot")
        longest = max(len(row_of(self.lm, *example).ids) for example in batch)
        prompts = min(len(self.lm.renderer.prompt_ids(example.chat)) for example in batch)
        seed = int(self._draw("replies", self.step).initial_seed() % 2**31)
        sampling = Sampling(max_new_tokens=longest - prompts, temperature=1.0, seed=seed)
        with torch.no_grad():
            replies = self.lm.generate([example.chat for example in batch], sampling)
        right = [
            same_text(r.text) == same_text(e.answer) for r, e in zip(replies, batch, strict=True)
        ]
        rewards = torch.tensor([1.0 if one else -1.0 for one in right])
        if self.options.normalise_rewards:
            rewards = (rewards - rewards.mean()) / rewards.std(correction=0).clamp(min=1e-7)
        rows = [
            row_of(self.lm, example.chat, reply.text, reply.finished)._replace(reward=reward)
            for example, reply, reward in zip(batch, replies, rewards.tolist(), strict=True)
        ]
        return [row for row in rows if len(row.ids) > row.start]

    def _check(self, checked: Sequence[Row]) -> None:
        """Keep p if it answers more than the best one, or as many and more surely."""
        with torch.no_grad(), self.space.using(self._scales()):
            score = scores(self.lm, checked)
        if score > self.best:
            self.best = score
            self.kept = {name: p.detach().clone() for name, p in self.p.items()}
        self._save()

    # -- p and z --------------------------------------------------------------------------------

    def _start(self) -> dict[str, torch.Tensor]:
        options, draw = self.options, self._draw("start", 0)
        # Without renormalising, z starts at 1: p = logit(1 / max_mult).
        mean = options.init if options.renormalise else -math.log(options.max_mult - 1)
        return {
            name: (torch.randn(len(f.s), generator=draw) * options.init_noise + mean)
            .to(f.s.device)
            .requires_grad_()
            for name, f in self.space.factors.items()
        }

    def _z(self, p: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(p) * self.options.max_mult

    def _scales(self) -> dict[str, torch.Tensor]:
        return {
            name: scaled(self.space.factors[name], self._z(p), self.options.renormalise)
            for name, p in self.p.items()
        }

    # -- examples -------------------------------------------------------------------------------

    def _split(self, examples: Sequence[Example]) -> tuple[list[Example], list[Row]]:
        """What is learned, and the rows that choose the best z."""
        held = min(round(len(examples) * self.options.held_back), len(examples) - 1)
        order = torch.randperm(len(examples), generator=self._draw("split", 0)).tolist()
        learned = [examples[i] for i in sorted(order[held:])]
        chosen = [examples[i] for i in sorted(order[:held])] or learned
        return learned, [row_of(self.lm, *example) for example in chosen]

    def _general(self) -> list[Row]:
        """General texts as replies to an empty question, cut to `GENERAL_TOKENS`."""
        if self.options.kl_weight == 0 or self.workshop.texts is None:
            return []
        rows = [row_of(self.lm, ask(""), text, end=False) for text in self.workshop.texts()]
        return [Row(row.ids[: row.start + GENERAL_TOKENS], row.start) for row in rows]

    def _batch(self, learned: Sequence[Example], in_a_pass: int) -> list[Example]:
        number, place = divmod(self.step, in_a_pass)
        order = torch.randperm(len(learned), generator=self._draw("order", number)).tolist()
        size = self.options.batch_size
        return [learned[i] for i in order[place * size : (place + 1) * size]]

    def _draw(self, purpose: str, number: int) -> torch.Generator:
        """A generator of its own for every purpose and step: a resumed training draws the same."""
        seed = int(content_hash([self.workshop.seed, purpose, number]), 16)
        return torch.Generator().manual_seed(seed % 2**63)

    # -- checkpoints ----------------------------------------------------------------------------

    def _save(self) -> None:
        if self.workshop.folder is None:
            return
        self.workshop.folder.mkdir(parents=True, exist_ok=True)
        path = self.workshop.folder / CHECKPOINT
        state: dict[str, Any] = {
            "step": self.step,
            "best": self.best,
            "kept": self.kept,
            "p": {name: p.detach() for name, p in self.p.items()},
            "optimizer": self.optimizer.state_dict(),
        }
        unfinished = path.with_suffix(".tmp")
        torch.save(state, unfinished)
        unfinished.replace(path)

    def _resume(self) -> None:
        path: Path | None = self.workshop.folder and self.workshop.folder / CHECKPOINT
        if path is None or not path.exists():
            return
        state = torch.load(path, weights_only=True, map_location=self.lm.model.device)
        self.step, self.best, self.kept = state["step"], tuple(state["best"]), state["kept"]
        with torch.no_grad():
            for name, p in self.p.items():
                p.copy_(state["p"][name])
        self.optimizer.load_state_dict(state["optimizer"])
