"""Ways to pack facts that `bench.agents` compares: the designer, no design, chance, a role missing.

A role that is switched off still speaks, so that the graph runs; what it says is what one would do
without it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from agents.brain import Decided, Decision, RulesBrain
from agents.graph import design
from agents.packer import Packed, Packing, naive
from agents.packer import pack as packed
from agents.planner import balanced
from agents.questioner import Questions
from agents.records import Plan
from prompts.layouts import frames, system_prompt, view
from ske.config import DesignConfig
from ske.lm import LM, Message
from ske.types import Fact


class Prompt(NamedTuple):
    """A prompt to be measured."""

    fact_ids: list[str]
    system: str
    layout: str


class Task(NamedTuple):
    """What every way of packing gets."""

    facts: list[Fact]
    lm: LM
    names: Sequence[str]
    config: DesignConfig
    folder: Path
    seed: int


Change = Callable[[Any, random.Random, DesignConfig], Any]


class Switched:
    """The rules brain, with the decisions of some roles replaced."""

    name = RulesBrain.name

    def __init__(self, changes: dict[str, Change], config: DesignConfig, seed: int) -> None:
        """`changes`: by role, what becomes of a decision."""
        self.changes, self.config = changes, config
        self.rng = random.Random(seed)

    def decide(
        self,
        role: str,
        messages: list[Message],
        schema: type[Decision],
        rule: Callable[[], Decision],
        flaw: Callable[[Decision], str],
    ) -> Decided[Decision]:
        """Follow the rule, then what replaces it."""
        made = rule()
        if role in self.changes:
            made = cast(Decision, self.changes[role](made, self.rng, self.config))
        return Decided(made, self.name)


def _by_chance(plan: Plan, rng: random.Random, config: DesignConfig) -> Plan:
    """A plan of the search, drawn at random; what must be is left."""
    if plan.purpose not in ("search", "frame", "curve"):
        return plan
    top = min(plan.sample, config.max_facts)
    size = balanced(plan.sample, max(1, round(top ** rng.random())))
    drawn = {
        "purpose": "search",
        "layout": rng.choice(config.layouts),
        "header": rng.choice(list(frames()["headers"])),
        "footer": rng.choice(list(frames()["footers"])),
        "capacity": size,
    }
    return plan.model_copy(update=drawn)


def _plain(plan: Plan, rng: random.Random, config: DesignConfig) -> Plan:
    """Nothing around the facts."""
    return plan.model_copy(update={"header": "none", "footer": "none"})


def file_order(packing: Packing, rng: random.Random, config: DesignConfig) -> Packing:
    """The same number of prompts, cut out of the file's order; repairs rearrange nothing."""
    return _cut(packing, sorted)


def _shuffled(packing: Packing, rng: random.Random, config: DesignConfig) -> Packing:
    """The same number of prompts, filled at random."""
    return _cut(packing, lambda ids: rng.sample(ids, len(ids)))


def _cut(packing: Packing, order: Callable[[list[str]], list[str]]) -> Packing:
    if any(pack.origin >= 0 for pack in packing.packs):
        return Packing(packs=[])
    size = max(len(pack.fact_ids) for pack in packing.packs)
    ids = order([i for pack in packing.packs for i in pack.fact_ids])
    return Packing(packs=[Packed(fact_ids=ids[i : i + size]) for i in range(0, len(ids), size)])


def _bare(questions: Questions, rng: random.Random, config: DesignConfig) -> Questions:
    """Only the fact's own prompt."""
    return Questions(queries=[q for q in questions.queries if q.kind == "fact"])


def _designed(task: Task, name: str, changes: dict[str, Change], **update: Any) -> list[Prompt]:
    config = task.config.model_copy(update=update)
    made = design(
        task.facts,
        task.lm,
        config,
        task.folder,
        names=task.names,
        key=f"{name}-{task.seed}",
        brain=Switched(changes, config, task.seed),
    )
    return [Prompt([*pack.fact_ids], pack.system, pack.layout) for pack in made.packs]


def _unexamined(task: Task) -> list[Prompt]:
    """As many facts as allowed in each prompt, in the first layout, and no look at the answers."""
    layout = task.config.layouts[0]
    size = balanced(len(task.facts), task.config.max_facts)
    return [written(task, ids, layout) for ids in packed(task.facts, size)]


def naive_of(task: Task, size: int) -> list[Prompt]:
    """One sentence a fact, file order, nothing around them."""
    ids = naive(task.facts, size)
    return [written(task, own, "prose", "none", "none") for own in ids]


def written(task: Task, ids: Sequence[str], layout: str, *frame: str) -> Prompt:
    """A prompt by the templates."""
    by_id = {fact.id: fact for fact in task.facts}
    return Prompt([*ids], system_prompt([view(by_id[i]) for i in ids], layout, *frame), layout)


VARIANTS: dict[str, tuple[str, Callable[[Task], list[Prompt]] | None]] = {
    "designer": ("all seven roles", lambda t: _designed(t, "designer", {})),
    "gepa": (
        "all seven roles, the search by GEPA, as many trials",
        lambda t: _designed(t, "gepa", {}, search="gepa"),
    ),
    "naive": ("one sentence a fact, file order, the largest fixed size that reaches recall", None),
    "random": (
        "layout, frame, size and packing by chance, as many trials, no repair",
        lambda t: _designed(
            t, "random", {"planner": _by_chance, "packer": _shuffled}, max_repairs=0
        ),
    ),
    "no planner": (
        "layout, frame and size by chance",
        lambda t: _designed(t, "planner", {"planner": _by_chance}),
    ),
    "no packer": (
        "the file's order, nothing rearranged",
        lambda t: _designed(t, "packer", {"packer": file_order}),
    ),
    "no writer": (
        "bare sentences, no header, no footer",
        lambda t: _designed(t, "writer", {"planner": _plain}, layouts=("prose",)),
    ),
    "no questioner": (
        "examined with the facts' own prompts only",
        lambda t: _designed(t, "questioner", {"questioner": _bare}),
    ),
    "no examiner": ("as many facts as allowed, never asked", _unexamined),
    "no critic": ("nobody reads failures, so nothing is repaired",
                  lambda t: _designed(t, "critic", {}, max_repairs=0)),
    "no judge": ("the first trial is taken", lambda t: _designed(t, "judge", {}, max_trials=1)),
}  # fmt: skip
"""Name -> what it is, and how it packs; the naive packer needs measuring, see `bench.agents`."""
