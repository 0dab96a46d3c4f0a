"""The Questioner's rules: what is asked, what is expected, and what is never asked."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import ScriptedLM, make_facts, people

from agents.questioner import UNKNOWN, Batch, ExamLimits, Query, majority, queries, resolve
from prompts.relations import EXCEPTIONS, lexicon
from ske.teaching import TeachConfig
from ske.types import ERASED, Fact

TEACH = TeachConfig.model_validate({})


def fact(subject: str, relation: str, target: str, **more: str) -> Fact:
    return Fact(
        id=f"{subject}-{relation}",
        subject=subject,
        prompt=lexicon()[relation].ask(subject),
        target_new=target,
        relation=relation,
        **more,  # type: ignore[arg-type]
    )


def drawn(one: Fact, batch: list[Fact], names: list[str] | None = None) -> list[Query]:
    return queries(one, Batch(batch), TEACH, names or [], random.Random(1))


def settled(one: Fact, batch: list[Fact], lm: ScriptedLM, names: list[str]) -> list[Query]:
    return resolve(
        drawn(one, batch, names), Batch(batch), lambda asked: [lm.answer(q, "") for q in asked]
    )


def test_consequences_expect_what_the_base_model_knows_of_the_new_target() -> None:
    one = fact("Ada Holt", "country_of_citizenship", "Syria")
    lm = ScriptedLM([one], 9, values={("Syria", "currency"): "Syrian pound"})
    found = settled(one, [one], lm, [])
    money = [q for q in found if q.of == "country_of_citizenship.currency"]
    assert money
    assert {q.expected for q in money} == {"Syrian pound"}


def test_an_edited_second_hop_uses_the_edited_value() -> None:
    one = fact("Ada Holt", "employer", "Acme")
    two = fact("Acme", "headquarters_location", "Rome")
    found = settled(one, [one, two], ScriptedLM([one, two], 9), [])
    where = [q.expected for q in found if q.of == "employer.headquarters_location"]
    assert where == ["Rome"] * len(where)
    assert where
    asked = {q.prompt for q in found if q.kind == "neighbour"}
    assert not any("Acme" in q and ("headquarters" in q or "based" in q) for q in asked)


def test_disagreeing_wordings_have_no_expected_answer() -> None:
    one = fact("Ada Holt", "employer", "Acme")
    lm = ScriptedLM([one], 9, override=lambda question: question)
    found = [q for q in settled(one, [one], lm, []) if q.kind == "consequence"]
    assert found
    assert all(q.expected is None and q.note for q in found)
    assert majority(["Rome", "rome.", "Paris"]) == "Rome"
    assert majority(["Rome", "Paris"]) is None
    assert majority(["", ""]) is None


def test_erasures() -> None:
    one = fact("Ada Holt", "employer", ERASED)
    found = drawn(one, [one], ["Bo Ray"])
    assert {q.expected for q in found if q.kind == "consequence"} == {ERASED}
    assert not any(q.note.startswith("the new target") for q in found)
    spouse = fact("Ada Holt", "spouse", ERASED)
    assert not [q for q in drawn(spouse, [spouse]) if q.kind == "consequence"]


def test_symmetric_and_inverse() -> None:
    one = fact("Ada Holt", "spouse", "Bo Ray", ground_truth="Cy Old")
    found = drawn(one, [one], ["Cy Old", "Bo Ray", "Di Far"])
    inverse = [q for q in found if q.kind == "consequence"]
    assert inverse
    assert {q.expected for q in inverse} == {"Ada Holt"}
    assert all("Bo Ray" in q.prompt for q in inverse)
    asked = [q for q in found if q.kind == "neighbour" and q.of == "spouse"]
    assert asked
    assert all("Di Far" in q.prompt for q in asked)
    boss = fact("Acme", "chief_executive_officer", "Bo Ray")
    assert "Acme" in {q.expected for q in drawn(boss, [boss]) if q.kind == "consequence"}
    two = fact("Emco", "chief_executive_officer", "Bo Ray")
    assert not [q for q in drawn(boss, [boss, two]) if (q.of or "").startswith("inverse")]


def test_partners_of_touched_people_are_dropped() -> None:
    one = fact("Ada Holt", "spouse", "Bo Ray")
    lm = ScriptedLM([one], 9, values={("Di Far", "spouse"): "Bo Ray"})
    found = settled(one, [one], lm, ["Di Far", "Eve Sky"])
    about = [q.prompt for q in found if q.of == "spouse" and q.kind == "neighbour"]
    assert any("Eve Sky" in prompt for prompt in about)
    assert not any("Di Far" in prompt for prompt in about)


def test_unknown_relation_is_noted() -> None:
    one = Fact(id="u", subject="Zed", prompt="The shoe size of Zed is", target_new="44")
    found = drawn(one, [one], ["Bo Ray"])
    assert found[0].note == UNKNOWN
    assert [q for q in found if q.kind == "paraphrase"]
    assert all(q.note == UNKNOWN for q in found if q.kind == "paraphrase")
    assert not [q for q in found if q.kind == "consequence"]
    near = [q for q in found if q.kind == "neighbour"]
    assert near
    assert all(q.prompt != "The shoe size of Bo Ray is" for q in near)


EDITABLE = ("employer", "spouse", "occupation", "country_of_citizenship", "place_of_birth")


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from(EDITABLE), st.integers(0, 9)),
        min_size=1,
        max_size=12,
        unique_by=lambda row: row[:2],
    ),
    st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_laws(rows: list[tuple[int, str, int]], seed: int) -> None:
    known = people(10)
    batch = [
        fact(known[s], r, people(20)[o + 10] if r == "spouse" else f"Target{o}") for s, r, o in rows
    ]
    canonical = [relation.prompt for relation in lexicon().values()]
    index = Batch(batch)
    for one in batch:
        found = queries(one, index, TEACH, people(20), random.Random(seed))
        assert found == queries(one, index, TEACH, people(20), random.Random(seed))
        assert len({q.prompt for q in found}) == len(found)
        limits = (
            ("paraphrase", 3),
            ("consequence", 6),
            ("neighbour", TEACH.neighbours + len(EXCEPTIONS)),
        )
        for kind, most in limits:
            assert sum(q.kind == kind for q in found) <= most
        for query in (q for q in found if q.kind == "neighbour"):
            assert query.expected is None
            names = [n for n in (*people(20), one.target_new) if n in query.prompt]
            assert names
            for name in names:
                assert query.prompt not in [text.replace("{subject}", name) for text in canonical]
                assert not index.changes(name, query.of or "")
        for query in (q for q in found if q.kind in ("fact", "paraphrase")):
            assert one.target_new not in query.prompt


def test_who_shares_a_name_with_the_subject_is_asked_about_first() -> None:
    one = fact("Ada Holt", "employer", "Acme")
    limits = TeachConfig(neighbours=24)
    strangers = [name for name in people(40) if "Holt" not in name and "Ada" not in name]
    found = queries(one, Batch([one]), limits, [*strangers, "Bo Holt", "Ada Rey"], random.Random(0))
    asked = [query.prompt for query in found if query.note == "other subject"]
    assert sum("Bo Holt" in prompt or "Ada Rey" in prompt for prompt in asked) == 2
    assert len(asked) > 4
    # However many there are, they are half of the others at most.
    kin = [f"{name} Holt" for name in "Bea Cid Dov Eva Fay Gus Hal Ina".split()]
    found = queries(one, Batch([one]), limits, [*strangers, *kin], random.Random(0))
    others = [query.prompt for query in found if query.note == "other subject"]
    assert sum("Holt" in prompt for prompt in others) == 4 <= len(others) / 2


def test_without_a_lexicon_only_generic_forms_are_asked() -> None:
    one = fact("Ada Holt", "employer", "Acme")
    limits = TeachConfig(lexicon=False)
    found = queries(one, Batch([one]), limits, people(8), random.Random(0))
    known = {w.replace("{subject}", "Ada Holt") for w in lexicon()["employer"].paraphrases}
    assert found[0].note == UNKNOWN
    assert not {query.prompt for query in found} & known
    assert {query.kind for query in found} == {"fact", "paraphrase", "neighbour"}
    assert all(one.prompt.split(" of ")[0].lower() in query.prompt.lower() for query in found)


def test_exam_limits_are_limits() -> None:
    one = make_facts(1)[0]
    found = queries(one, Batch([one]), ExamLimits(), people(8), random.Random(0))
    assert [q.kind for q in found].count("paraphrase") == 1
    assert [q.kind for q in found].count("neighbour") == 2
