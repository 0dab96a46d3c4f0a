"""What a method's own context pushes out of the window is an error row; the rest is asked."""

from collections.abc import Sequence

import tiny

from eval.ask import Answer, Item, answer, rows
from eval.score import count_errors, score_row
from methods.base import Workshop
from methods.table import build
from ske.lm import LM, Chat, Reply, Sampling

LONG = "The employer of Bela Cole is Vell. " * 40


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
