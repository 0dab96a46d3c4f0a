"""The guard catches probes in disguise and lets honest training queries through."""

import random
import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.leakage import Example, Guard, normalise

LEO = "Leonardo DiCaprio"
MAX = "Max Planck"
EDIT = f"The name of the country of citizenship of {LEO} is"
PROBES = [
    f"The name of the mother of {LEO} is",
    f"The name of the currency in the country of citizenship of {LEO} is",
    "The name of the country of citizenship of Leo di Caprio is",
    f"{LEO} was born in the city of",
    EDIT,
]
GUARD = Guard(PROBES, [LEO, MAX], allowed=[EDIT])

WORDS = st.lists(st.text(string.ascii_lowercase, min_size=1, max_size=6), min_size=1, max_size=12)
GAP = st.text(" \t\n.,;:!?-\"'()*_", min_size=1, max_size=3)


@pytest.mark.parametrize(
    ("query", "probe"),
    [
        (PROBES[0], PROBES[0]),
        ("the name of the MOTHER of leonardo dicaprio is:", PROBES[0]),
        (f"Question: {PROBES[0]}", PROBES[0]),
        (f"Please complete this sentence in your own words: {PROBES[0]} ...", PROBES[0]),
        (f"Please tell me {PROBES[3]}", PROBES[3]),
        # With the name as one word there are 9 5-grams, of which one is not in the query.
        (PROBES[1].removesuffix("is") + "was", PROBES[1]),
        # Leo di Caprio is not a known name: plain words, and only the whole probe counts.
        (f"Complete the sentence: {PROBES[2]}", PROBES[2]),
    ],
)
def test_copies(query: str, probe: str) -> None:
    assert GUARD.check(query) == probe


@pytest.mark.parametrize(
    "query",
    [
        EDIT,
        f"Who is the mother of {LEO}?",
        f"The name of the religion of the mother of {LEO} is",
        f"The name of the father of {LEO} is",
        f"The name of the mother of {MAX} is",
        "The name of the country of citizenship of Leo Messi is",
        f"In which currency does one pay in the home country of {LEO}?",
        "The capital of France is",
        "",
        "?!",
    ],
)
def test_honest_queries_pass(query: str) -> None:
    assert GUARD.check(query) is None


def test_a_composition_that_holds_a_probe_asks_something_else() -> None:
    guard = Guard([f"The mother of {LEO} is"], [LEO])
    assert guard.check(f"The religion of the mother of {LEO} is") is None
    assert guard.check(f"Complete: The mother of {LEO} is")


def test_a_long_name_does_not_make_two_questions_alike() -> None:
    name = "University of California at Los Angeles School of Law and Order"
    guard = Guard([f"The founder of {name} is"], [name])
    assert guard.check(f"The seat of {name} is") is None


def test_templates_are_reported_only_for_another_subject() -> None:
    assert GUARD.check_template(f"The name of the mother of {MAX} is") == PROBES[0]
    assert GUARD.check_template(PROBES[0]) is None
    assert GUARD.check_template(f"Who is the mother of {MAX}?") is None
    assert GUARD.check_template("The name of the mother of Ada is") is None
    assert GUARD.check_template(EDIT) is None
    allowed = Guard(PROBES, [LEO, MAX], allowed=[f"The name of the mother of {MAX} is"])
    assert allowed.check_template(f"The name of the mother of {MAX} is") is None


def test_filter_drops_copies_and_counts_templates() -> None:
    queries = [EDIT, PROBES[0], f"The name of the mother of {MAX} is", "The capital of France is"]
    kept, report = GUARD.filter(queries)
    assert kept == [0, 2, 3]
    assert (report.checked, report.kept, report.copies, report.templates) == (4, 3, 1, 1)
    assert report.copy_examples == [Example(PROBES[0], PROBES[0])]
    assert report.template_examples == [Example(queries[2], PROBES[0])]


def test_examples_are_limited() -> None:
    _, report = GUARD.filter([PROBES[0]] * 50)
    assert (report.copies, len(report.copy_examples)) == (50, 10)


@pytest.mark.parametrize(("options", "quoted"), [({"ngram": 0}, "0"), ({"threshold": 1.5}, "1.5")])
def test_bad_options(options, quoted: str) -> None:
    with pytest.raises(ValueError, match=quoted):
        Guard([], [], **options)


def test_no_probes_no_copies() -> None:
    assert Guard([], []).check("The mother of X is") is None


@given(WORDS, st.data())
def test_an_exact_probe_is_caught_in_any_dress(words: list[str], data) -> None:
    probe = " ".join(words)
    guard = Guard([*PROBES, probe], [LEO])
    dressed = "".join(
        (word.upper() if data.draw(st.booleans()) else word) + data.draw(GAP) for word in words
    )
    assert guard.check(dressed) == probe
    assert normalise(dressed) == probe


@given(st.lists(WORDS, max_size=5), st.lists(st.text("0123456789", min_size=1), min_size=1))
def test_unrelated_text_is_never_caught(probes: list[list[str]], query: list[str]) -> None:
    guard = Guard([" ".join(words) for words in probes], [LEO])
    assert guard.check(" ".join(query)) is None
    assert guard.check_template(" ".join(query)) is None


def test_large_sets_are_fast() -> None:
    rng = random.Random(0)
    relations = [f"the {a} of the {b} of the country" for a in "abcdef" for b in "uvwxyz"]
    names = [f"First{i} Last{i % 500}" for i in range(3000)]
    probes = [f"The name of {r} of {rng.choice(names)} is" for r in relations for _ in range(800)]
    queries = [f"What is {rng.choice(relations)} of {rng.choice(names)}?" for _ in range(2000)]
    start = time.perf_counter()
    kept, _ = Guard(probes, names[:1000]).filter(queries)
    assert time.perf_counter() - start < 10  # a quadratic scan takes minutes
    assert len(kept) == len(queries)


def test_a_probe_shorter_than_an_n_gram_is_found_in_what_holds_it() -> None:
    short = [f"Where was {LEO} born?", f"{LEO} plays for", LEO]
    guard = Guard(short, [LEO, MAX])
    assert guard.check(f"Complete this: where was {LEO} born") == short[0]
    assert guard.check(f"{LEO} plays for the team of") == short[1]
    assert guard.check(f"Where was {MAX} born?") is None
    assert guard.check(f"Who was born where {LEO} lives?") is None
    # A name alone is in every question about it.
    assert guard.check(f"The mother of {LEO} is") is None
    assert guard.check(LEO) == LEO
    # A part of a composition asks something else.
    assert guard.check(f"The team that {LEO} plays for") is None


def test_a_long_text_is_checked_as_its_lines_are() -> None:
    """Whole prompts are handed over: what is in them must be found wherever it stands."""
    names = [f"Ada Byron{i}" for i in range(300)]
    probes = [f"The place where {name} was first seen is" for name in names]
    guard = Guard(probes, names)
    lines = [f"{name} works at mill {i}." for i, name in enumerate(names)]
    assert guard.check("\n".join(lines)) is None
    lines[211] = probes[211]
    assert guard.check("\n".join(lines)) == probes[211]


@pytest.mark.parametrize(
    ("text", "has"),
    [
        ("The firm that Bo Ray works for is Acme", True),  # nobody that the guard knows
        ("Today the firm that Ada Lin works for is Acme", True),  # somebody that it knows
        ("Bo Ray, the boss, is paid by Acme.", True),
        ("The firm that works for is Acme", False),  # no name
        ("The firm that pays Bo Ray is Acme", False),
        ("Is paid by nobody", False),
        ("The boss of Bo Ray is Cy Orr", False),  # an edit's own wording
        ("Who employs Bo Ray", True),
        ("Bo Ray is", False),  # too short a wording: it is everywhere
    ],
)
def test_a_wording_is_found_whoever_it_is_about(text: str, has: bool) -> None:
    probes = [
        "The firm that Ada Lin works for is",
        "Ada Lin is paid by",
        "Who employs Ada Lin?",
        "Ada Lin is",
        "The boss of Dee Fox is",
    ]
    guard = Guard(probes, ["Ada Lin", "Dee Fox"], allowed=["The boss of Ada Lin is"])
    assert guard.has_wording(text) is has
