"""What a method's own context pushes out of the window is an error row; the rest is asked."""

from collections.abc import Sequence

import pytest
import tiny

from eval.ask import Answer, Item, answer, rows
from eval.score import count_errors, score_row
from methods.base import Lesson, Workshop
from methods.rows import row_of
from methods.table import build
from ske.lm import LM, Chat, Pair, Reply, Sampling, ask
from ske.types import Fact, TooLong

LONG = "The employer of Bela Cole is Vell. " * 35


def item(metric: str, prompt: str, gold: str = "Vell") -> Item:
    return Item(case="f", metric=metric, category="all", probe=0, prompt=prompt, answers=((gold,),))


def items() -> list[Item]:
    return [
        item("edit_success", "The employer of Bela Cole is"),
        item("locality", "The capital of Ruria is", "London"),
        item("locality", LONG + "The capital of Ruria is", "London"),
        item("capability", LONG),
        item("capability", "Who?"),
        item("perplexity", "", "The employer of Bela Cole."),
        item("perplexity", "", LONG),
        item("fluency", "The employer of Bela Cole is", ""),
    ]


def said(lm: LM, before: Sequence[Answer] | None = None) -> list[Answer]:
    protocols = ("teacher_forced", "generate")
    return answer(lm, list(enumerate(items())), protocols, 4, before, 4)


def test_what_no_window_holds_is_an_error_row_and_the_rest_is_asked() -> None:
    lm = tiny.lm()
    before = said(lm)
    assert all(one.error is None for one in before)
    with build("prompt", {}, Workshop()).edit(lm, tiny.FACTS).applied(lm) as edited:
        own = said(edited, before)
    broken = [n for n, one in enumerate(own) if one.error is not None]
    assert broken == [2, 3, 6]
    assert all("context window of 512" in (own[n].error or "") for n in broken)
    assert own[0].read and own[0].target and own[4].read and own[5].loss and own[7].read
    assert own[1].told and own[1].argmax
    asked, told, base = items()[:3], own[:3], before[:3]
    found = list(rows("prompt", "toy", 0, ("teacher_forced", "generate"), asked, told, base))
    assert [score_row(row) is None for row in found] == [False] * 4 + [True] * 2
    assert sum(count_errors(found).values()) == 2


class Counting:
    """An `LM` that counts how often each chat was continued."""

    def __init__(self, lm: LM) -> None:
        self.inner, self.asked = lm, 0
        self.logprobs = lm.logprobs

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Reply]:
        self.asked += len(chats)
        return self.inner.generate(chats, sampling)


def test_nothing_is_asked_twice_for_it() -> None:
    lm = tiny.lm()
    before = said(lm)
    counting = Counting(lm)
    with build("prompt", {}, Workshop()).edit(lm, tiny.FACTS).applied(lm) as edited:
        edited.inner = counting  # pyright: ignore[reportAttributeAccessIssue]
        said(edited, before)
    assert counting.asked == 4  # of five questions three fit, and a text is written


@pytest.mark.parametrize("architecture", ["gpt2", "qwen3"])
def test_the_model_itself_says_what_its_window_does_not_hold(architecture: str) -> None:
    """A learned position that is not there crashes, a rotated one is no better than noise."""
    lm = tiny.lm(architecture)
    size = len(lm.renderer.prompt_ids(ask(LONG)))
    assert lm.generate([ask(LONG)], Sampling(max_new_tokens=512 - size))
    with pytest.raises(TooLong, match=f"{size} tokens and {513 - size} .* window of 512"):
        lm.generate([ask("Who?"), ask(LONG)], Sampling(max_new_tokens=513 - size))
    with pytest.raises(TooLong, match="window of 512"):
        lm.logprobs([Pair(ask(LONG), LONG)])


def test_neither_lessons_nor_facts_are_longer_than_the_window() -> None:
    with pytest.raises(TooLong, match="lesson 'The employer of Bela"):
        row_of(tiny.lm("gpt2"), Lesson(chat=ask(LONG), completion=LONG))
    long = Fact(id="long", subject=LONG, prompt=f"{LONG * 2} is", target_new="Vell")
    with pytest.raises(TooLong, match="fact 'long'"):
        build("memit", {"templates": []}, Workshop()).edit(tiny.lm("gpt2"), [long])
