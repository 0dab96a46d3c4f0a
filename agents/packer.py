"""The Packer: which facts share a prompt, and in which order. Pure functions, and the node."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from langgraph.runtime import Runtime
from pydantic import Field

from agents.batch import relation_key
from agents.call import decide
from agents.context import Context
from agents.records import Plan, Step
from agents.state import Held, PackState, State, lost_ids, rejections
from ske.types import Fact, Frozen, content_hash


class Packed(Frozen):
    """One prompt's facts, in order."""

    fact_ids: list[str]
    repeated: list[str] = Field(default_factory=list)
    origin: int = -1
    """In a repair, the held prompt it comes from."""


class Packing(Frozen):
    """The Packer's decision."""

    packs: list[Packed]


def packer(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
    """Node: assign the trial's facts to prompts, or rearrange the prompts that lost some."""
    context = runtime.context
    plan = Plan(**state["plan"])
    lost = lost_ids(state["held"]) if plan.purpose == "repair" else []
    facts = [context.facts[i] for i in lost] if lost else sample(context.facts, plan.sample)
    packing = decide(
        context,
        "packer",
        {
            **pack_variables(
                facts, plan.capacity, plan.packer, plan.step, _losing(state["held"], lost)
            ),
            "rejected": [r.reason for r in rejections(state)],
        },
        Packing,
        lambda: _rule(state, plan, facts),
        lambda made: flaw(made, plan, facts, state["held"]),
        facts=[fact.id for fact in facts],
    )
    return {"packs": [_as_state(i, pack) for i, pack in enumerate(packing.packs)]}


def pack_variables(
    facts: Sequence[Fact], capacity: int, packer: str, step: str, held: Sequence[PackState] = ()
) -> dict[str, Any]:
    """What `prompts/agents/packer.md` shows; `held` are the prompts that a repair rearranges."""
    rows = [{"id": f.id, "subject": f.subject, "relation": relation_key(f)} for f in facts]
    shown = [
        {"origin": p["index"], "fact_ids": p["fact_ids"], "repeated": p["repeated"]} for p in held
    ]
    return {"facts": rows, "capacity": capacity, "packer": packer, "step": step, "held": shown}


def _losing(held: Held, lost: Sequence[str]) -> list[PackState]:
    """The held prompts that lost facts."""
    return [pack for pack in held["packs"] if set(pack["fact_ids"]) & set(lost)]


def flaw(packing: Packing, plan: Plan, facts: Sequence[Fact], held: Held) -> str:
    """What about a packing would break the design: a fact lost, doubled or in too full a prompt."""
    if plan.purpose == "repair":
        return _repair_flaw(packing, held)
    wanted = [fact.id for fact in facts]
    told = [fact_id for pack in packing.packs for fact_id in pack.fact_ids]
    if sorted(told) != sorted(wanted):
        return _counted(told, wanted)
    if any(not pack.fact_ids or pack.repeated for pack in packing.packs):
        return "a prompt is empty, or repeats facts, which only a repair may"
    if plan.packer == "naive" and [p.fact_ids for p in packing.packs] != naive(
        facts, plan.capacity
    ):
        return f"the naive packer keeps the order of the facts and cuts after {plan.capacity}"
    subject = {fact.id: fact.subject for fact in facts}
    for pack in packing.packs:
        if len(pack.fact_ids) > plan.capacity and len({subject[i] for i in pack.fact_ids}) > 1:
            return f"a prompt has {len(pack.fact_ids)} facts; at most {plan.capacity} are allowed"
    return ""


def _repair_flaw(packing: Packing, held: Held) -> str:
    losing = {pack["index"]: pack for pack in _losing(held, lost_ids(held))}
    unknown = [p.origin for p in packing.packs if p.origin not in losing]
    if unknown:
        return f"`origin` {unknown} is none of the prompts that lost facts: {list(losing)}"
    for origin, pack in losing.items():
        new = [p for p in packing.packs if p.origin == origin]
        told = [fact_id for p in new for fact_id in p.fact_ids]
        if new and sorted(told) != sorted(pack["fact_ids"]):
            return f"origin {origin}: {_counted(told, pack['fact_ids'])}"
        if any(not p.fact_ids or not set(p.repeated) <= set(p.fact_ids) for p in new):
            return f"origin {origin}: a prompt is empty, or repeats a fact that it has not"
        if any(len(set(p.repeated)) < len(p.repeated) for p in new):
            return f"origin {origin}: a fact is repeated more than once"
    return ""


def _counted(told: Sequence[str], wanted: Sequence[str]) -> str:
    missing = [i for i in wanted if i not in set(told)]
    unknown = [i for i in dict.fromkeys(told) if i not in set(wanted)]
    doubled = sorted({i for i in told if told.count(i) > 1})
    return (
        "every fact belongs into exactly one prompt; "
        f"missing: {missing}, more than once: {doubled}, unknown: {unknown}"
    )


def _rule(state: State, plan: Plan, facts: Sequence[Fact]) -> Packing:
    if plan.purpose == "repair":
        return Packing(packs=repack(state["held"], plan.step))
    divide = naive if plan.packer == "naive" else pack
    return Packing(packs=[Packed(fact_ids=ids) for ids in divide(facts, plan.capacity)])


def _as_state(index: int, pack: Packed) -> PackState:
    return {
        "index": index,
        "origin": pack.origin,
        "fact_ids": pack.fact_ids,
        "repeated": pack.repeated,
        "system": "",
    }


def sample(facts: dict[str, Fact], size: int) -> list[Fact]:
    """`size` of the facts in file order; always the same ones, smaller samples inside larger."""
    if size >= len(facts):
        return list(facts.values())
    chosen = set(sorted(facts, key=content_hash)[:size])
    return [fact for fact in facts.values() if fact.id in chosen]


def naive(facts: Sequence[Fact], capacity: int) -> list[list[str]]:
    """File order, cut at the capacity."""
    ids = [fact.id for fact in facts]
    return [ids[start : start + capacity] for start in range(0, len(ids), capacity)]


def pack(facts: Sequence[Fact], capacity: int) -> list[list[str]]:
    """Assign every fact to one prompt; the order of the input makes no difference.

    Facts about one subject stay together (a subject with more facts than `capacity` gets a larger
    prompt of its own). Near-collisions, i.e. another subject with the same last word and the same
    relation, go apart where there is room; a subject joins the prompt where it is a new target;
    sizes are even otherwise.
    """
    groups = sorted(_by_subject(facts), key=lambda group: (-len(group), group[0].id))
    prompts: list[list[list[Fact]]] = [[] for _ in range(-(-len(facts) // capacity))]
    for group in groups:
        room = [p for p in prompts if _size(p) + len(group) <= capacity]
        # An empty prompt may be overfilled by a subject that alone is too large for any.
        room = room or [p for p in prompts if not p]
        if not room:
            prompts.append([])
            room = [prompts[-1]]
        min(room, key=lambda p: (_collisions(p, group), -_links(p, group), _size(p))).append(group)
    return [_ordered(prompt) for prompt in prompts if prompt]


def repack(held: Held, step: Step) -> list[Packed]:
    """New versions of the held prompts that lost facts, by one step of repair."""
    change = {"move": _move, "repeat": _repeat, "own": _own}[step]
    lost = set(lost_ids(held))
    versions = []
    for pack in held["packs"]:
        gone = [fact_id for fact_id in pack["fact_ids"] if fact_id in lost]
        if gone:
            versions += change(pack, gone)
    return versions


def _move(pack: PackState, gone: list[str]) -> list[Packed]:
    order = _without(pack["fact_ids"], gone) + gone
    if order == pack["fact_ids"]:
        return []
    return [Packed(fact_ids=order, repeated=pack["repeated"], origin=pack["index"])]


def _repeat(pack: PackState, gone: list[str]) -> list[Packed]:
    repeated = _without(pack["repeated"], gone) + gone
    if repeated == pack["repeated"]:
        return []
    return [Packed(fact_ids=pack["fact_ids"], repeated=repeated, origin=pack["index"])]


def _own(pack: PackState, gone: list[str]) -> list[Packed]:
    """The lost facts by themselves; a prompt that lost all of its facts is halved."""
    rest = _without(pack["fact_ids"], gone)
    if not rest:
        middle = len(gone) // 2
        gone, rest = gone[:middle], gone[middle:]
    if not gone:
        return []
    kept = _without(pack["repeated"], gone)
    parts = [Packed(fact_ids=rest, repeated=[i for i in kept if i in rest], origin=pack["index"])]
    return [*parts, Packed(fact_ids=gone, origin=pack["index"])]


def _without(ids: Iterable[str], gone: Iterable[str]) -> list[str]:
    out = set(gone)
    return [fact_id for fact_id in ids if fact_id not in out]


def _by_subject(facts: Sequence[Fact]) -> list[list[Fact]]:
    groups: dict[str, list[Fact]] = {}
    for fact in sorted(facts, key=lambda fact: fact.id):
        groups.setdefault(fact.subject, []).append(fact)
    return list(groups.values())


def _size(prompt: Sequence[Sequence[Fact]]) -> int:
    return sum(len(group) for group in prompt)


def _ordered(prompt: Sequence[Sequence[Fact]]) -> list[str]:
    return [fact.id for group in sorted(prompt, key=lambda g: g[0].id) for fact in group]


def collides(a: Fact, b: Fact) -> bool:
    """Whether two facts are easily taken for each other."""
    same_relation = relation_key(a) == relation_key(b)
    return same_relation and a.subject != b.subject and _surname(a) == _surname(b)


def _surname(fact: Fact) -> str:
    return fact.subject.split()[-1].lower() if fact.subject.split() else ""


def _collisions(prompt: Sequence[Sequence[Fact]], group: Sequence[Fact]) -> int:
    return sum(collides(a, b) for other in prompt for a in other for b in group)


def _links(prompt: Sequence[Sequence[Fact]], group: Sequence[Fact]) -> int:
    """Chains, e.g. an employer and that employer's new city: reasoning needs both in one prompt."""
    subject, targets = group[0].subject, {fact.target_new for fact in group}
    return sum(
        (other[0].subject in targets) + sum(fact.target_new == subject for fact in other)
        for other in prompt
    )
