"""Fluency: hand-computed entropies, and what the ask stage saves of it."""

import math

import pytest

from eval.capability import SkillRow, values
from eval.fluency import fluency, sampling
from eval.score import CaseKey


def test_a_loop_has_little_entropy() -> None:
    # Bigrams "a b" x 3 and "b a" x 2: 0.970951 bits. Trigrams "a b a" x 2, "b a b" x 2: 1 bit.
    # (2/3 * 0.970951 + 4/3 * 1) / 2 = 0.990317; 5 and 4 n-grams have at most log2 5 and 2 bits:
    # (2/3 * 2.321928 + 4/3 * 2) / 2 = 2.107309.
    found = fluency("a b a b a b")
    assert found.entropy == pytest.approx(99.0317, abs=1e-4)
    assert found.share == pytest.approx(46.9944, abs=1e-3)


def test_a_text_that_repeats_nothing_has_all_there_is() -> None:
    # Five words: 4 bigrams (2 bits), 3 trigrams (log2 3 bits); (2/3 * 2 + 4/3 * 1.584963) / 2.
    found = fluency("one two three four five")
    assert found.entropy == pytest.approx(172.3308, abs=1e-4)
    assert found.share == 100


def test_marks_are_words_of_their_own_and_a_name_is_one() -> None:
    # "It isn't O'Neill-Burke." is 4 words: It, isn't, O'Neill-Burke and the full stop.
    assert fluency("It isn't O'Neill-Burke.").entropy == pytest.approx(
        100 * (2 / 3 * math.log2(3) + 4 / 3 * 1) / 2
    )


@pytest.mark.parametrize("text", ["", "Syria", "of Syria"])
def test_a_text_of_fewer_than_three_words_is_not_fluent(text: str) -> None:
    # Two words are one bigram and no trigram: nothing that could differ.
    assert fluency(text) == (0, 0)


def test_the_same_word_again_and_again_is_0() -> None:
    assert fluency("Syria " * 20) == (0, 0)


def test_rows_give_percent_and_bits_by_case() -> None:
    row = SkillRow(
        method="ft_l",
        dataset="toy",
        seed=1,
        skill="all",
        metric="fluency",
        case="c7",
        text="a b a b a b",
    )
    broken = row.model_copy(update={"case": "c8", "error": "no reply"})
    found = values([row, broken])
    key = CaseKey("ft_l", "toy", "generate", "fluency", "all", "c7", 1)
    assert found.keys() == {key, key._replace(metric="fluency_entropy")}
    assert found[key] == pytest.approx(46.9944, abs=1e-3)
    assert found[key._replace(metric="fluency_entropy")] == pytest.approx(99.0317, abs=1e-4)


def test_texts_are_drawn_as_the_authors_draw_them() -> None:
    how = sampling(30)
    assert (how.top_k, how.temperature, how.max_new_tokens, how.min_new_tokens) == (5, 1, 30, 30)
