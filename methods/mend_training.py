"""Trains MEND's transform: edits practice facts again and again, and learns from what came of it.

An episode edits some facts at once, then asks other wordings of them (the edit loss) and unrelated
prompts (KL divergence from the model as it was): Mitchell et al. 2022 (arXiv 2110.11309), section
3.2, equation 5. Several episodes share a forward pass, each with an update of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from pydantic import Field
from transformers.modeling_utils import PreTrainedModel

from methods.arch import Projection
from methods.base import HasWeights, Practice
from methods.mend_factors import (
    Batch,
    Factors,
    Row,
    answer_nll,
    collate,
    gradient_factors,
    log_probs,
    updated,
)
from methods.mend_state import Progress, load_progress, save_progress
from methods.mend_transform import Transforms
from ske.lm import Chat, ask
from ske.types import Frozen, UserError


class MendOptions(Frozen):
    """The authors' values, but for `epochs` and what says otherwise."""

    layers: int = Field(default=3, ge=1)
    """The MLPs of so many last layers are edited."""
    rank: int = Field(default=1920, ge=1)
    """Width inside the transform's layers; at most in + out of a matrix."""
    normalise: bool = True
    """Whether factors are normalised by their running statistics before they are transformed."""
    edit_lr: float = Field(default=1e-4)
    """What each matrix's learned learning rate starts from."""
    learning_rate: float = Field(default=1e-6, gt=0)
    """Adam's, for the transform; small models want more."""
    lr_learning_rate: float = Field(default=1e-4, gt=0)
    """Adam's, for the learned learning rates."""
    edit_weight: float = Field(default=0.1, gt=0)
    """c_edit: weight of the edit loss."""
    locality_weight: float = Field(default=1.0, ge=0)
    """c_loc: weight of the divergence on unrelated prompts."""
    edits: int = Field(default=1, ge=1)
    """Facts edited at once in an episode."""
    unrelated: int = Field(default=1, ge=1)
    """Unrelated prompts asked for each edited fact."""
    own_prompt: bool = False
    """Whether the fact's own prompt is asked, too, and not only another wording of it."""
    batch_size: int = Field(default=10, ge=1)
    """Episodes in one step (10, one after the other, with the authors)."""
    forward_size: int = Field(default=10, ge=1)
    """Episodes in one forward pass; gradients of several passes add up to a step."""
    epochs: float = Field(default=100.0, gt=0)
    """Each practice fact is edited so often; the authors' limit is a million episodes."""
    clip: float = Field(default=100.0, gt=0)
    """Largest norm of the gradient."""
    validation: float = Field(default=0.1, gt=0, lt=1)
    """Share of the practice subjects that is kept for early stopping."""
    validate_every: int = Field(default=25, ge=1)
    """Steps between two validations."""
    patience: int = Field(default=20, ge=1)
    """Training ends after so many validations without a new best one."""


class Drill(NamedTuple):
    """A practice fact as tokens."""

    subject: str
    fact: Row
    wordings: tuple[Row, ...]
    unrelated: tuple[Row, ...]


class Episodes(NamedTuple):
    """Some independent episodes, as rows; each takes an equal share of both batches."""

    facts: Batch
    asked: Batch
    """For each episode its wordings first, then its unrelated prompts."""
    wordings: torch.Tensor
    """[rows of asked], whether a row is a wording of an edited fact."""
    number: int


def row(holder: HasWeights, chat: Chat, answer: str) -> Row:
    """A chat and its answer, which ends."""
    prompt = holder.renderer.prompt_ids(chat)
    return Row([*prompt, *holder.renderer.answer_ids(chat, answer, end=True)], len(prompt))


def drills(holder: HasWeights, practice: Sequence[Practice]) -> list[Drill]:
    """Practice as tokens. A fact without another wording is asked in its own.

    Raises:
        UserError: no practice, or none of it has unrelated prompts.
    """
    require_unrelated(practice)
    made = []
    for item in practice:
        fact = row(holder, ask(item.fact.prompt), item.fact.target_new)
        said = [row(holder, ask(text), item.fact.target_new) for text in item.paraphrases]
        stay = [row(holder, ask(text), answer) for text, answer in item.unrelated]
        made.append(Drill(item.fact.subject, fact, tuple(said or [fact]), tuple(stay)))
    return made


def require_unrelated(practice: Sequence[Practice]) -> None:
    """Raises UserError unless the practice says, for some fact, what an edit must leave alone."""
    if not any(item.unrelated for item in practice):
        raise UserError(
            f"method 'mend': {len(practice)} practice facts, none with unrelated prompts; it "
            "learns to edit from solved examples that are not to be edited, with other wordings "
            "and with prompts whose answers must stay. Set practice.path to a data set that has "
            "them (`ske datasets` lists the forms), or leave mend out of `methods`"
        )


def split(made: Sequence[Drill], share: float) -> tuple[list[Drill], list[Drill]]:
    """To train on and to validate on, by subject; with one subject, all for both."""
    subjects = sorted({drill.subject for drill in made})
    random.Random("validation").shuffle(subjects)
    held = set(subjects[: max(1, round(share * len(subjects)))])
    kept = [drill for drill in made if drill.subject in held]
    rest = [drill for drill in made if drill.subject not in held]
    return (rest, kept) if rest else (list(made), list(made))


class Trainer:
    """Training of one transform on one model."""

    def __init__(
        self,
        holder: HasWeights,
        matrices: Sequence[Projection],
        transforms: Transforms,
        made: Sequence[Drill],
        options: MendOptions,
        seed: int,
    ) -> None:
        """`transforms` are trained in place."""
        self.model: PreTrainedModel = holder.model
        self.matrices, self.transforms, self.options = matrices, transforms, options
        self.seed = seed
        self.pad = holder.renderer.end_id or 0
        self.train_drills, self.held_drills = split(made, options.validation)
        self.pool = [text for drill in made for text in drill.unrelated]
        lrs = transforms.edit_lrs
        rest = [p for p in transforms.parameters() if p is not lrs]
        self.optimizer = torch.optim.Adam(
            [{"params": rest}, {"params": [lrs], "lr": options.lr_learning_rate}],
            lr=options.learning_rate,
        )
        facts_a_step = options.batch_size * options.edits
        self.steps = max(1, round(options.epochs * len(self.train_drills) / facts_a_step))

    # -- the loop -------------------------------------------------------------------------------

    def run(self, path: Path | None, report: Callable[[int, int, float], None]) -> Progress:
        """Train, and leave the best parameters in the transforms.

        With `path`, what has been reached is kept there at every validation, and a killed training
        goes on from there with the same result.
        """
        progress = load_progress(path, self.transforms, self.optimizer)
        if progress is None:
            self._observe_some()
            progress = Progress(0, 0, self.validate(), 0.0, self._copy())
        start, every = progress.step, self.options.validate_every
        for step in range(start + 1, self.steps + 1):
            if progress.waited >= self.options.patience:
                break
            loss = self.step(step)
            report(step, self.steps, loss)
            if step % every == 0 or step == self.steps:
                progress = self._judged(progress, step)
                if path is not None:
                    save_progress(path, self.transforms, self.optimizer, progress)
        self.transforms.load_state_dict(progress.best)
        return progress

    def _judged(self, before: Progress, step: int) -> Progress:
        loss = self.validate()
        if loss < before.best_loss:
            return Progress(step, step, loss, loss, self._copy())
        return before._replace(step=step, last_loss=loss, waited=before.waited + 1)

    def _copy(self) -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in self.transforms.state_dict().items()}

    def _observe_some(self) -> None:
        """Statistics of a first batch, so that the untrained transform can be validated."""
        batch = self.draw(self.train_drills, random.Random(f"{self.seed} first"), 10).facts
        self.transforms.observe(gradient_factors(self.model, self.matrices, batch))

    def step(self, number: int) -> float:
        """One step of Adam; what is drawn depends on the seed and the step alone."""
        rng = random.Random(f"{self.seed} {number}")
        self.optimizer.zero_grad()
        total, left = 0.0, self.options.batch_size
        while left:
            count = min(left, self.options.forward_size)
            share = count / self.options.batch_size
            loss = self.loss(self.draw(self.train_drills, rng, count), learning=True) * share
            loss.backward()
            total, left = total + float(loss.detach()), left - count
        norm = torch.nn.utils.clip_grad_norm_(self.transforms.parameters(), self.options.clip)
        if torch.isfinite(norm):  # else the edits of this batch broke the model beyond numbers
            self.optimizer.step()
        return total

    @torch.no_grad()
    def validate(self) -> float:
        """Mean loss on subjects that are not trained on, in the same episodes every time."""
        rng = random.Random(f"{self.seed} validation")
        edits, size = self.options.edits, self.options.forward_size
        episodes = max(1, round(2 * len(self.held_drills) / edits))
        losses = [
            min(size, episodes - first)
            * float(self.loss(self.draw(self.held_drills, rng, min(size, episodes - first))))
            for first in range(0, episodes, size)
        ]
        return sum(losses) / episodes

    # -- one batch of episodes ------------------------------------------------------------------

    def draw(self, drills: Sequence[Drill], rng: random.Random, count: int) -> Episodes:
        """Episodes of facts that are drawn together without repetition."""
        options = self.options
        facts: list[Row] = []
        asked: list[Row] = []
        wordings: list[bool] = []
        for _ in range(count):
            # Fewer facts than an episode takes: they are drawn again.
            chosen = _sample(rng, drills, options.edits)
            facts += [drill.fact for drill in chosen]
            said = [rng.choice(drill.wordings) for drill in chosen]
            said += [drill.fact for drill in chosen] if options.own_prompt else []
            stay = [
                rng.choice(drill.unrelated if drill.unrelated and rng.random() < 0.5 else self.pool)
                for drill in chosen
                for _ in range(options.unrelated)
            ]
            asked += [*said, *stay]
            wordings += [True] * len(said) + [False] * len(stay)
        device = self.model.device
        return Episodes(
            collate(facts, self.pad, device),
            collate(asked, self.pad, device),
            torch.tensor(wordings, device=device),
            count,
        )

    def loss(self, episodes: Episodes, learning: bool = False) -> torch.Tensor:
        """`edit_weight` x edit loss + `locality_weight` x divergence, means over rows, in nats."""
        gradients = gradient_factors(self.model, self.matrices, episodes.facts)
        gradients = [together(part, episodes.number) for part in gradients]
        updates = self.transforms(gradients, learning)
        asked, wordings = episodes.asked, episodes.wordings
        stay = Batch(*(part[~wordings] for part in asked))
        with torch.no_grad():
            before, weights = log_probs(self.model, stay)
        with updated(self.matrices, updates):
            spoken, all_weights = log_probs(self.model, asked)
        edited = wordings[(asked.labels[:, 1:] != -100).nonzero()[:, 0]]
        said = Batch(*(part[wordings] for part in asked))
        edit = answer_nll(spoken[edited], all_weights[edited], said) / wordings.sum()
        divergence = (before.exp() * (before - spoken[~edited])).sum(-1)
        local = (divergence * weights).sum() / (~wordings).sum()
        return self.options.edit_weight * edit + self.options.locality_weight * local


def together(factors: Factors, episodes: int) -> Factors:
    """[facts, tokens, ...] -> [episodes, facts of one x tokens, ...]: an edit is their sum."""
    return Factors(*(part.reshape(episodes, -1, part.shape[-1]) for part in factors))


def _sample(rng: random.Random, drills: Sequence[Drill], count: int) -> list[Drill]:
    if count <= len(drills):
        return rng.sample(list(drills), count)
    return rng.choices(list(drills), k=count)
