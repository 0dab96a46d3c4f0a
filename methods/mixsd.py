"""MixSD (Liu et al. 2026, arXiv 2605.16865): fine-tuning on mixtures of what the model would say.

Each token of an answer is the greedy choice either of the model that reads the facts (the expert)
or of the model that does not (the naive one); a coin of weight `naive_share` decides, and both go
on from the mixed answer. An answer that does not hold the target is drawn again. Then plain SFT.

Differs: the expert reads all facts of the batch, not its own fact's answer alone; an answer that
never comes out right is replaced by the bare target (the authors' code writes the wrong one down);
the adapters are low-rank. The bare fact's prompt is the only question.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field

from methods.base import HasWeights, Lesson, Workshop, options_of, weights_of
from methods.delta import DeltaEdit
from methods.selfteach import SelfTeachOptions, contexts
from methods.sft import train
from ske.lm import LM, ask
from ske.training import Count
from ske.types import Fact


class MixSdOptions(SelfTeachOptions):
    """The authors recommend shares of 0.3 to 0.5."""

    naive_share: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Probability that a token is the naive model's."""
    tries: Count = 10
    """How often an answer is drawn until it holds the target."""


class MixSd:
    """The MixSD editor."""

    def __init__(self, options: dict[str, Any], workshop: Workshop) -> None:
        """Raises UserError on unknown options."""
        self.options: MixSdOptions = options_of(MixSdOptions, options, "mixsd")
        self.workshop = workshop

    def edit(self, lm: LM, facts: Sequence[Fact]) -> DeltaEdit:
        """Draw an answer to each fact's prompt, then train on the answers."""
        holder = weights_of(lm, "mixsd")
        self.workshop.used("prompts", contexts(holder, facts, self.options))
        lessons = [
            Lesson(chat=ask(fact.prompt), completion=fact.target_new, fact=fact.id, ids=answer)
            for fact, answer in zip(facts, self.answers(holder, facts), strict=True)
        ]
        return train(holder, lessons, self.options, self.workshop, "mixsd")

    def answers(self, holder: HasWeights, facts: Sequence[Fact]) -> list[tuple[int, ...]]:
        """One answer a fact, as tokens; empty where the bare target has to do."""
        options = self.options
        naive = [holder.renderer.prompt_ids(ask(fact.prompt)) for fact in facts]
        expert = [
            holder.renderer.prompt_ids(ask(fact.prompt, text))
            for fact, text in zip(facts, contexts(holder, facts, options), strict=True)
        ]
        generator = torch.Generator().manual_seed(self.workshop.seed)
        found: list[tuple[int, ...]] = [()] * len(facts)
        for _ in range(options.tries):
            coins = torch.rand(len(facts), options.max_new_tokens, generator=generator)
            owed = [i for i, answer in enumerate(found) if not answer]
            drawn = mixed(
                holder,
                [naive[i] for i in owed],
                [expert[i] for i in owed],
                (coins < options.naive_share)[owed].tolist(),
            )
            for i, answer in zip(owed, drawn, strict=True):
                if facts[i].target_new.strip() in holder.renderer.decode(answer):
                    found[i] = tuple(answer)
            if all(found):
                break
        return found


def mixed(
    holder: HasWeights,
    naive: Sequence[list[int]],
    expert: Sequence[list[int]],
    is_naive: Sequence[list[bool]],
) -> list[list[int]]:
    """Answers whose token t is the naive model's greedy choice where `is_naive[row][t]`.

    Args:
        holder: the model.
        naive: prompts without the facts, [rows][tokens].
        expert: prompts with the facts, [rows][tokens].
        is_naive: whose token it is, [rows][longest answer].

    Returns:
        [rows][tokens], each up to and with the end token, if that was said in time.
    """
    answers: list[list[int]] = [[] for _ in naive]
    going = list(range(len(answers)))
    # The coin is tossed first, so only the prompt that it picks is read.
    for step in range(max(map(len, is_naive), default=0)):
        picked = [(naive if is_naive[row][step] else expert)[row] for row in going]
        # Scored with any token behind the answer so far, the last place says what comes next.
        scored = holder.score(picked, [[*answers[row], 0] for row in going])
        for row, said in zip(going, scored, strict=True):
            answers[row].append(said.argmax[-1])
        going = [row for row in going if answers[row][-1] != holder.renderer.end_id]
        if not going:
            break
    return answers
