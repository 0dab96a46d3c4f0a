"""A transformers model in this process, as an `LM`.

Chats that share a beginning (a teacher's PROMPT and its many questions) share its key/value cache:
the beginning is read once, then repeated over the batch. Ragged questions are padded between the
shared beginning and the question, which is the only place where padding leaves the answers as
they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, DynamicCache, GenerationConfig
from transformers.modeling_utils import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from ske import processes
from ske.backends.caching import cache_of, with_cache
from ske.backends.common import (
    load_tokenizer,
    refuse_beyond,
    reply_of,
    see_folder,
    unloadable,
    window_of,
)
from ske.backends.encoding import alike
from ske.backends.render import Renderer
from ske.backends.shared import apart, narrowed, reads_apart, repeated
from ske.config import ModelConfig, found
from ske.lm import Chat, Pair, Reply, Sampling, Scored
from ske.types import UserError

_SHARED_AT_LEAST = 16
"""Shorter common beginnings are not worth a cache of their own."""
_WORTH = 1024
"""Tokens that a group must spare to be read by itself: a batch of its own costs time, too."""
_ENDING = (2, 2, 4, 8)
"""After so many tokens each, replies that have ended leave their batch."""
_LONG = 8
"""Replies that go on after so many tokens are read again, to go on together in new batches."""
_CACHED = 0.25
"""What a token of a copied cache weighs in a batch: it has keys and values, but no activations."""
_APART_AT_LEAST = 128
"""Shorter beginnings are faster copied than attended to apart."""


_ENOUGH, _RAGGED = 1 / 8, 1.7
"""A batch that has this share of `batch_tokens` takes no row so many times as long as its first."""


class Group(NamedTuple):
    """Items whose ids begin alike."""

    prefix: list[int]
    members: list[int]


class LocalLM:
    """`LM` over a loaded model; also the weights that editors work on."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        style: str = "auto",
        batch_tokens: int = 8192,
        name: str = "model",
    ) -> None:
        """Takes a model as it is; `batch_tokens` bounds rows x length of a forward pass."""
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.renderer = Renderer(tokenizer, style)
        self.batch_tokens = batch_tokens
        self.name = name
        self._apart: bool | None = None
        """Whether the model reads beginnings apart from what follows; None: not tried yet."""

    @property
    def device(self) -> torch.device:
        """Where the model's first weights are."""
        return self.model.device

    @property
    def window(self) -> int | None:
        """The most tokens the model can read; None if its configuration sets no limit."""
        return window_of(self.model.config)

    # -- LM -------------------------------------------------------------------------------------

    @torch.no_grad()
    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Reply]:
        """Continue each chat; greedy unless `sampling.temperature` > 0.

        Raises:
            TooLong: a chat and its reply may not fit into the model's context window.
        """
        prompts = self.renderer.prompts_ids(chats)
        room = sampling.max_new_tokens
        refuse_beyond(self.window, ((len(prompt), room) for prompt in prompts), self.name)
        ends = self._end_ids()
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(sampling.seed)
            said = self._said(prompts, sampling)
        return [
            reply_of(self.renderer, prompt, ids, ends, sampling)
            for prompt, ids in zip(prompts, said, strict=True)
        ]

    def _said(self, prompts: Sequence[list[int]], sampling: Sampling) -> list[list[int]]:
        """The ids that follow each prompt, with what ends them."""
        said: list[list[int]] = [[] for _ in prompts]
        ends = set(self._end_ids())
        width = lambda i: len(prompts[i]) + len(said[i])  # noqa: E731
        for group in _groups(prompts):
            cache, going = self._read(group.prefix), group.members
            for tokens in _stretches(sampling, _LONG, sampling.max_new_tokens):
                part = sampling.model_copy(update={"max_new_tokens": tokens})
                for batch in [*self._batches(group._replace(members=going), width, tokens)]:
                    rows = [prompts[i] + said[i] for i in batch]
                    outputs = self._continue(group.prefix, cache, rows, part)
                    for index, ids in zip(batch, outputs, strict=True):
                        said[index] += ids
                going = [i for i in going if ends.isdisjoint(said[i])]
        return said

    @torch.no_grad()
    def logprobs(self, pairs: Sequence[Pair], top_k: int = 0) -> list[Scored]:
        """Teacher forcing: the probability of each answer token after its chat."""
        prompts, answers = self.renderer.pairs_ids(pairs)
        return self.score(prompts, answers, top_k)

    @torch.no_grad()
    def score(
        self, prompts: Sequence[list[int]], answers: Sequence[list[int]], top_k: int = 0
    ) -> list[Scored]:
        """`logprobs` for ids: answers[i] after prompts[i].

        Raises:
            TooLong: a prompt and its answer do not fit into the model's context window.
        """
        sizes = ((len(p), len(a)) for p, a in zip(prompts, answers, strict=True))
        refuse_beyond(self.window, sizes, self.name)
        results: list[Scored | None] = [None] * len(prompts)
        for group in _groups(prompts):
            cache = self._read(group.prefix)
            width = lambda i: len(prompts[i]) + len(answers[i])  # noqa: E731
            for batch in self._batches(group, width):
                rows = [prompts[i] + answers[i] for i in batch]
                # Where the first answer is predicted: what is before needs no logits.
                first = min(len(prompts[i]) for i in batch) - 1
                logits = self._forward(group.prefix, cache, rows, first)
                starts = [len(prompts[i]) - 1 - first for i in batch]
                scored = _scored(logits, starts, [answers[i] for i in batch], top_k)
                for index, one in zip(batch, scored, strict=True):
                    results[index] = one
        return [result for result in results if result is not None]

    # -- shared beginnings ----------------------------------------------------------------------

    def _read(self, prefix: list[int]) -> DynamicCache | None:
        """The key/value cache of a shared beginning; None if there is none to share."""
        if not prefix:
            return None
        ids = torch.tensor([prefix], device=self.device)
        cache = DynamicCache(config=self.model.config)
        how = with_cache(self.model.forward, cache)
        self.model(input_ids=ids, use_cache=True, logits_to_keep=1, **how)
        if self._apart is None and len(prefix) >= _APART_AT_LEAST:
            self._apart = reads_apart(self.model, cache, prefix[:4])
        return cache

    def _over(
        self, cache: DynamicCache | None, rows: int, room: int
    ) -> AbstractContextManager[DynamicCache | None]:
        """The cache of a beginning under so many rows, each with room for so many tokens."""
        if cache is None:
            return nullcontext()
        if self._apart and cache.get_seq_length() >= _APART_AT_LEAST:
            return apart(self.model, cache, rows, room)
        return nullcontext(repeated(cache, rows, room))

    def _batches(
        self, group: Group, width: Callable[[int], int], room: int = 0
    ) -> Iterator[list[int]]:
        """Members in batches of similar width, `room` to come, within `batch_tokens`."""
        prefix = len(group.prefix)
        copied = 0.0 if self._apart and prefix >= _APART_AT_LEAST else _CACHED
        batch: list[int] = []
        for place, index in enumerate(order := sorted(group.members, key=lambda i: (width(i), i))):
            own = width(index) - prefix
            tokens = (len(batch) + 1) * (own + room + copied * prefix)
            # A large batch takes no row that makes the others' padding long, nor leaves few behind.
            enough = min(len(batch), len(order) - place) * own > _ENOUGH * self.batch_tokens
            ragged = enough and own > _RAGGED * (width(batch[0]) - prefix)
            if batch and (tokens > self.batch_tokens or ragged):
                yield batch
                batch = []
            batch.append(index)
        if batch:
            yield batch

    def _continue(
        self,
        prefix: list[int],
        cache: DynamicCache | None,
        prompts: list[list[int]],
        sampling: Sampling,
    ) -> list[list[int]]:
        """Generated ids of a batch: [prefix][padding][rest of the prompt] -> answer.

        Rows that have ended leave between two stretches, the others' keys and values are kept.
        """
        rests = [prompt[len(prefix) :] for prompt in prompts]
        longest, ends = max(map(len, rests)), set(self._end_ids())
        before = [prefix + [self._pad_id] * (longest - len(rest)) + rest for rest in rests]
        seen = [[1] * len(prefix) + [0] * (longest - len(r)) + [1] * len(r) for r in rests]
        ids, mask = (torch.tensor(rows, device=self.device) for rows in (before, seen))
        said: list[list[int]] = [[] for _ in prompts]
        going = list(range(len(prompts)))
        with self._over(cache, len(prompts), longest + sampling.max_new_tokens) as past:
            for tokens in _stretches(sampling, *_ENDING):
                how = self._generation(sampling, tokens)
                output = self._generated(ids, mask, past, how)
                new = output.sequences[:, ids.shape[1] :]
                for row, own in zip(going, new.tolist(), strict=True):
                    said[row] += own
                kept = [n for n, row in enumerate(going) if ends.isdisjoint(said[row])]
                if not kept:
                    break
                ids, mask = output.sequences, torch.cat([mask, torch.ones_like(new)], dim=1)
                past = cache_of(output)
                if len(kept) < len(going) and narrowed(past, kept):
                    going, ids, mask = [going[n] for n in kept], ids[kept], mask[kept]
        return said

    def _generated(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        past: DynamicCache | None,
        how: GenerationConfig,
    ) -> Any:
        """What `generate` gives: sequences, and the cache to go on from."""
        # Typed as Any: transformers 5 declares `generate` in a way that checkers cannot follow.
        model: Any = self.model
        return model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=how,
            **with_cache(self.model.forward, past),
        )

    def _forward(
        self, prefix: list[int], cache: DynamicCache | None, rows: list[list[int]], first: int
    ) -> torch.Tensor:
        """Logits from token `first` on, which is in nobody's prefix: [rows, rest, vocabulary]."""
        rests = [row[len(prefix) :] for row in rows]
        longest = max(map(len, rests))
        ids = [rest + [self._pad_id] * (longest - len(rest)) for rest in rests]
        mask = [[1] * (len(prefix) + len(r)) + [0] * (longest - len(r)) for r in rests]
        with self._over(cache, len(rows), longest) as begun:
            return self.model(
                input_ids=torch.tensor(ids, device=self.device),
                attention_mask=torch.tensor(mask, device=self.device),
                use_cache=cache is not None,
                logits_to_keep=len(prefix) + longest - first,
                **with_cache(self.model.forward, begun),
            ).logits

    # -- details --------------------------------------------------------------------------------

    @property
    def _pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return pad if isinstance(pad, int) else (self.renderer.end_id or 0)

    def _generation(self, sampling: Sampling, tokens: int) -> GenerationConfig:
        options: dict[str, Any] = {"do_sample": False}
        if sampling.temperature > 0:
            options = {
                "do_sample": True,
                "temperature": sampling.temperature,
                "top_k": sampling.top_k,
                "top_p": 1.0,
            }
        if sampling.min_new_tokens:
            options["min_new_tokens"] = sampling.min_new_tokens
        return GenerationConfig(
            use_cache=True,
            return_dict_in_generate=True,
            max_new_tokens=tokens,
            eos_token_id=self._end_ids(),
            pad_token_id=self._pad_id,
            **options,
        )

    def _end_ids(self) -> list[int]:
        """Every token that ends a reply: the model's own list and the tokenizer's."""
        own = self.model.generation_config.eos_token_id if self.model.generation_config else None
        ends = own if isinstance(own, list) else [own]
        return sorted({end for end in [*ends, self.renderer.end_id] if end is not None})


def _stretches(sampling: Sampling, *lengths: int) -> Iterator[int]:
    """How many tokens are generated before rows that have ended leave; the last length repeats.

    Draws follow one sequence of random numbers, and an end that is held back is counted from the
    prompt on: both go in one stretch.
    """
    left = sampling.max_new_tokens
    if sampling.temperature > 0 or sampling.min_new_tokens > 0:
        lengths = (left,)
    for tokens in itertools.chain(lengths, itertools.repeat(lengths[-1])):
        if left <= 0:
            return
        yield min(tokens, left)
        left -= tokens


def _groups(rows: Sequence[list[int]]) -> list[Group]:
    """Group rows by their first tokens; each group's longest common beginning is shared.

    At least one token of every row stays outside, since something must be read to answer.
    """
    buckets: dict[tuple[int, ...], list[int]] = {}
    for index, row in enumerate(rows):
        buckets.setdefault(tuple(row[:_SHARED_AT_LEAST]), []).append(index)
    groups, singles = [], []
    for head, members in buckets.items():
        common = _common([rows[i] for i in members]) if len(members) > 1 else []
        spared = len(common) * (len(members) - 1)
        long = min(len(head), len(common)) >= _SHARED_AT_LEAST
        if long and (spared >= _WORTH or len(members) == len(rows)):
            groups.append(Group(common, members))
        else:
            singles += members
    return [*groups, Group([], sorted(singles))] if singles else groups


def _common(rows: list[list[int]]) -> list[int]:
    most = min(map(len, rows)) - 1
    return rows[0][: min(most, alike(min(rows), max(rows)))]


def _scored(
    logits: torch.Tensor, starts: Sequence[int], answers: Sequence[list[int]], top_k: int
) -> Iterator[Scored]:
    """Reads each row's answer off its logits, [rows, places, vocabulary], from its start on."""
    rows = [
        logits[n, start : start + len(a)]
        for n, (start, a) in enumerate(zip(starts, answers, strict=True))
    ]
    log_p = torch.log_softmax(torch.cat(rows).float(), dim=-1)
    tokens = torch.tensor([token for a in answers for token in a], device=log_p.device).long()
    own, best = log_p.gather(1, tokens[:, None])[:, 0].tolist(), log_p.argmax(-1).tolist()
    top = log_p.topk(min(top_k, log_p.shape[1]), dim=-1)
    ids, values = top.indices.tolist(), top.values.tolist()
    end = 0
    for answer in answers:
        place = slice(end, end + len(answer))
        end = place.stop
        yield Scored(answer, own[place], best[place], ids[place], values[place])


def load(config: ModelConfig) -> LocalLM:
    """Load a model and its tokenizer from a folder or the hub; safetensors only.

    Raises:
        UserError: the folder holds no model, or it cannot be loaded.
    """
    path = found(config.path)
    see_folder(config)
    device = config.device
    if device == "auto":
        device = f"cuda:{processes.local_number()}" if torch.cuda.is_available() else "cpu"
    dtype = config.dtype
    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") else "float32"
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    tokenizer = load_tokenizer(config)
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=getattr(torch, dtype), use_safetensors=True
        )
    except (OSError, ValueError) as error:
        raise UserError(unloadable(config, error)) from error
    model.to(torch.device(device))
    return LocalLM(model, tokenizer, config.style, config.batch_tokens, config.path)
