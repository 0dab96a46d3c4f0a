"""What ROME, MEMIT and AlphaEdit share: an MLP as a memory of keys and values.

The key of a fact is what the MLP's last projection sees at the subject's last token, averaged over
contexts: the bare prompt, and the prompt after beginnings that the model itself has written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from pydantic import Field
from torch import nn

from methods.arch import Projection
from methods.base import HasWeights
from methods.delta import LowRank
from methods.hooks import Site, activations
from methods.moments import TextOptions
from methods.sampling import sample
from methods.subjects import subject_end
from ske.backends.common import refuse_beyond, window_of
from ske.backends.render import Renderer
from ske.lm import ask
from ske.types import Fact, UserError

BARE = "{}"
"""The context that is the prompt itself; always the first."""
_TOP_K = 5


class KeyValueOptions(TextOptions):
    """What every method of the family can be told."""

    layers: tuple[int, ...] | None = None
    """Layers to edit; by default about where the papers edit, as a fraction of the depth."""
    steps: int = Field(default=20, ge=1)
    """Gradient steps for a value; as in the authors' code, the last one only looks at the loss."""
    learning_rate: float = Field(default=0.5, gt=0)
    """Adam's."""
    stop_loss: float = Field(default=0.05, ge=0)
    """A fact's value is done when its loss is below this."""
    clamp: float = Field(default=4.0, gt=0)
    """The largest change of a value, as a multiple of the value's norm."""
    kl_weight: float = Field(default=0.0625, ge=0)
    """Weight of KL(edited || before) at the subject in "SUBJECT is a"."""
    weight_decay: float = Field(default=0.5, ge=0)
    """Weight of the change's norm over the squared norm of the value."""
    end: bool = True
    """Whether the token that ends a reply belongs to the target. The authors leave it out."""
    templates: tuple[str, ...] | None = None
    """Contexts beside the bare prompt, each with one {}; by default the model writes them."""


class Asked(NamedTuple):
    """One prompt as token ids, where its subject ends, and what is to follow."""

    prompt: list[int]
    place: int
    answer: list[int]

    @property
    def beginning(self) -> list[int]:
        """All that the subject's last token can see."""
        return self.prompt[: self.place + 1]


class Query(NamedTuple):
    """One fact in all contexts, the bare one first, and the prompt of its KL term."""

    rows: list[Asked]
    """Keys are read from these, and values make their answers come out."""
    essence: Asked
    held: Sequence[Asked] = ()
    """Further prompts whose answers values have to give, e.g. what an edit must not change."""

    @property
    def asked(self) -> list[Asked]:
        """All whose answers values are found by."""
        return [*self.rows, *self.held]


def query(holder: HasWeights, fact: Fact, contexts: Sequence[str], end: bool) -> Query:
    """A fact's prompts as the model is asked them, chat template and all."""
    renderer = holder.renderer

    def asked(prompt: str, answer: str) -> Asked:
        chat = ask(prompt)
        ids = renderer.answer_ids(chat, answer, end) if answer else []
        size = (len(renderer.prompt_ids(chat)), len(ids))
        refuse_beyond(window_of(holder.model.config), [size], f"fact {fact.id!r}")
        return Asked(renderer.prompt_ids(chat), subject_end(renderer, chat, fact.subject), ids)

    rows = [asked(c.replace("{}", fact.prompt), fact.target_new) for c in contexts]
    return Query(rows, asked(_essence(fact), ""))


def _essence(fact: Fact) -> str:
    return f"{fact.subject} is a"


def texts_of(facts: Sequence[Fact], contexts: Sequence[str]) -> list[str]:
    """What `query` makes of facts beside their own prompts."""
    return [*contexts, *map(_essence, facts)]


# -- contexts -------------------------------------------------------------------------------------


def contexts_of(
    holder: HasWeights,
    templates: tuple[str, ...] | None,
    written: Sequence[tuple[str, int, int]],
    seed: int,
) -> list[str]:
    """The bare prompt and the given templates, or else those that the model writes.

    Args:
        holder: the model.
        templates: fixed templates; None to have them written.
        written: (beginning, tokens, how many) of what the model is to write, by top-5 sampling.
            An empty beginning is the begin or end token.
        seed: of the sampling.

    Raises:
        UserError: a template without one {}.
    """
    if templates is None:
        plain = Renderer(holder.tokenizer, "plain")
        templates = ()
        for number, (beginning, tokens, count) in enumerate(written):
            starts = [plain.prompt_ids(ask(beginning))] * count
            rows = sample(holder.model, starts, tokens, seed + number, top_k=_TOP_K)
            texts = [" ".join(plain.decode(row).split()) for row in rows]
            templates += tuple(_template(text) for text in texts)
    for template in templates:
        if template.count("{}") != 1:
            raise UserError(f"templates: {template!r} must hold {{}} once, where the prompt goes")
    return [BARE, *templates]


def _template(text: str) -> str:
    return text.replace("{", " ").replace("}", " ") + ". {}"


# -- keys and updates -----------------------------------------------------------------------------


def keys_and_values(
    holder: HasWeights, projection: Projection, queries: Sequence[Query], batch_tokens: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a projection sees and says at each subject's end, in every context.

    Returns:
        Keys [facts, contexts, in] and values [facts, contexts, out].
    """
    rows = [row for q in queries for row in q.rows]
    sites = [Site(projection.module, "in"), Site(projection.module, "out")]
    keys, values = activations(
        holder.model, [r.beginning for r in rows], [r.place for r in rows], sites, batch_tokens
    )
    shape = (len(queries), -1)
    return keys.unflatten(0, shape), values.unflatten(0, shape)


def said_at(
    holder: HasWeights, module: nn.Module, queries: Sequence[Query], batch_tokens: int
) -> torch.Tensor:
    """A module's output at the subjects' ends in the bare prompts, [facts, hidden]."""
    rows = [q.rows[0] for q in queries]
    (values,) = activations(
        holder.model,
        [row.beginning for row in rows],
        [row.place for row in rows],
        [Site(module, "out")],
        batch_tokens,
    )
    return values


def as_delta(
    projection: Projection, rights: torch.Tensor, lefts: torch.Tensor
) -> LowRank | torch.Tensor:
    """sum_i right_i left_i^T in the weight's orientation: thin factors where they are smaller.

    Args:
        projection: whose weight it is for.
        rights: [n, out].
        lefts: [n, in].
    """
    rights, lefts = rights.float(), lefts.float()
    if len(rights) * (rights.shape[1] + lefts.shape[1]) >= projection.weight.numel():
        return projection.oriented(rights.T @ lefts)
    first, second = (lefts, rights) if projection.flipped else (rights, lefts)
    return LowRank(first.T, second)


@torch.no_grad()
def write(projection: Projection, rights: torch.Tensor, lefts: torch.Tensor) -> None:
    """Add sum_i right_i left_i^T to the weight itself."""
    weight = projection.weight
    weight += projection.oriented(rights.T @ lefts).to(weight.dtype)
