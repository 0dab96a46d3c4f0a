"""IKE, SCR and packed prompts: what stands before which question, and what is left as it was."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from methods.base import Edit, Practice, Workshop
from methods.demonstrations import Demonstration, apart_from, choose, counts
from methods.prompt import PromptEdit
from methods.retrieval import best_split
from methods.table import build, load_edit
from ske.lm import LM, Chat, Pair, Reply, Sampling, Scored, ask
from ske.types import Fact, UserError

NAMES = [f"{first} {last}" for first in ("Cato", "Dora", "Emil") for last in "ABCDEFGHIJKLMNOP"]


def fact(subject: str, target: str = "Vell", what: str = "place of birth") -> Fact:
    prompt = f"The {what} of {subject} is"
    return Fact(id=f"{subject} {what}", subject=subject, prompt=prompt, target_new=target)


def example(name: str) -> Practice:
    return Practice(
        fact=fact(name, "Oldtown"),
        paraphrases=(f"{name} was born in",),
        unrelated=((f"The employer of {name} is", "Acme"), ("The capital of Ruria is", "Pell")),
    )


PRACTICE = [example(name) for name in NAMES]
FACTS = [fact("Ada Byron"), fact("Bela Cole", "Rome"), fact("Ada Byron", "Zenith", "employer")]


class Listening:
    """An `LM` that answers with the length of its chat, and remembers what it was asked."""

    def __init__(self, yes: str = "") -> None:
        self.calls: list[list[Chat]] = []
        self.stops: list[tuple[str, ...]] = []
        self.yes = yes

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Reply]:
        self.calls.append(list(chats))
        self.stops.append(sampling.stop)
        return [Reply(chat[-1]["content"], 1, 1, True) for chat in chats]

    def logprobs(self, pairs: Sequence[Pair], top_k: int = 0) -> list[Scored]:
        self.calls.append([pair.chat for pair in pairs])
        good = [(self.yes in p.chat[-1]["content"]) == (p.answer == "yes") for p in pairs]
        return [
            Scored([len(p.answer)], [-1.0 + g], [0], [], [])
            for p, g in zip(pairs, good, strict=True)
        ]

    @property
    def heard(self) -> list[Chat]:
        return [chat for call in self.calls for chat in call]


def made(name: str, options: dict[str, Any], facts: Sequence[Fact] = FACTS, **more: Any) -> Edit:
    workshop = Workshop(**{"practice": lambda: PRACTICE, **more})
    return build(name, {"retriever": "overlap", **options}, workshop).edit(Listening(), facts)


def prompted(edit: Edit, *questions: str) -> list[str]:
    """What the model reads, as plain text, by question."""
    heard = []
    for question in questions:
        model = Listening()
        with edit.applied(model) as edited:
            edited.generate([ask(question)], Sampling())
        heard.append("\n\n".join(message["content"] for message in model.heard[-1]))
    return heard


# -- demonstrations -----------------------------------------------------------------------------


def test_kinds_are_as_one_to_three_to_four() -> None:
    assert counts(32) == {"copy": 4, "update": 12, "retain": 16}
    assert counts(8) == {"copy": 1, "update": 3, "retain": 4}
    assert counts(2) == {"copy": 0, "update": 1, "retain": 1}
    assert all(sum(counts(total).values()) == total for total in range(40))


def test_the_most_similar_examples_are_shown_once_each_the_nearest_last() -> None:
    ranked = list(np.random.default_rng(1).permutation(len(PRACTICE)))
    shown = choose(PRACTICE, ranked, 32, seed=0)
    assert [d.fact for d in shown] == [
        f"The place of birth of {NAMES[place]} is Oldtown" for place in reversed(ranked[:32])
    ]
    kinds = [d.kind for d in shown]
    assert {kind: kinds.count(kind) for kind in kinds} == counts(32)
    assert kinds != sorted(kinds)
    for d, place in zip(shown, reversed(ranked[:32]), strict=True):
        name = NAMES[place]
        wanted = {
            "copy": [(f"The place of birth of {name} is", "Oldtown")],
            "update": [(f"{name} was born in", "Oldtown")],
            "retain": list(PRACTICE[place].unrelated),
        }
        assert (d.prompt, d.answer) in wanted[d.kind]
    assert shown == choose(PRACTICE, ranked, 32, seed=0)
    assert shown != choose(PRACTICE, ranked, 32, seed=1)


def test_an_example_that_lacks_a_kind_is_not_shown_as_it() -> None:
    bare = [each.model_copy(update={"paraphrases": ()}) for each in PRACTICE[:10]]
    shown = choose([*bare, *PRACTICE[10:]], range(48), 8, seed=3)
    kinds = {d.fact: d.kind for d in shown}
    assert len(shown) == 8
    assert all(
        kinds.get(f"The place of birth of {name} is Oldtown") != "update" for name in NAMES[:10]
    )
    assert len(choose(PRACTICE[:3], range(3), 8, seed=0)) == 3


def test_practice_never_mentions_an_edited_subject() -> None:
    leaking = [
        example("Ada Byron"),
        Practice(fact=fact("Cato A", "ada byron")),
        Practice(
            fact=fact("Cato B"),
            paraphrases=("Cato B, friend of Ada  Byron, was born in", "Cato B hails from"),
            unrelated=(("The spouse of Cato B is", "Ada Byron"), ("Ada Byronson is", "fine")),
        ),
    ]
    kept = apart_from([*leaking, *PRACTICE[:2]], FACTS)
    assert [each.fact.subject for each in kept] == ["Cato B", "Cato A", "Cato B"]
    assert kept[0].paraphrases == ("Cato B hails from",)
    assert kept[0].unrelated == (("Ada Byronson is", "fine"),)
    edit = made("ike", {}, practice=lambda: [*leaking, *PRACTICE])
    text = prompted(edit, "Where?")[0].rpartition("\n\nNew Fact")[0].rpartition("\n\nNew Fact")[0]
    assert "ada" not in text.lower().replace("ada byronson", "")


# -- IKE ----------------------------------------------------------------------------------------


def test_the_published_form() -> None:
    edit = made("ike", {"demonstrations": 8, "facts_in_prompt": 1})
    text = prompted(edit, "Bela Cole was born in")[0]
    blocks = text.split("\n\n")
    assert len(blocks) == 8 + 1 + 1
    assert all(b.startswith("New Fact: ") and b.count("\nPrompt: ") == 1 for b in blocks)
    assert blocks[-2:] == [
        "New Fact: The place of birth of Bela Cole is Rome\n"
        "Prompt: The place of birth of Bela Cole is Rome",
        "New Fact: The place of birth of Bela Cole is Rome\nPrompt: Bela Cole was born in",
    ]


def test_the_facts_nearest_to_the_question_stand_before_it_the_nearest_last() -> None:
    question = "The employer of Ada Byron is"
    lines = prompted(made("ike", {"facts_in_prompt": 2}), question)[0].split("\n")
    assert lines[-3:] == [
        "New Fact: The place of birth of Ada Byron is Vell",
        "New Fact: The employer of Ada Byron is Zenith",
        f"Prompt: {question}",
    ]
    text = prompted(made("ike", {"facts_in_prompt": None}), question)[0].rpartition("\n\n")[2]
    assert text.count("New Fact: ") == 3


def test_a_reply_ends_where_the_model_begins_a_demonstration_of_its_own() -> None:
    model = Listening()
    with made("ike", {"demonstrations": 2}).applied(model) as edited:
        edited.generate([ask("Who?")], Sampling(stop=("!",)))
    assert model.stops == [("!", "\nNew Fact:")]


def test_without_practice_ike_says_what_to_give() -> None:
    with pytest.raises(UserError, match="`practice`"):
        made("ike", {}, practice=None)
    with pytest.raises(UserError, match="48 examples has unrelated"):
        bare = [each.model_copy(update={"unrelated": ()}) for each in PRACTICE]
        made("ike", {}, practice=lambda: bare)
    with pytest.raises(UserError, match="mentions an edited subject"):
        made("ike", {}, practice=lambda: [example("Ada Byron")])
    text = prompted(made("ike", {"demonstrations": 0}, practice=None), "Who?")[0]
    assert text.count("New Fact: ") == 1 + len(FACTS)


def test_fewer_demonstrations_in_a_small_window_are_counted() -> None:
    lm = tiny.lm()
    options: dict[str, Any] = {"retriever": "overlap", "room": 64}
    edit = build("ike", options, Workshop(practice=lambda: PRACTICE)).edit(lm, FACTS)
    saved: Any = edit
    shown = sum(saved.contents.shown.values())
    assert saved.contents.wanted == 32
    assert 0 < shown < 32 * len(FACTS)
    with edit.applied(lm) as edited:
        reply = edited.generate([ask(FACTS[0].prompt)], Sampling(max_new_tokens=2))[0]
        assert reply.prompt_tokens <= 512 - 64
        with pytest.raises(UserError, match=r"context window of 512.*demonstrations"):
            edited.generate([ask("Vell " * 100)], Sampling(max_new_tokens=2))
        with pytest.raises(UserError, match=r"context window of 512"):
            edited.logprobs([Pair(ask("Vell?"), "Vell " * 100)])
    with pytest.raises(UserError, match="new facts alone"):
        options |= {"facts_in_prompt": None}
        build("ike", options, Workshop(practice=lambda: PRACTICE)).edit(
            lm, [fact(f"Gus {letter}") for letter in "ABCDEFGHIJKLMNOPQRSTUVW"]
        )


# -- SCR ----------------------------------------------------------------------------------------


def test_only_questions_about_a_fact_are_changed() -> None:
    edit = made("retrieval", {})
    other: Chat = ask("What is two and two?", "Be brief.")
    chats = [
        ask("Ada Byron works for"),
        other,
        ask("Who is the head of Ruria?"),
        ask("Bela Cole is"),
    ]
    model = Listening()
    with edit.applied(model) as edited:
        replies = edited.generate(chats, Sampling())
    assert [reply.text for reply in replies] == [chat[-1]["content"] for chat in chats]
    passed = [chat for chat in model.heard if chat in chats]
    assert passed == [chats[2], other]
    assert passed[1] is other
    told = {chat[-1]["content"]: chat[0]["content"] for chat in model.heard if chat not in chats}
    assert "Zenith" in told["Ada Byron works for"]
    assert "Rome" not in told["Ada Byron works for"]
    assert "Rome" in told["Bela Cole is"]


def test_an_unmatched_question_is_answered_as_by_the_base_to_the_last_bit() -> None:
    lm = tiny.lm()
    pairs = [Pair(ask(text), "Vell") for text in ("system user assistant:", "I don't know.")]
    with made("retrieval", {}).applied(lm) as edited:
        assert edited.logprobs(pairs) == lm.logprobs(pairs)


def test_the_model_confirms_each_fact_once() -> None:
    edit = made("retrieval", {"confirm": "model", "top_k": 2})
    model = Listening(yes="Zenith")
    with edit.applied(model) as edited:
        for _ in range(2):
            edited.generate([ask("Ada Byron works for"), ask("Bela Cole is")], Sampling())
    confirmations, *answered = model.calls
    assert len(confirmations) == 2 * 2 * 2
    assert len(answered) == 4
    about = [chat for call in answered for chat in call if chat[0]["role"] == "system"]
    assert [chat[-1]["content"] for chat in about] == ["Ada Byron works for"] * 2
    assert "Zenith" in about[0][0]["content"]
    assert "Vell" not in about[0][0]["content"]


def test_the_threshold_splits_practice_questions_best() -> None:
    positive, negative = np.array([0.9, 0.8, 0.7, 0.2]), np.array([0.1, 0.3, 0.6])
    assert best_split(positive, negative) == pytest.approx(0.65)
    assert best_split(np.array([0.5]), np.array([0.1])) == pytest.approx(0.3)
    edit: Any = made("retrieval", {})
    assert 0.1 < edit.contents.threshold < 0.9
    untuned: Any = made("retrieval", {}, practice=None)
    assert untuned.contents.threshold == 0.5
    given: Any = made("retrieval", {"threshold": 0.25})
    assert given.contents.threshold == 0.25


# -- packs --------------------------------------------------------------------------------------


def test_packs_are_full_and_keep_subjects_together() -> None:
    edit: Any = made("prompt_packed", {"facts_per_prompt": 2})
    packs = [[s.split(" is ")[1] for s in pack.sentences] for pack in edit.contents.packs]
    assert packs == [["Vell", "Zenith"], ["Rome"]]
    one: Any = made("prompt_packed", {"facts_per_prompt": 1})
    assert [len(pack.sentences) for pack in one.contents.packs] == [1, 1, 1]
    with pytest.raises(UserError, match="Listening has no tokens"):
        made("prompt_packed", {"tokens_per_prompt": 100})


def test_a_question_gets_the_pack_of_its_nearest_fact_and_answers_keep_their_order() -> None:
    edit = made("prompt_packed", {"facts_per_prompt": 2, "header": "none"})
    questions = ["Bela Cole was born in", "Ada Byron works for", "Bela Cole?", "Ada Byron?"] * 3
    model = Listening()
    with edit.applied(model) as edited:
        chats = [ask(question, "Be brief.") for question in questions]
        replies = edited.generate(chats, Sampling())
        scored = edited.logprobs([Pair(c, "x" * n) for n, c in enumerate(chats)])
    assert [reply.text for reply in replies] == questions
    assert [s.tokens for s in scored] == [[n] for n in range(len(questions))]
    assert [len(call) for call in model.calls] == [6, 6, 6, 6]  # one call a pack
    for chat in model.heard:
        facts = (
            "New Fact: The place of birth of Bela Cole is Rome."
            if "Bela" in chat[-1]["content"]
            else "New Fact: The place of birth of Ada Byron is Vell.\n"
            "New Fact: The employer of Ada Byron is Zenith."
        )
        assert chat[0] == {"role": "system", "content": f"{facts}\n\nBe brief."}


def test_packs_are_bounded_by_tokens() -> None:
    lm = tiny.lm()
    facts = [fact(name) for name in NAMES[:12]]
    options = {"tokens_per_prompt": 150, "facts_per_prompt": 12, "retriever": "overlap"}
    edit: Any = build("prompt_packed", options, Workshop()).edit(lm, facts)
    sizes = [len(lm.renderer.prompt_ids(ask("", pack.system))) for pack in edit.contents.packs]
    assert max(sizes) <= 150
    assert len(sizes) > 2
    assert sum(len(pack.sentences) for pack in edit.contents.packs) == 12
    with pytest.raises(UserError, match=r"'Cato A place of birth' alone takes \d+ tokens"):
        build("prompt_packed", options | {"tokens_per_prompt": 20}, Workshop()).edit(lm, facts)
    with pytest.raises(UserError, match=r"context window of 512.*facts_per_prompt"):
        many = {"retriever": "overlap", "facts_per_prompt": 48}
        build("prompt_packed", many, Workshop()).edit(lm, [fact(name) for name in NAMES])


# -- all three ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ike", "retrieval", "prompt_packed"])
def test_saved_edits_prompt_alike_and_nest(name: str, tmp_path: Path) -> None:
    edit = made(name, {})
    edit.save(tmp_path)
    questions = [fact.prompt for fact in FACTS] + ["Ada Byron works for", "What is two and two?"]
    assert prompted(load_edit(tmp_path), *questions) == prompted(edit, *questions)
    assert "overlap" in json.loads((tmp_path / "edit.json").read_text()).values()

    model = Listening()
    with edit.applied(model) as once, PromptEdit("Be brief.").applied(once) as twice:
        twice.generate([ask(FACTS[0].prompt)], Sampling())
    assert model.heard[0][0]["content"].endswith("\n\nBe brief.")
    assert "Vell" in model.heard[0][0]["content"]


def test_a_question_inside_demonstrations_is_found_by_what_it_asks() -> None:
    outer = made("ike", {"demonstrations": 2}, [fact("Cato P", "Bela Cole Town")])
    inner = made("retrieval", {"top_k": 2})
    model = Listening()
    with inner.applied(model) as once, outer.applied(once) as twice:
        twice.generate([ask("Ada Byron works for"), ask("Two and two?")], Sampling())
    told = [chat for chat in model.heard if "Zenith" in chat[0]["content"]]
    assert [chat[-1]["content"].split("\n")[-1] for chat in told] == ["Prompt: Ada Byron works for"]


def test_demonstrations_are_what_is_saved() -> None:
    edit: Any = made("ike", {"demonstrations": 4})
    contents = edit.contents
    assert len(contents.facts) == len(contents.chosen) == 3
    assert all(isinstance(each, Demonstration) for each in contents.examples)
    assert sum(contents.shown.values()) == 3 * 4
    assert isinstance(edit, object) and isinstance(Listening(), LM)


def test_a_prompt_that_no_window_holds_is_refused_before_anything_is_asked() -> None:
    lm = tiny.lm()
    with pytest.raises(UserError, match=r"'prompt': 48 facts .* window of 512 .*retrieval"):
        build("prompt", {}, Workshop()).edit(lm, [fact(name) for name in NAMES])
    with (
        build("prompt", {}, Workshop()).edit(lm, FACTS).applied(lm) as edited,
        pytest.raises(UserError, match=r"context window of 512"),
    ):
        edited.generate([ask("Vell " * 200)], Sampling(max_new_tokens=2))


def test_an_answer_s_tokens_count_and_not_its_bytes() -> None:
    lm = tiny.lm()
    answer = "The place of birth of Ada Byron is London. " * 14
    size = len(lm.renderer.answer_ids(ask("Who?"), answer))
    with build("prompt", {}, Workshop()).edit(lm, FACTS).applied(lm) as edited:
        (scored,) = edited.logprobs([Pair(ask("Who?"), answer)])
        assert len(scored.tokens) == size < 512 < len(answer.encode())
        with pytest.raises(UserError, match=r"tokens for its answer|for its answer"):
            edited.logprobs([Pair(ask("Who?"), answer * 4)])
