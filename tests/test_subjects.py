"""The subject's last token, in raw prompts and chats, with different tokenizers."""

import json
from typing import Any

import pytest
import tiny
from tokenizers import Tokenizer, decoders, models, normalizers, trainers
from transformers import PreTrainedTokenizerFast

from methods.subjects import subject_end, token_at
from ske.backends.render import Renderer
from ske.lm import ask


def metaspace() -> PreTrainedTokenizerFast:
    """Blanks are part of the next word, as sentencepiece writes them; unknown letters are bytes."""
    bpe = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    bpe.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    bpe.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    every_byte = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<unk>", *every_byte], show_progress=False
    )
    bpe.train_from_iterator(tiny.TEXT * 3, trainer)
    # Bytes are in the vocabulary, but they are no special tokens.
    saved = json.loads(bpe.to_str())
    saved["added_tokens"] = saved["added_tokens"][:1]
    bpe = Tokenizer.from_str(json.dumps(saved))
    return PreTrainedTokenizerFast(tokenizer_object=bpe, unk_token="<unk>", eos_token="<unk>")


TOKENIZERS = {
    "byte-level": lambda: tiny.tokenizer(),
    "begin token": lambda: tiny.tokenizer(begin=True),
    "chat": lambda: tiny.tokenizer(chat=True),
    "sentencepiece": metaspace,
}
CASES = {
    "in the middle": ("The place of birth of Ada Byron is", "Ada Byron", "Byron"),
    "at the start": ("Ruria has the capital", "Ruria", "Ruria"),
    "at the end": ("Who is the head of state of Ruria", "Ruria", "Ruria"),
    "before a mark": ("Who was Ada Byron?", "Ada Byron", "Byron"),
    "of letters the tokenizer does not know": (
        "The capital of Škofja Łoža is",
        "Škofja Łoža",
        "Łoža",
    ),
    "ends in a letter of several bytes": ("The mayor of Łódź is", "Łódź", "Łódź"),
    "in other capitals": ("A passage about ada byron.", "Ada Byron", "byron"),
}


def beginning(renderer: Renderer, ids: list[int]) -> str:
    """What tokens say, without what a chat template or a begin token puts before it."""
    text = renderer.tokenizer.decode(ids, skip_special_tokens=True)
    assert isinstance(text, str)
    return text.removeprefix("user\n").strip()


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("fast", [True, False])
def test_the_token_ends_the_subject(
    kind: str, case: str, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = Renderer(TOKENIZERS[kind]())
    prompt, subject, last = CASES[case]
    if not fast:  # slow tokenizers know no character spans
        monkeypatch.setattr(type(renderer.tokenizer), "is_fast", property(lambda self: False))
    ids = renderer.prompt_ids(ask(prompt))
    place = subject_end(renderer, ask(prompt), subject)
    upto = prompt[: prompt.casefold().rindex(last.casefold()) + len(last)]
    # With this token the text reaches the subject's end, and without it it does not.
    assert beginning(renderer, ids[: place + 1]).startswith(upto)
    assert not beginning(renderer, ids[:place]).startswith(upto)


def test_a_repeated_subject_counts_where_it_stands_last() -> None:
    renderer = Renderer(tiny.tokenizer())
    once, twice = "Ruria.", "Ruria. The capital of Ruria is"
    assert subject_end(renderer, ask(once), "Ruria") < subject_end(renderer, ask(twice), "Ruria")
    ids = renderer.prompt_ids(ask(twice))
    place = subject_end(renderer, ask(twice), "Ruria")
    assert beginning(renderer, ids[: place + 1]) == "Ruria. The capital of Ruria"


def test_a_word_is_preferred_to_a_part_of_one() -> None:
    renderer = Renderer(tiny.tokenizer())
    chat = ask("Who is Ann of Annapolis?")
    ids = renderer.prompt_ids(chat)
    end = subject_end(renderer, chat, "Ann")
    assert beginning(renderer, ids[: end + 1]) == "Who is Ann"


def test_a_chat_template_is_not_searched() -> None:
    renderer = Renderer(tiny.tokenizer(chat=True))
    chat = ask("The user is")
    ids = renderer.prompt_ids(chat)
    end = subject_end(renderer, chat, "user")
    assert beginning(renderer, ids[: end + 1]) == "The user"


def test_without_its_subject_a_prompt_is_edited_at_its_end() -> None:
    renderer = Renderer(tiny.tokenizer())
    chat = ask("Who was born in Vell?")
    with pytest.warns(UserWarning, match=r"'Ruria'.*Who was born"):
        assert subject_end(renderer, chat, "Ruria") == len(renderer.prompt_ids(chat)) - 1


def test_a_place_between_tokens_belongs_to_the_one_before() -> None:
    lm: Any = tiny.lm()
    assert token_at(lm.renderer, ask("Ruria"), 4) == len(lm.renderer.prompt_ids(ask("Ruria"))) - 1
