"""The two small models of `tests/golden/easyedit.json`, before and after a change of weights.

Every parameter is drawn here, in the order of its name, so that the numbers do not depend on how a
library starts a model. The output layer remembers which token follows which in some texts: a
random model would be wrong everywhere, and a score of 0 compares nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import tiny
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ske.backends.local import LocalLM

ARCHITECTURES = ("gpt2", "llama")


def scored_lm(architecture: str, texts: Sequence[str], edited: bool, chat: bool = False) -> LocalLM:
    """A model in float64 that half remembers `texts`; `edited` adds noise to its MLPs."""
    lm = tiny.lm(architecture, chat)
    model = lm.model.double()
    # Its own output layer, where GPT-2's is tied to the embeddings.
    vocabulary, width = model.get_input_embeddings().weight.shape
    model.lm_head = torch.nn.Linear(width, vocabulary, bias=False, dtype=torch.float64)
    seeded = torch.Generator().manual_seed(21)
    for name, weight in sorted(model.named_parameters()):
        noise = torch.randn(weight.shape, generator=seeded, dtype=torch.float32)
        norm = name.endswith("weight") and ("norm" in name or ".ln_" in name)
        weight.data.copy_(1 + 0.1 * noise if norm else _scale(name) * noise)
    _remember(lm, texts)
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


def _remember(lm: LocalLM, texts: Sequence[str]) -> None:
    """Add to the output layer's row of each token the embedding of the token before it."""
    embeddings = lm.model.get_input_embeddings().weight.data
    head = lm.model.lm_head.weight.data
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
