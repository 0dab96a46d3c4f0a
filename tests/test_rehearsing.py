"""What a later round learns again of earlier ones, and what it must not."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny

from methods.base import REHEARSED, Lesson
from methods.student import balanced
from pipeline.rehearsing import rehearsed
from ske.io import write_rows
from ske.lm import Pair, ask
from ske.types import Fact

RURIA, BYRON, COLE = tiny.FACTS


def taught(fact: Fact, kind: str = "fact", prompt: str | None = None) -> Lesson:
    return Lesson(
        chat=ask(prompt or fact.prompt), completion=fact.target_new, kind=kind, fact=fact.id
    )


def held(prompt: str, answer: str = "Vell", kind: str = "neighbour") -> Lesson:
    scored = tiny.lm().logprobs([Pair(ask(prompt), answer, end=True)], 3)[0]
    return Lesson(
        chat=ask(prompt),
        completion=answer,
        kind=kind,
        ids=tuple(scored.tokens),
        top_ids=tuple(map(tuple, scored.top_ids)),
        top_logprobs=tuple(map(tuple, scored.top_logprobs)),
    )


def round_of(folder: Path, facts: list[Fact], lessons: list[Lesson]) -> Path:
    write_rows(folder / "stages" / "facts" / "facts.jsonl", [fact.model_dump() for fact in facts])
    write_rows(
        folder / "stages" / "teach" / "lessons.jsonl",
        [lesson.model_dump(mode="json") for lesson in lessons],
    )
    return folder


def again(earlier: list[Path], facts: list[Fact], most: int = 100, seed: int = 0) -> list[Lesson]:
    return rehearsed(tiny.lm(), earlier, facts, most, 3, seed)


def prompts(lessons: list[Lesson]) -> set[str]:
    return {lesson.chat[-1]["content"] for lesson in lessons}


def test_the_first_round_and_who_wants_none_rehearse_nothing(tmp_path: Path) -> None:
    first = round_of(tmp_path, [RURIA], [taught(RURIA)])
    assert again([], [BYRON]) == []
    assert again([first], [BYRON], most=0) == []
    assert len(again([first], [BYRON])) == 1


def test_what_was_taught_keeps_its_answer_and_gets_todays_distribution(tmp_path: Path) -> None:
    (lesson,) = again([round_of(tmp_path, [RURIA], [taught(RURIA)])], [BYRON])
    pair = Pair(ask(RURIA.prompt), RURIA.target_new, end=True)
    (now,) = tiny.lm().logprobs([pair], 3)
    assert (lesson.kind, lesson.completion, lesson.spoken) == (REHEARSED, "London", True)
    assert list(lesson.ids) == now.tokens
    assert lesson.top_ids == tuple(map(tuple, now.top_ids))
    assert lesson.top_logprobs[0] == pytest.approx(now.top_logprobs[0], abs=1e-5)


def test_what_was_held_to_keeps_the_distribution_of_then(tmp_path: Path) -> None:
    then = held("The capital of Sorn is").model_copy(update={"top_logprobs": ((-9.0,) * 3,) * 2})
    (lesson,) = again([round_of(tmp_path, [RURIA], [then])], [BYRON])
    assert lesson == then.model_copy(update={"kind": REHEARSED})


def test_what_a_later_edit_may_have_changed_is_left_out(tmp_path: Path) -> None:
    first = round_of(
        tmp_path / "1",
        [RURIA],
        [
            taught(RURIA),
            held("The place of birth of Ada BYRON is"),
            held("", "Bela Cole is from Vell", "free"),
            held("The capital of Sorn is"),
        ],
    )
    second = round_of(
        tmp_path / "2", [BYRON], [taught(BYRON), held("The employer of Ada Byron is")]
    )
    assert prompts(again([first, second], [COLE])) == {
        RURIA.prompt,
        BYRON.prompt,
        "The capital of Sorn is",
        "The employer of Ada Byron is",  # its own round's facts are not later ones
    }
    assert prompts(again([first], [COLE])) == {
        RURIA.prompt,
        "The place of birth of Ada BYRON is",
        "The capital of Sorn is",
    }


def test_what_follows_from_a_target_that_was_edited_since_is_left_out(tmp_path: Path) -> None:
    follows = Lesson(
        chat=ask("Who is mayor of the capital of Ruria?"),
        completion="Ada",
        kind="consequence",
        fact=RURIA.id,
    )
    first = round_of(tmp_path, [RURIA], [follows])
    assert len(again([first], [BYRON])) == 1
    assert again([first], [BYRON.model_copy(update={"subject": RURIA.target_new})]) == []


def test_another_fact_about_a_subject_leaves_the_first_one_and_another_value_does_not(
    tmp_path: Path,
) -> None:
    first = round_of(tmp_path, [BYRON], [taught(BYRON)])
    # Of a relation that the lexicon does not know nobody can tell whether it is the same one.
    for prompt, kept in (
        ("The occupation of Ada Byron is", 1),
        ("The place of birth of Ada Byron is", 0),
        ("What Ada Byron is famous for:", 0),
    ):
        later = Fact(id="later", subject="Ada Byron", prompt=prompt, target_new="Ostia")
        assert len(again([first], [later])) == kept, prompt


def test_the_facts_own_prompts_come_before_what_else_was_taught(tmp_path: Path) -> None:
    others = [taught(RURIA, "paraphrase", f"{n} Ruria?") for n in range(40)]
    first = round_of(tmp_path, [RURIA], [*others, taught(RURIA)])
    assert all(RURIA.prompt in prompts(again([first], [BYRON], 1, seed)) for seed in range(5))


def test_rehearsed_lessons_do_not_make_new_ones_be_repeated_more_often() -> None:
    new, near = taught(RURIA), held("The capital of Sorn is")
    old = near.model_copy(update={"kind": REHEARSED})
    own = [new, *[near] * 30]
    assert balanced([*own, *[old] * 300]).count(new) == balanced(own).count(new) == 20


def test_no_round_rehearses_what_another_one_rehearsed(tmp_path: Path) -> None:
    first = round_of(tmp_path / "1", [RURIA], [taught(RURIA)])
    copied = again([first], [BYRON])
    second = round_of(tmp_path / "2", [BYRON], [taught(BYRON), *copied])
    assert len(again([first, second], [COLE])) == 2


def test_samples_are_bounded_by_kind_and_drawn_by_the_seed(tmp_path: Path) -> None:
    first = round_of(
        tmp_path,
        [RURIA],
        [
            *(taught(RURIA, "paraphrase", f"{n} Ruria?") for n in range(40)),
            *(held(f"{n} Sorn?") for n in range(40)),
        ],
    )
    lessons = again([first], [BYRON], most=10)
    assert sum("Ruria" in prompt for prompt in prompts(lessons)) == 10
    assert sum("Sorn" in prompt for prompt in prompts(lessons)) == 10
    assert lessons == again([first], [BYRON], most=10)
    assert prompts(lessons) != prompts(again([first], [BYRON], most=10, seed=1))
