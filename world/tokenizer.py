"""The base model's tokenizer: byte-level BPE trained on the world's own text; any text encodes.

Newlines and digits are tokens of their own, so that a prompt's tokens never depend on what
follows it.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END = "<|endoftext|>"
PAD = "<|pad|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'user' %}{{ message['content'] }}"
    "{% else %}{{ ' ' + message['content'] + eos_token + '\\n' }}{% endif %}"
    "{% endfor %}"
)
"""A chat is a text to complete: the system message, a blank line, the question; the reply follows
after a space. So a raw prompt and the same prompt as a chat are the same tokens."""


def train(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train on texts; `vocab_size` counts the 256 bytes and the two special tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n"), "isolated"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        chat_template=CHAT_TEMPLATE,
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )


def end_id(tokens: PreTrainedTokenizerFast) -> int:
    """The id of the end token."""
    found = tokens.eos_token_id
    assert isinstance(found, int), found
    return found


def pad_id(tokens: PreTrainedTokenizerFast) -> int:
    """The id of the padding token."""
    found = tokens.pad_token_id
    assert isinstance(found, int), found
    return found
