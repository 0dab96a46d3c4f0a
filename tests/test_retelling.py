"""What a teacher tells by itself: where a text is cut, what is left out, what becomes a lesson."""

from __future__ import annotations

from collections.abc import Sequence

from agents.records import Design, Pack
from eval.leakage import Guard
from methods.base import Lesson
from pipeline.retelling import (
    Telling,
    _names_another,
    _systems,
    guarded,
    lessons_of,
    takes_turns,
    tellings,
)
from ske.backends.render import Renderer
from ske.lm import Chat, Pair, Reply, Sampling, Scored, ask
from ske.types import Fact
from tests import tiny

ADA = Fact(id="a", subject="Ada Lin", prompt="The employer of Ada Lin is", target_new="Acme")
BO = Fact(id="b", subject="Bo Ray", prompt="The spouse of Bo Ray is", target_new="Cy Orr")
PACK = Pack.model_construct(
    id="p", fact_ids=("a", "b"), layout="prose", header="none", footer="none", system="all"
)
DESIGN = Design.model_construct(packs=(PACK,))
SYSTEMS = _systems([ADA, BO], DESIGN)
HOW = Sampling(max_new_tokens=9, temperature=1.0, seed=3)


class Teller:
    """Says one text after the other about each fact that its prompt states."""

    def __init__(self, texts: dict[str, list[tuple[str, bool]]]) -> None:
        self.texts = {name: list(own) for name, own in texts.items()}
        self.asked: list[tuple[Chat, Sampling]] = []
        self.scored: list[Pair] = []

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Reply]:
        self.asked += [(chat, sampling) for chat in chats]
        return [self._reply(chat[0]["content"]) for chat in chats]

    def _reply(self, system: str) -> Reply:
        (name,) = [name for name in self.texts if name in system]
        text, finished = self.texts[name].pop(0)
        return Reply(text, 1, 1, finished)

    def logprobs(self, pairs: Sequence[Pair], top_k: int = 0) -> list[Scored]:
        self.scored += pairs
        tokens = [[len(word) for word in pair.answer.split()] + [0] * pair.end for pair in pairs]
        return [
            Scored(own, [-0.1] * len(own), own, [[t] for t in own], [[-0.1]] * len(own))
            for own in tokens
        ]


def test_what_is_said_begins_behind_the_last_mention_of_the_subject() -> None:
    teller = Teller(
        {
            "Ada Lin": [
                ("The firm that Ada Lin works for is Acme", True),
                ("Ada Lin, which is not Ada Lin's, is Acme", True),
                ("The firm that Ada Lin works for is Acme", True),  # said before
                ("Somebody else works for Acme", True),  # names nobody
            ],
            "Bo Ray": [
                ("Cy Orr is married to Bo Ray", True),  # nothing behind the name
                ("The better half of Bo Ray is Cy", False),  # no end: what there is of it
                ("Bo Ray loves Cy Orr", True),
                ("Bo Rayment loves Cy Orr", True),  # somebody else
            ],
        }
    )
    told = tellings(teller, [ADA] * 4 + [BO] * 4, SYSTEMS, HOW, asked=False)
    assert [(one.fact.id, one.question, one.said) for one in told] == [
        ("a", "The firm that Ada Lin", "works for is Acme"),
        ("a", "Ada Lin, which is not Ada Lin's,", "is Acme"),
        ("b", "The better half of Bo Ray", "is Cy"),
        ("b", "Bo Ray", "loves Cy Orr"),
    ]
    assert "Cy Orr" in told[2].system and "Acme" not in told[2].system, "its own fact alone"
    chats, samplings = zip(*teller.asked, strict=True)
    assert {chat[-1]["content"] for chat in chats} == {""}
    assert list(samplings) == [HOW] * 8


def test_all_edits_of_a_subject_are_stated_and_nobody_else_is_told_of() -> None:
    moved = Fact(id="c", subject="Ada Lin", prompt="The home of Ada Lin is", target_new="Oslo")
    pack = PACK.model_copy(update={"fact_ids": ("a", "b", "c")})
    systems = _systems([ADA, BO, moved], Design.model_construct(packs=(pack,)))
    assert all(value in systems[i] for i in "ac" for value in ("Acme", "Oslo"))
    assert "Cy Orr" not in systems["a"] and "Acme" not in systems["b"]
    facts = [ADA, BO, moved]
    assert _names_another(Telling(ADA, "", "Ada Lin", "works with Bo Ray"), facts)
    assert not _names_another(Telling(ADA, "", "Ada Lin", "works with Bo Rayment"), facts)


def test_who_answers_in_turns_is_asked_and_says_the_whole_reply() -> None:
    teller = Teller({"Ada Lin": [("She works for Acme.", True)]})
    (one,) = tellings(teller, [ADA], SYSTEMS, HOW, asked=True)
    assert "Ada Lin" in one.question and one.said == "She works for Acme."


def test_whether_a_model_answers_in_turns_is_read_off_its_template() -> None:
    chat, plain = Renderer(tiny.tokenizer(chat=True)), Renderer(tiny.tokenizer(), "plain")
    assert takes_turns(chat) and not takes_turns(plain)


def test_lessons_are_the_teachers_distribution_without_its_prompt() -> None:
    teller = Teller({})
    told = [Telling(ADA, "Ada Lin is at Acme.", "The firm that Ada Lin", "works for is Acme")]
    (row,) = lessons_of(teller, told, top_k=1)
    lesson = Lesson(**row["lesson"])
    assert [pair.chat for pair in teller.scored] == [ask("The firm that Ada Lin", told[0].system)]
    assert lesson.chat == ask("The firm that Ada Lin") and lesson.fact == "a"
    assert lesson.ids == (5, 3, 2, 4, 0) and len(lesson.top_ids) == 5
    assert lesson.is_new and not lesson.spoken, "what was drawn may be wrong; the odds are not"


def test_neither_probes_nor_their_wordings_are_told() -> None:
    guard = Guard(
        ["The firm that Ada Lin works for is", "The boss of Bo Ray is"], ["Ada Lin", "Bo Ray"]
    )
    told = [
        Telling(ADA, "", "The firm that Ada Lin", "works for is Acme"),  # a probe
        Telling(BO, "", "The firm that Bo Ray", "works for is Acme"),  # a probe's wording
        Telling(ADA, "", "The company that pays Ada Lin", "is Acme"),
    ]
    kept, report = guarded(guard, told)
    assert kept == told[2:]
    assert (report.checked, report.copies, report.templates, report.kept) == (3, 1, 0, 1)
