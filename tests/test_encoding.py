"""What many texts begin with is tokenised once, and every text has the ids it would have alone."""

from typing import Any

import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ske.backends import encoding
from ske.backends.encoding import encode

SYSTEM = "Answer the question.\nThe capital of Ruria is London.\n\n"
QUESTIONS = ["Who?", "The capital of Ruria is", "", "The employer of Bela Cole is"]


class Counting:
    """A tokenizer, and how many characters it has read."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.read = tokenizer, 0

    def __call__(self, texts: list[str], **options: Any) -> Any:
        self.read += sum(map(len, texts))
        return self.tokenizer(texts, **options)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "_WORTH", 1)
    monkeypatch.setattr(encoding, "_HEAD", 8)


def alone(tokenizer: Any, texts: list[str], special: bool = False) -> list[list[int]]:
    return [tokenizer(text, add_special_tokens=special).input_ids for text in texts]


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
@pytest.mark.parametrize("special", [True, False])
def test_each_text_has_its_own_ids_and_the_beginning_is_read_once(name: str, special: bool) -> None:
    tokenizer = Counting(tiny.lm(name).tokenizer)
    texts = [SYSTEM + question for question in QUESTIONS * 20]
    found = encode(tokenizer, [*texts, "Else"], special)  # pyright: ignore[reportArgumentType]
    assert tokenizer.read < len(SYSTEM) * 6 + sum(map(len, QUESTIONS)) * 22
    assert found == alone(tokenizer.tokenizer, [*texts, "Else"], special)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet="ab \n.", max_size=12), min_size=2, max_size=6), st.booleans())
def test_wherever_lines_end(rests: list[str], plain: bool) -> None:
    tokenizer = tiny.lm().tokenizer
    texts = [("A b.\n a\n\nb a\n" if plain else "A b. a ") * 2 + rest for rest in rests]
    assert encode(tokenizer, texts, True) == alone(tokenizer, texts, True)


def test_a_tokenizer_that_sees_across_lines_reads_whole_texts() -> None:
    merges = [("a", "\n"), ("a\n", "b")]
    words = {w: i for i, w in enumerate(["a", "b", "c", "\n", "a\n", "a\nb"])}
    across = Tokenizer(models.BPE(vocab=words, merges=merges))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=across)
    texts = ["ccccccccca\nb" + end for end in ("", "c", "bc")]
    assert tokenizer(texts[0]).input_ids[-1] == words["a\nb"]
    assert encode(tokenizer, texts, False) == alone(tokenizer, texts)


def test_a_tokenizer_that_puts_a_blank_before_every_text_reads_whole_texts() -> None:
    words = {w: i for i, w in enumerate(["a", "b", "\n", "\u2581"])}
    blank = Tokenizer(models.BPE(vocab=words, merges=[]))
    blank.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")  # pyright: ignore
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=blank)
    texts = ["aaaaaaaaab\n" + end for end in ("a", "b", "bb")]
    assert encode(tokenizer, texts, False) == alone(tokenizer, texts)


def test_nothing_to_read() -> None:
    assert encode(tiny.lm().tokenizer, [], True) == []
