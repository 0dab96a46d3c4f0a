"""A start that hears what the teacher has taught: which lessons count, and what they do."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch

from methods.arch import decoder_of
from methods.base import Lesson, Workshop
from methods.hooks import adding
from methods.keyvalue import KeyValueOptions, Query, query, said_at
from methods.memit import Memit
from methods.student import Student
from methods.subjects import subject_end
from methods.taught import by_fact, joined
from methods.values import changes
from ske.lm import Pair, ask
from ske.types import UserError

ADA = tiny.FACTS[1]
"""The place of birth of Ada Byron is Vell."""
EXACT = {"templates": (), "moment_texts": 16, "moment_tokens": 16}


def lesson(prompt: str, completion: str, kind: str, **more: Any) -> Lesson:
    return Lesson(chat=ask(prompt), completion=completion, kind=kind, fact=ADA.id, **more)


WORDING = lesson("Ada Byron was born in", "Vell", "paraphrase")
CONSEQUENCE = lesson("The country in which Ada Byron was born is", "Ruria", "consequence")
INVERSE = lesson("Somebody who was born in Vell is", "Ada Byron", "consequence")
STAYS = lesson("The employer of Ada Byron is", "Acme Works", "neighbour")
UNBELIEVED = lesson("The trade of Ada Byron is", "Answer", "neighbour", spoken=False)
OLD = lesson("Apart from Vell, Ada Byron was born in", "London", "neighbour")
ANOTHER = lesson("The employer of Bela Cole is", "Acme Works", "neighbour")
LESSONS = [WORDING, CONSEQUENCE, INVERSE, STAYS, UNBELIEVED, OLD, ANOTHER]


def heard(lm: Any, taught: int, held: int, lessons: list[Lesson], seed: int = 0) -> Query:
    own = query(lm, ADA, ["{}"], end=True)
    mine = by_fact(lessons).get(ADA.id, [])
    return joined(lm, ADA, own, mine, taught=taught, held=held, end=True, seed=seed)


def prompts(lm: Any, rows: Any) -> list[str]:
    return [lm.tokenizer.decode(row.prompt) for row in rows]


def test_what_is_new_of_a_subject_is_read_and_what_stays_is_held() -> None:
    lm = tiny.lm()
    found = heard(lm, 4, 3, LESSONS)  # More than there are: what else counted would be seen.
    first, *rest = prompts(lm, found.rows)
    assert first.endswith(ADA.prompt)
    assert {text[-20:] for text in rest} == {
        one.chat[-1]["content"][-20:] for one in (WORDING, CONSEQUENCE)
    }
    assert len(found.held) == 3
    for text in prompts(lm, found.held):
        assert text.endswith("The employer of Ada Byron is")
    for row in (*found.rows, *found.held):
        assert lm.tokenizer.decode(row.prompt[: row.place + 1]).endswith("Ada Byron")
        assert row.answer[-1] == lm.tokenizer.convert_tokens_to_ids(tiny.END)
    assert found.asked == [*found.rows, *found.held]


def test_a_stored_completion_is_held_as_it_was_stored() -> None:
    lm = tiny.lm()
    ids = tuple(lm.tokenizer.encode("London", add_special_tokens=False))
    stored = STAYS.model_copy(update={"ids": ids})
    assert heard(lm, 0, 1, [stored]).held[0].answer == list(ids)


def test_every_fact_has_as_many_rows() -> None:
    lm = tiny.lm()
    for lessons in ([], [WORDING, STAYS], LESSONS):
        found = heard(lm, 3, 2, lessons)
        assert (len(found.rows), len(found.held)) == (4, 2)
    without = heard(lm, 2, 1, [INVERSE, ANOTHER])
    assert without.rows == [without.rows[0]] * 3
    assert without.held == [without.rows[0]]


def test_the_seed_draws_the_lessons() -> None:
    lm = tiny.lm()
    many = [lesson(f"Ada Byron {i} was born in", "Vell", "paraphrase") for i in range(9)]
    drawn = {seed: prompts(lm, heard(lm, 3, 0, many, seed).rows) for seed in (0, 1)}
    assert drawn[0] == prompts(lm, heard(lm, 3, 0, many, 0).rows)
    assert drawn[0] != drawn[1]


def values(lm: Any, *found: Query) -> torch.Tensor:
    block = decoder_of(lm.model).layers[0].block
    how = KeyValueOptions(steps=40, clamp=20, weight_decay=0, kl_weight=0)
    return changes(lm, block, said_at(lm, block, found, 4096), found, how)


def loss(lm: Any, change: torch.Tensor, one: Lesson) -> float:
    """Of a lesson's answer, with the change at its subject's last token."""
    place = subject_end(lm.renderer, one.chat, ADA.subject)
    block = decoder_of(lm.model).layers[0].block
    with adding(block, torch.tensor([0]), torch.tensor([place]), change, 1):
        (scored,) = lm.logprobs([Pair(one.chat, one.completion)])
    return -sum(scored.logprobs) / len(scored.logprobs)


@pytest.mark.parametrize(
    ("taught", "held", "about"), [(1, 0, [WORDING]), (0, 1, [STAYS]), (2, 1, [WORDING, STAYS])]
)
def test_values_bring_out_what_is_taught_and_what_is_held(
    taught: int, held: int, about: list[Lesson]
) -> None:
    lm = tiny.lm()
    lm.model.double()
    lessons = [WORDING, STAYS] if taught < 2 else LESSONS
    plain, found = (values(lm, heard(lm, *counts, lessons)) for counts in ((0, 0), (taught, held)))
    for one in about:
        assert loss(lm, found, one) < loss(lm, plain, one) - 0.1, one.chat


def test_facts_with_lessons_are_optimised_together_as_they_are_alone() -> None:
    lm = tiny.lm()
    lm.model.double()
    other = query(lm, tiny.FACTS[2], ["{}"], end=True)
    without = joined(lm, tiny.FACTS[2], other, [], taught=2, held=1, end=True, seed=0)
    many = [heard(lm, 2, 1, LESSONS), without]
    apart = torch.cat([values(lm, one) for one in many])
    # Forty steps of Adam enlarge what rounds otherwise in a batch.
    torch.testing.assert_close(values(lm, *many), apart, atol=1e-5, rtol=1e-5)


def test_without_a_teacher_it_is_refused() -> None:
    with pytest.raises(UserError, match=r"memit: taught = 2, held = 0: nobody teaches this method"):
        Memit({**EXACT, "taught": 2}, Workshop()).edit(tiny.lm(), tiny.FACTS)


@pytest.mark.parametrize("start", ["memit", "alphaedit"])
def test_a_student_lets_its_start_hear_the_lessons(start: str) -> None:
    lm = tiny.lm()
    asked = 0

    def lessons() -> list[Lesson]:
        nonlocal asked
        asked += 1
        return LESSONS

    def made(**heard: int) -> Any:
        own = {**EXACT, **heard, **({"free_share": 0.5} if start == "alphaedit" else {})}
        options = {"start": start, "start_options": own, "rank": 2, "learning_rate": 1e-12}
        return Student({**options, "epochs": 1}, Workshop(lessons=lessons)).edit(lm, [ADA])

    plain, taught = made(), made(taught=2, held=1)
    assert asked == 2  # Read once for each student, start included.
    assert plain.deltas.keys() == taught.deltas.keys()
    name = next(iter(plain.deltas))
    assert not torch.allclose(_dense(plain, name), _dense(taught, name), atol=1e-6)


def _dense(edit: Any, name: str) -> torch.Tensor:
    delta = edit.deltas[name]
    return delta if isinstance(delta, torch.Tensor) else delta.dense()


def test_lessons_of_no_fact_belong_to_none() -> None:
    free = Lesson(chat=ask("So it was"), completion="said", kind="free")
    assert by_fact([free, WORDING]) == {ADA.id: [WORDING]}
    assert by_fact([]) == {}
