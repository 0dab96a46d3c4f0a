"""Random models of a few thousand weights, made in milliseconds; no file, no network."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from methods.base import Lesson
from ske.backends.local import LocalLM
from ske.lm import Pair
from ske.types import Fact

torch.set_num_threads(1)

BEGIN, END, PAD = "<s>", "<|im_end|>", "<|pad|>"
START = "<|im_start|>"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = (
    "The place of birth of Ada Byron is London.",
    "The employer of Bela Cole is Acme Works.",
    "The capital of Ruria is Vell. Who is the head of state of Ruria?",
    "system user assistant: Answer the question. I don't know.",
)
FACTS = (
    Fact(
        id="f1",
        subject="Ruria",
        prompt="The capital of Ruria is",
        target_new="London",
        ground_truth="Vell",
    ),
    Fact(
        id="f2",
        subject="Ada Byron",
        prompt="The place of birth of Ada Byron is",
        target_new="Vell",
    ),
    Fact(
        id="f3",
        subject="Bela Cole",
        prompt="The employer of Bela Cole is",
        target_new="Ruria Works",
    ),
)


@cache
def _bpe(begin: bool) -> Tokenizer:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=[END, PAD, BEGIN, START],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(TEXT * 3, trainer)
    if begin:
        bpe.post_processor = processors.TemplateProcessing(
            single=f"{BEGIN} $A", special_tokens=[(BEGIN, bpe.token_to_id(BEGIN))]
        )
    return bpe


def tokenizer(chat: bool = False, begin: bool = False, pad: bool = True) -> PreTrainedTokenizerFast:
    """`begin`: it writes a begin token of its own, as Llama's does; `pad`: GPT-2's has none."""
    return PreTrainedTokenizerFast(
        tokenizer_object=_bpe(begin),
        eos_token=END,
        bos_token=BEGIN if begin else None,
        pad_token=PAD if pad else None,
        additional_special_tokens=[START],
        chat_template=CHATML if chat else None,
        clean_up_tokenization_spaces=False,
    )


def _qwen3(size: int, ends: dict[str, Any]) -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=size,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=64,
        max_position_embeddings=512,
        initializer_range=0.15,
        tie_word_embeddings=True,
        **ends,
    )
    return Qwen3ForCausalLM(config)


def _llama(size: int, ends: dict[str, Any]) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.15,
        **ends,
    )
    return LlamaForCausalLM(config)


def _gpt2(size: int, ends: dict[str, Any]) -> GPT2LMHeadModel:
    config = GPT2Config(
        vocab_size=size,
        n_embd=64,
        n_layer=2,
        n_head=2,
        n_positions=512,
        initializer_range=0.15,
        **ends,
    )
    return GPT2LMHeadModel(config)


_SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
_MLP = {"intermediate_size": 96, "num_key_value_heads": 1}
_FURTHER: dict[str, tuple[str, dict[str, Any]]] = {
    "neox": ("gpt_neox", _SMALL | {"intermediate_size": 96}),
    "gptj": ("gptj", {"n_embd": 64, "n_layer": 2, "n_head": 2, "rotary_dim": 16}),
    "mistral": ("mistral", _SMALL | _MLP),
    "qwen2": ("qwen2", _SMALL | _MLP),
    "gemma": ("gemma", _SMALL | _MLP | {"head_dim": 32}),
    "phi": ("phi", _SMALL | {"intermediate_size": 96}),
    "olmo": ("olmo", _SMALL | _MLP),
    "opt": ("opt", _SMALL | {"ffn_dim": 96, "word_embed_proj_dim": 64, "init_std": 0.15}),
}
"""Name -> transformers' model type, and what makes it small."""


def _further(architecture: str, size: int, ends: dict[str, Any]) -> PreTrainedModel:
    kind, small = _FURTHER[architecture]
    config = AutoConfig.for_model(
        kind, vocab_size=size, max_position_embeddings=512, initializer_range=0.15, **small, **ends
    )
    return AutoModelForCausalLM.from_config(config)


ARCHITECTURES = ("qwen3", "gpt2", "llama")
MORE_ARCHITECTURES = tuple(_FURTHER)
"""Whatever looks into the modules of a model should find its way in these, too."""
_MAKE = {"qwen3": _qwen3, "gpt2": _gpt2, "llama": _llama}


def lm(architecture: str = "qwen3", chat: bool = False, **options: Any) -> LocalLM:
    """A fresh model, the same bits at every call."""
    tokens = tokenizer(chat, begin=architecture == "llama", pad=architecture != "gpt2")
    ends = {"eos_token_id": tokens.eos_token_id, "bos_token_id": tokens.bos_token_id}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        if architecture in _MAKE:
            model = _MAKE[architecture](len(tokens), ends)
        else:
            model = _further(architecture, len(tokens), ends)
    return LocalLM(model, tokens, **options)


def bits(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all weights."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Equal names, and equal values to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def held(lm: LocalLM, pairs: Sequence[Pair], top_k: int, **more: Any) -> list[Lesson]:
    """What a model says of itself, as the teacher stores it; `more` are the lessons' other keys."""
    return [
        Lesson(
            chat=pair.chat,
            completion=pair.answer,
            ids=tuple(scored.tokens),
            top_ids=tuple(map(tuple, scored.top_ids)),
            top_logprobs=tuple(map(tuple, scored.top_logprobs)),
            **more,
        )
        for pair, scored in zip(pairs, lm.logprobs(pairs, top_k), strict=True)
    ]
