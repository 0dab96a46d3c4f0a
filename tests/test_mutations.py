"""One small change of what was said or is asked for moves its own figures and no other."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from eval.capability import SkillRow, values
from eval.ratios import share_rows
from eval.score import Row, per_case
from eval.tables import comparisons, results

FORCED, GENERATE = "teacher_forced", "generate"
CITIES = ("Vell City", "Sorn Port", "Tenn Bay", "Ruria Hill")
Found = dict[str, Any]


class Saved(NamedTuple):
    """Rows as they lie in the files, by a name of their own."""

    rows: dict[str, Found]
    skills: dict[str, Found]


def saved() -> Saved:
    """Two methods and a ceiling, four edits, every metric; only `lora` and `prompt` are right."""
    rows: dict[str, Found] = {}
    skills: dict[str, Found] = {}
    for method in ("base", "prompt", "lora"):
        for number, city in enumerate(CITIES):
            rows |= _case(method, number, city)
        skill = {"method": method, "dataset": "toy", "seed": 0, "answer": "4"}
        skills[f"{method} sums"] = skill | {"skill": "sums", "text": "4"}
        skills[f"{method} text"] = skill | {
            "skill": "free_text",
            "metric": "perplexity",
            "score": 3.0,
        }
        written = {"skill": "all", "metric": "fluency", "case": "c0", "text": "one two three four"}
        skills[f"{method} writes"] = skill | written
    return Saved(rows, skills)


def _case(method: str, number: int, city: str) -> dict[str, Found]:
    right = method != "base"
    own = {"method": method, "dataset": "toy", "case": f"c{number}", "probe": 0, "seed": 0}
    own |= {"prompt": "Asked", "category": "all", "answers": [[city, f"New {city}"]]}
    near = {"metric": "locality", "category": "Near"}
    claim = {"metric": "hard", "category": "Claims", "answers": [["no"]]}
    hop = {"metric": "portability", "category": "Reasoning", "text": f"New {city}"}
    spoken: dict[str, Found] = {
        "edit": {"metric": "edit_success", "text": f"{city}." if right else "Old", "old": "Old"},
        "hop": hop if right else hop | {"text": "Old"},
        "near": near
        | {"text": "The old mill", "base_text": "The old mill", "answers": [["old mill"]]}
        | {"divergence": [0.1 if right else 0.0]},
        "claim": claim | {"text": "No."},
    }
    if method == "base":
        spoken["edit"]["prior"] = (0.1, 0.2, 0.3, 0.4)[number]
    forced: dict[str, Found] = {
        "edit": {"metric": "edit_success", "hits": [int(right), int(right)]},
        "near": near | {"hits": [1, 1], "gold_hits": [1, 1]},
    }
    named = [(f"{n} {FORCED}", f | {"protocol": FORCED}) for n, f in forced.items()]
    named += [(f"{n} {GENERATE}", f | {"protocol": GENERATE}) for n, f in spoken.items()]
    return {f"{method} {number} {name}": own | fields for name, fields in named}


def figures(found: Saved) -> tuple[dict[tuple[str, ...], Any], dict[tuple[str, ...], Any]]:
    rows = [Row.model_validate(row) for row in found.rows.values()]
    beside = values(SkillRow.model_validate(row) for row in found.skills.values())
    table = results(rows, beside=beside) + share_rows(per_case(rows))
    against = comparisons(rows, "lora", beside)
    one = {(r["method"], r["protocol"], r["metric"], r["category"]): r["mean"] for r in table}
    two = {(r["method_a"], r["method_b"], r["protocol"], r["metric"]): r["diff"] for r in against}
    return one, two


def swap_replies(found: Saved) -> None:
    one, two = (found.rows[f"lora {number} edit {GENERATE}"] for number in (1, 2))
    one["text"], two["text"] = two["text"], one["text"]


def swap_gold_answers(found: Saved) -> None:
    one, two = (found.rows[f"lora {number} hop {GENERATE}"] for number in (0, 3))
    one["answers"], two["answers"] = two["answers"], one["answers"]


def truncate_an_edit(found: Saved) -> None:
    row = found.rows[f"lora 0 edit {GENERATE}"]
    row["text"] = row["text"][:4]


def truncate_a_neighbour(found: Saved) -> None:
    row = found.rows[f"lora 0 near {GENERATE}"]
    row["text"] = row["text"][:7]


def a_neighbour_says_more(found: Saved) -> None:
    found.rows[f"lora 0 near {GENERATE}"]["text"] += " of Vell"


def set_to(name: str, **changes: Any) -> Callable[[Saved], None]:
    def mutate(found: Saved) -> None:
        (found.rows | found.skills)[name].update(changes)

    return mutate


def belief(*strata: int) -> set[tuple[str, str]]:
    categories = {("edit_success_by_belief", f"strength_{q}") for q in strata}
    return {("edit_success_by_belief", "all"), *categories}


SHARE = {("portability_share", "prompt")}
EDITS, HOPS = {("edit_success", "all")}, {("portability", "all"), ("portability", "Reasoning")}
AGREES = {("locality", "all"), ("locality", "Near")}
FLUENT = {("fluency", "all"), ("fluency_entropy", "all")}
GONE = {("forgotten", "all"), ("forgotten", "edit_success")}
RIGHT = {("locality_correct", "all"), ("locality_correct", "Near")}

MUTATIONS = [
    (swap_replies, GENERATE, EDITS | belief(2, 3)),
    (swap_gold_answers, GENERATE, HOPS | SHARE),
    (truncate_an_edit, GENERATE, EDITS | belief(1)),
    (truncate_a_neighbour, GENERATE, AGREES | RIGHT),
    (a_neighbour_says_more, GENERATE, AGREES),
    (
        set_to(f"lora 2 near {GENERATE}", divergence=[0.1, 0.4]),
        GENERATE,
        {("locality_kl", "all"), ("locality_kl", "Near")},
    ),
    (
        set_to(f"lora 2 claim {GENERATE}", text="Yes."),
        GENERATE,
        {(m, c) for m in ("hard", "self_refutation") for c in ("all", "Claims")},
    ),
    (
        set_to(f"lora 2 claim {GENERATE}", text="Perhaps."),
        GENERATE,
        {("hard", "all"), ("hard", "Claims")},
    ),
    (set_to(f"lora 3 edit {FORCED}", hits=[1, 0]), FORCED, EDITS | belief(4)),
    (set_to(f"lora 3 near {FORCED}", hits=[1, 0]), FORCED, AGREES),
    (set_to(f"lora 3 near {FORCED}", gold_hits=[1, 0]), FORCED, RIGHT),
    (
        set_to("lora sums", text="5"),
        GENERATE,
        {("capability", "all"), ("capability", "sums")},
    ),
    (set_to("lora writes", text="one two one two one"), GENERATE, FLUENT),
    (set_to("lora writes", text="one two"), GENERATE, FLUENT),
    # A modification may name what it replaces, but the old answer is not gone then.
    (set_to(f"lora 0 edit {GENERATE}", text="Vell City, once Old"), GENERATE, GONE),
    (
        set_to("lora text", score=9.0),
        FORCED,
        {("perplexity", "all"), ("perplexity", "free_text")},
    ),
]


@pytest.mark.parametrize(("mutate", "protocol", "expected"), MUTATIONS)
def test_a_change_moves_its_own_figures_alone(
    mutate: Callable[[Saved], None], protocol: str, expected: set[tuple[str, str]]
) -> None:
    before, before_pairs = figures(saved())
    changed = saved()
    mutate(changed)
    after, after_pairs = figures(changed)
    assert before.keys() == after.keys()
    moved = {key for key in before if before[key] != after[key]}
    assert moved == {("lora", protocol, *figure) for figure in expected}
    metrics = {metric for metric, category in expected if category == "all"}
    metrics.discard("edit_success_by_belief")
    pairs = {key for key in before_pairs if before_pairs[key] != after_pairs[key]}
    others = ("base", "prompt")
    assert pairs == {("lora", other, protocol, metric) for other in others for metric in metrics}


def test_an_alias_that_is_dropped_costs_whoever_used_it() -> None:
    found = saved()
    for method in ("base", "prompt", "lora"):
        found.rows[f"{method} 1 hop {GENERATE}"]["answers"] = [["Sorn Port", "Sorn"], ["Porto"]]
    found.rows[f"lora 1 hop {GENERATE}"]["text"] = "Porto"
    found.rows[f"prompt 1 hop {GENERATE}"]["text"] = "Sorn Port"
    before, _ = figures(found)
    for method in ("base", "prompt", "lora"):
        found.rows[f"{method} 1 hop {GENERATE}"]["answers"] = [["Sorn Port", "Sorn"]]
    after, _ = figures(found)
    moved = {key for key in before if before[key] != after[key]}
    assert moved == {("lora", GENERATE, *figure) for figure in HOPS | SHARE}
    assert after["lora", GENERATE, "portability", "all"] == 75


def test_a_firmer_belief_moves_edits_between_quarters_only() -> None:
    found = saved()
    set_to(f"lora 0 edit {GENERATE}", text="Old")(found)
    before, _ = figures(found)
    set_to(f"base 0 edit {GENERATE}", prior=0.9)(found)
    after, _ = figures(found)
    moved = {key[2:] for key in before if before[key] != after[key]}
    assert moved == {("edit_success_by_belief", f"strength_{q}") for q in (1, 4)}
