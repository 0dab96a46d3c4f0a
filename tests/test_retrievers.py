"""Which sentences are near a question: by hand on five, and the encoder by brute force."""

import math
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from transformers import BertConfig, BertModel

from methods import retrievers
from methods.retrievers import Hit, MiniLM, Overlap, nearest, retriever
from ske.types import UserError

FIVE = (
    "The capital of Ruria is Vell",
    "The place of birth of Ada Byron is London",
    "The employer of Ada Byron is Acme Works",
    "The place of birth of Bela Cole is Vell",
    "The employer of Bela Cole is Ruria Works",
)


def places(question: str, most: int = 1) -> list[int]:
    return [hit.place for hit in nearest(Overlap(FIVE).index(FIVE), [question], most)[0]]


def test_the_sentence_about_the_same_thing_is_nearest() -> None:
    assert places("What is Ruria's capital?") == [0]
    assert places("Where was ADA BYRON born, at which place?") == [1]
    assert places("Ada Byron works for") == [2]
    assert places("Who employs Bela Cole?") == [4]
    assert sorted(places("Tell me about Ada Byron", 2)) == [1, 2]
    assert sorted(places("Tell me about Bela Cole", 2)) == [3, 4]


def test_the_similarity_is_the_weight_of_what_is_held_over_the_weight_of_all() -> None:
    two = ("red fox", "red hen")
    common, rare = 0.1, math.log(3 / 2) + 0.1
    # A word of 3 letters has 6 runs: " re", "red", "ed ", " red", "red " and " red ".
    expected = 0.5 * common / (common + rare) + 0.5 * 6 * common / (6 * common + 6 * rare)
    scores = Overlap(two).index(two)(["a red house", "red fox", "blue"])
    assert scores == pytest.approx(np.array([[expected, expected], [1, expected], [0, 0]]))


def test_length_and_case_of_the_question_do_not_matter() -> None:
    scorer = Overlap(FIVE).index(FIVE)
    short, long = scorer([FIVE[0], f"I wonder, {FIVE[0].upper()}, or so they say, but do they?"])
    assert short[0] == pytest.approx(1)
    assert long[0] == pytest.approx(1)
    assert np.all(scorer(["", "???"]) == 0)


def test_nearest_equals_a_full_sort_and_keeps_the_order_of_ties() -> None:
    table = np.random.default_rng(0).integers(0, 4, (600, 9)) / 4.0  # many ties
    rows = iter(np.split(table, [256, 512]))
    found = nearest(lambda questions: next(rows), [""] * 600, 4)
    for row, hits in zip(table, found, strict=True):
        expected = sorted(range(9), key=lambda place: (-row[place], place))[:4]
        assert hits == [Hit(place, row[place]) for place in expected]
    assert len(nearest(lambda questions: table[:1], [""], 50)[0]) == 9


@pytest.fixture
def encoder(tmp_path: Path) -> str:
    config = BertConfig(
        vocab_size=340,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        initializer_range=0.5,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    return str(tmp_path)


def test_the_encoder_takes_the_mean_over_the_tokens_and_not_over_the_padding(encoder: str) -> None:
    def alone(text: str) -> torch.Tensor:
        ids = torch.tensor([tiny.tokenizer()(text).input_ids])
        with torch.no_grad():
            mean = BertModel.from_pretrained(encoder).eval()(ids).last_hidden_state[0].mean(0)
        return mean / mean.norm()

    questions = ["Vell", "The employer of Ada Byron is"]
    expected = [[float(alone(q) @ alone(s)) for s in FIVE] for q in questions]
    assert MiniLM(encoder).index(FIVE)(questions) == pytest.approx(np.array(expected), abs=1e-5)


def test_auto_takes_the_encoder_if_it_is_there(
    encoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrievers, "encoder_path", lambda download: encoder)
    assert retriever("auto", FIVE).name == "minilm"
    assert retriever("minilm", FIVE).index(FIVE)(["x"]).shape == (1, 5)
    assert retriever("overlap", FIVE).name == "overlap"
    monkeypatch.setattr(retrievers, "encoder_path", lambda download: None)
    assert retriever("auto", FIVE).name == "overlap"
    with pytest.raises(UserError, match=r"'minilm'.*set retriever: overlap"):
        retriever("minilm", FIVE)
