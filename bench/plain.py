"""One thing at a time by transformers' own calls, as one does without thinking: the references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from methods.hooks import adding, at_rest, padded, wide
from methods.keyvalue import Asked, KeyValueOptions, Query
from ske.backends.common import reply_of
from ske.backends.local import LocalLM
from ske.lm import Chat, Pair, Reply, Sampling, Scored


class Plain:
    """An `LM`: a call of `generate`, or of the model, for each chat."""

    def __init__(self, lm: LocalLM) -> None:
        """The weights and tokens of `lm`."""
        self.lm = lm

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Reply]:
        """Greedy replies."""
        return [self._reply(chat, sampling) for chat in chats]

    @torch.no_grad()
    def logprobs(self, pairs: Sequence[Pair], top_k: int = 0) -> list[Scored]:
        """The whole text is read for each answer."""
        return [self._scored(pair, top_k) for pair in pairs]

    def _reply(self, chat: Chat, sampling: Sampling) -> Reply:
        renderer = self.lm.renderer
        prompt = renderer.prompt_ids(chat)
        ids = torch.tensor([prompt], device=self.lm.device)
        model: Any = self.lm.model
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=sampling.max_new_tokens,
            do_sample=False,
            eos_token_id=renderer.end_id,
            pad_token_id=renderer.end_id,
        )
        ends = [] if renderer.end_id is None else [renderer.end_id]
        return reply_of(renderer, prompt, output[0, len(prompt) :].tolist(), ends, sampling)

    def _scored(self, pair: Pair, top_k: int) -> Scored:
        prompts, answers = self.lm.renderer.pairs_ids([pair])
        answer, start = answers[0], len(prompts[0]) - 1
        ids = torch.tensor([prompts[0] + answer], device=self.lm.device)
        rows = torch.log_softmax(self.lm.model(input_ids=ids).logits[0, start:-1], dim=-1)
        own = rows.gather(1, torch.tensor(answer, device=rows.device)[:, None])[:, 0]
        top = rows.topk(min(top_k, rows.shape[1]))
        return Scored(
            answer,
            own.tolist(),
            rows.argmax(-1).tolist(),
            top.indices.tolist(),
            top.values.tolist(),
        )


def change(
    lm: LocalLM, module: nn.Module, before: torch.Tensor, one: Query, options: KeyValueOptions
) -> torch.Tensor:
    """One fact's value as `methods.values` defines it, by whole forward passes over its prompts.

    Args:
        lm: The model.
        module: Whose output is changed.
        before: That output at the bare prompt, [hidden].
        one: The fact.
        options: Steps, rates and weights.

    Returns:
        What to add at the subject's last token, [hidden].
    """
    texts = [[*row.prompt, *row.answer[:-1]] for row in one.rows] + [one.essence.beginning]
    rows = padded(texts, lm.device)
    numbers = torch.arange(len(texts), device=lm.device)
    places = torch.tensor([row.place for row in (*one.rows, one.essence)], device=lm.device)
    delta = torch.zeros_like(before, requires_grad=True)
    adam = torch.optim.Adam([delta], lr=options.learning_rate)
    essence = torch.empty(0)
    with at_rest(lm.model), torch.enable_grad():
        for step in range(options.steps):
            with adding(module, numbers, places, delta.expand(len(texts), -1), len(texts)):
                log_p = torch.log_softmax(wide(lm.model(**rows.kwargs).logits), dim=-1)
            spoken = log_p[-1, one.essence.place]
            if step == 0:
                essence = spoken.detach()
            loss = torch.stack([_nll(log_p[i], row) for i, row in enumerate(one.rows)]).mean()
            loss = loss + options.kl_weight * (spoken.exp() * (spoken - essence)).sum()
            loss = loss + options.weight_decay * delta.norm() / before.norm() ** 2
            if loss < options.stop_loss or step == options.steps - 1:
                break
            adam.zero_grad()
            loss.backward()
            adam.step()
            with torch.no_grad():
                longest = options.clamp * before.norm()
                delta.mul_((longest / delta.norm().clamp(min=1e-30)).clamp(max=1.0))
    return delta.detach()


def _nll(log_p: torch.Tensor, row: Asked) -> torch.Tensor:
    """Mean over a target's tokens; `log_p` is [tokens, vocabulary]."""
    begin = len(row.prompt) - 1
    told = torch.tensor(row.answer, device=log_p.device)
    return -log_p[begin : begin + len(row.answer)].gather(1, told[:, None]).mean()
