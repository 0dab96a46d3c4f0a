"""A model asked one question at a time by transformers' own calls, as one does without thinking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

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
