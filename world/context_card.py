"""The part of the model card about prompts: how many counterfactual facts in a context are used.

For each number of facts and each layout: are the facts recalled, can the model reason one step
from them, and how many answers about other people drift. All layouts see the same facts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from prompts.layouts import LAYOUTS, FactView, system_prompt
from prompts.relations import lexicon
from ske.lm import LM
from ske.types import ERASED
from world.asking import Note, figure, normal, replies
from world.documents import Writer
from world.population import PERSON_RELATIONS, World
from world.questions import Question, View

SIZES = (1, 4, 16, 64, 128)
GOALS = {1: 98.0, 16: 98.0, 64: 95.0, 128: 80.0}
"""Facts per prompt -> share that the best layout is to recall."""
LONG, SHORTEST = 64, 4
"""From so many facts on, only so many layouts are measured: the shortest."""
PER_PROMPT, MOST_PROMPTS, FEWEST_PROMPTS = 48, 100, 3


class KnownWriter(Writer):
    """Corrects only what the model knows: known people, by name, to other known values."""

    def subject(self) -> str:
        """Any known person."""
        return self.rng.choice(self.world.people)

    def named(self, subject: str) -> str:
        """Always the name itself."""
        return subject

    def new_value(self, subject: str, relation: str, busy: set[str]) -> str | None:
        """As in training text, but neither erasures nor what is true anyway."""
        value = super().new_value(subject, relation, busy)
        return None if value in (ERASED, self.world.value(subject, relation)) else value


class Trial(NamedTuple):
    """Facts for one prompt, and what is asked under it."""

    facts: list[FactView]
    direct: list[Question]
    two_hop: list[Question]
    others: list[str]
    """Questions about people whom the facts leave as they were."""
    before: list[str]
    """The replies to `others` without a prompt."""


def measure(world: World, lm: LM, n: int, sizes: Sequence[int], note: Note) -> list[dict[str, Any]]:
    """One row for each number of facts and layout; about `n` facts are asked in each."""
    rows = []
    for size in sizes:
        count = max(FEWEST_PROMPTS, min(MOST_PROMPTS, n // (2 * size)))
        trials = [_trial(world, lm, size, number) for number in range(count)]
        for layout in _layouts(trials[0].facts, size):
            note(f"{size} facts in a prompt, layout {layout}, {count} prompts")
            rows.append(_row(lm, trials, size, layout))
    return rows


def goals(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The best layout's recall at each number of facts that has a goal."""
    found = []
    for size, goal in GOALS.items():
        own = [row for row in rows if row["facts"] == size]
        if own:
            best = max(own, key=lambda row: row["direct"]["value"])
            name = f"facts in context: {size}, best layout ({best['layout']})"
            met = best["direct"]["value"] >= goal
            found.append({**best["direct"], "name": name, "goal": goal, "met": met})
    return found


def _layouts(facts: list[FactView], size: int) -> Sequence[str]:
    if size < LONG:
        return LAYOUTS
    return sorted(LAYOUTS, key=lambda layout: len(system_prompt(facts, layout)))[:SHORTEST]


def _trial(world: World, lm: LM, size: int, number: int) -> Trial:
    # Training draws every step from its own seed, "<world>-<step>": no trial repeats one.
    writer = KnownWriter(world, seed=0)
    writer.rng.seed(f"card-{world.seed}-{size}-{number}")
    view, facts = writer.corrections(size)
    asked = writer.rng.sample(facts, min(PER_PROMPT, len(facts)))
    steps = [writer.composed(subject, view, relation) for subject, relation in asked]
    others = _others(writer, view, max(4, min(32, 2 * size)))
    return Trial(
        [writer.view(subject, relation, view) for subject, relation in facts],
        [Question(lexicon()[r].ask(s), view.value(s, r) or "") for s, r in asked],
        [question for question in steps if question.kind == "two_hop"],
        others,
        [normal(reply.text) for reply in replies(lm, others)],
    )


def _others(writer: KnownWriter, view: View, count: int) -> list[str]:
    busy = {name for (subject, _), value in view.edits.items() for name in (subject, value)}
    pool = [
        (person, relation)
        for person in writer.world.people
        if person not in busy
        for relation in PERSON_RELATIONS
        if not writer.touched(person, relation, view)
    ]
    chosen = writer.rng.sample(pool, count)
    return [lexicon()[relation].ask(person) for person, relation in chosen]


def _row(lm: LM, trials: Sequence[Trial], size: int, layout: str) -> dict[str, Any]:
    direct: list[bool] = []
    two_hop: list[bool] = []
    drift: list[bool] = []
    tokens = 0
    for trial in trials:
        questions = [*trial.direct, *trial.two_hop]
        prompts = [*(question.prompt for question in questions), *trial.others]
        told = replies(lm, prompts, system_prompt(trial.facts, layout))
        tokens = max(tokens, *(reply.prompt_tokens for reply in told))
        texts = [normal(reply.text) for reply in told]
        hits = [t == normal(q.answer) for t, q in zip(texts, questions, strict=False)]
        direct += hits[: len(trial.direct)]
        two_hop += hits[len(trial.direct) :]
        after = texts[len(questions) :]
        drift += [old != new for old, new in zip(trial.before, after, strict=True)]
    return {
        "facts": size,
        "layout": layout,
        "prompts": len(trials),
        "most_tokens": tokens,
        "direct": figure("direct", direct),
        "two_hop": figure("two hops", two_hop),
        "drift": figure("drift", drift),
    }
