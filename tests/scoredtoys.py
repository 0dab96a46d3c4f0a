"""What `tests/golden/easyedit.json` holds, and the two small models that it was made with.

Every parameter is drawn here, in the order of its name, so that the numbers do not depend on how a
library starts a model. The output layer remembers which token follows which in some texts: a
random model would be wrong everywhere, and a score of 0 compares nothing.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tiny
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from eval.ask import Answer, Item, rows
from eval.score import ALL, Row, score_row
from ske.backends.local import LocalLM

ARCHITECTURES = ("gpt2", "llama")
GOLDEN = json.loads(
    (Path(__file__).parent / "golden" / "easyedit.json").read_text(encoding="utf-8")
)
METRIC_NAMES = {"rewrite_acc": "edit_success", "rephrase_acc": "paraphrase"}


class Place(NamedTuple):
    """Which probe: the number of its record, its group, its number there."""

    record: int
    metric: str
    category: str
    probe: int


class Asked(NamedTuple):
    """What our side made of the records on one architecture."""

    places: list[Place]
    items: list[Item]
    before: list[Answer]
    after: list[Answer]

    def rows(self, after: bool = True) -> list[Row]:
        """The rows of the edited model, or of the unedited one."""
        said = self.after if after else self.before
        return list(rows("toy", "toy", 0, ["teacher_forced"], self.items, said, self.before))

    def scores(self, after: bool = True) -> dict[Place, float | None]:
        return {
            place: score_row(row) for place, row in zip(self.places, self.rows(after), strict=True)
        }


def theirs(architecture: str, way: str, moment: str = "post") -> dict[Place, float]:
    """EasyEdit's value of each probe, `alone` or with its group in one batch (`grouped`)."""
    return {
        place: value
        for record, result in enumerate(GOLDEN["theirs"][architecture][way])
        for place, value in _values(record, result[moment])
    }


def _values(record: int, found: dict[str, Any]) -> Iterator[tuple[Place, float]]:
    for key, metric in METRIC_NAMES.items():
        for probe, value in enumerate(found.get(key, [])):
            yield Place(record, metric, ALL, probe), value
    for metric in ("portability", "locality"):
        for key, values in found[metric].items():
            # The toolkit's own example script writes "reasoning" where the data say "Reasoning".
            category = key.removesuffix("_acc").replace("reasoning", "Reasoning")
            for probe, value in enumerate(values if key.endswith("_acc") else []):
                yield Place(record, metric, category, probe), value


def scored_lm(architecture: str, texts: Sequence[str], edited: bool, chat: bool = False) -> LocalLM:
    """A model in float64 that half remembers `texts`; `edited` adds noise to its MLPs."""
    lm = tiny.lm(architecture, chat)
    # Typed as Any: checkers take a model's layers for tensors.
    model: Any = lm.model.double()
    # Its own output layer, where GPT-2's is tied to the embeddings.
    vocabulary, width = model.get_input_embeddings().weight.shape
    model.lm_head = torch.nn.Linear(width, vocabulary, bias=False, dtype=torch.float64)
    seeded = torch.Generator().manual_seed(21)
    for name, weight in sorted(model.named_parameters()):
        noise = torch.randn(weight.shape, generator=seeded, dtype=torch.float32)
        norm = name.endswith("weight") and ("norm" in name or ".ln_" in name)
        weight.data.copy_(1 + 0.1 * noise if norm else _scale(name) * noise)
    _remember(model, lm, texts)
    if edited:
        seeded = torch.Generator().manual_seed(22)
        for name, weight in sorted(model.named_parameters()):
            if ".mlp." in name:
                noise = torch.randn(weight.shape, generator=seeded, dtype=torch.float32)
                weight.data += 0.08 * noise
    return lm


def _scale(name: str) -> float:
    if "wte" in name or "embed_tokens" in name:
        return 0.5
    return 0.2 if "wpe" in name else 0.05 if "lm_head" in name else 0.1


def _remember(model: Any, lm: LocalLM, texts: Sequence[str]) -> None:
    """Add to the output layer's row of each token the embedding of the token before it."""
    embeddings = model.get_input_embeddings().weight.data
    head = model.lm_head.weight.data
    for text in texts:
        ids = lm.tokenizer(text).input_ids
        for before, after in itertools.pairwise(ids):
            head[after] += embeddings[before] / embeddings[before].norm()


def seamless_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens run across blanks: a prompt's last token grows with the answer."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=[tiny.END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(["is London", "Ruria is London"] * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=tiny.END, pad_token=tiny.END)
