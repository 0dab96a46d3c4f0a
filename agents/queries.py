"""Draws questions about a fact, by rules: other wordings, consequences, neighbours that must stay.

Pure: reads the relation lexicon only, and asks nobody (`resolve.py` finds expected answers).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from agents.batch import UNKNOWN, Batch, Query, relation_key
from prompts.loader import lower_first
from prompts.relations import EXCEPTIONS, Relation, lexicon, relation_of
from ske.types import ERASED, Fact

T = TypeVar("T")
EXCEPTION_OF = "exception"
"""The `of` of questions for the old value."""
FEW = 54
"""Fewer facts are asked more often for their old values, which makes up for their number: a student
learns from all of these questions together how one is read."""


class Limits(Protocol):
    """How many questions of each kind; `TeachConfig` is one."""

    @property
    def lexicon(self) -> bool:
        """Whether relations are known; otherwise generic forms are all there is."""
        ...

    @property
    def paraphrases(self) -> int:
        """Other wordings."""
        ...

    @property
    def consequences(self) -> int:
        """Questions that need one more step."""
        ...

    @property
    def neighbours(self) -> int:
        """Questions whose answers must not change."""
        ...

    @property
    def exceptions(self) -> int:
        """Questions for what there was besides the new value; more where facts are few."""
        ...


def queries(
    fact: Fact,
    batch: Batch,
    limits: Limits,
    names: Sequence[str],
    rng: random.Random,
    alias: str | None = None,
) -> list[Query]:
    """The questions about one fact, its own prompt first; the same seed gives the same ones.

    Consequences of known compositions come without an expected answer: `resolve` finds it.

    Args:
        fact: The fact, one of the batch.
        batch: All facts corrected together; a neighbour is never one of them.
        limits: At most so many of each kind.
        names: Other subjects of the same kind as this one (people for a person); subjects of the
            batch that share the relation are used as well.
        rng: Draws the wordings.
        alias: Another name of the subject, if one is known (`resolve.aliases`).
    """
    relation = relation_of(fact) if limits.lexicon else None
    own = Query(
        prompt=fact.prompt,
        kind="fact",
        fact_id=fact.id,
        expected=fact.target_new,
        of=relation_key(fact),
        note="" if relation else UNKNOWN,
    )
    paraphrases = _paraphrases(fact, relation, own, rng)[: limits.paraphrases]
    found = [own, *_unique(paraphrases, {own.prompt})]
    if alias:
        found += _unique(_renamed(fact, alias, found), {q.prompt for q in found})
    if relation:
        consequences = _unique(_consequences(fact, relation, batch, rng), {q.prompt for q in found})
        found += consequences[: limits.consequences]
    near = _neighbours(fact, relation, batch, names, limits.neighbours, rng)
    found += _unique(near, {q.prompt for q in found})[: limits.neighbours]
    each = max(limits.exceptions, limits.exceptions * FEW // len(batch.by_id))
    return found + _exceptions(fact, each, rng)


def generic(prompt: str) -> list[str]:
    """Other ways to put a prompt whose relation is unknown."""
    if prompt.rstrip().endswith("?"):
        return [f"Answer the question: {prompt}", f"As is known now: {prompt}"]
    return [
        f"Complete the statement: {prompt}",
        f"As is known now, {lower_first(prompt)}",
        f"It is a fact that {lower_first(prompt)}",
    ]


def _paraphrases(
    fact: Fact, relation: Relation | None, own: Query, rng: random.Random
) -> list[Query]:
    wordings = (
        [w.replace("{subject}", fact.subject) for w in relation.paraphrases]
        if relation
        else generic(fact.prompt)
    )
    rng.shuffle(wordings)
    return [own.model_copy(update={"prompt": w, "kind": "paraphrase"}) for w in wordings]


def _renamed(fact: Fact, alias: str, found: Sequence[Query]) -> list[Query]:
    """The same questions under the subject's other name; not its own prompt."""
    return [
        query.model_copy(
            update={
                "prompt": query.prompt.replace(fact.subject, alias),
                "kind": "consequence",
                "note": "alias",
            }
        )
        for query in found
        if query.kind == "paraphrase" and fact.subject in query.prompt
    ]


def _consequences(fact: Fact, relation: Relation, batch: Batch, rng: random.Random) -> list[Query]:
    erased = fact.target_new == ERASED
    groups = [
        [
            Query(
                prompt=wording.replace("{subject}", fact.subject),
                kind="consequence",
                fact_id=fact.id,
                expected=ERASED if erased else None,
                of=f"{relation.id}.{second}",
            )
            for wording in _shuffled(wordings, rng)
        ]
        for second, wordings in relation.compositions.items()
    ]
    rng.shuffle(groups)
    return _interleave([*groups, _inverse(fact, relation, batch, rng)])


def _inverse(fact: Fact, relation: Relation, batch: Batch, rng: random.Random) -> list[Query]:
    """The subject, asked from the new target's side; nothing where that has two answers."""
    target = fact.target_new
    shared = batch.targets[target, relation.id] > 1
    restated = relation.symmetric and (target, relation.id) in batch.edits
    if target == ERASED or shared or restated:
        return []
    slot, wordings = "{object}", relation.inverse
    if relation.symmetric:
        slot, wordings = "{subject}", relation.paraphrases
    return [
        Query(
            prompt=wording.replace(slot, target),
            kind="consequence",
            fact_id=fact.id,
            expected=fact.subject,
            of=f"inverse.{relation.id}",
        )
        for wording in _shuffled(wordings, rng)
    ]


def _neighbours(
    fact: Fact,
    relation: Relation | None,
    batch: Batch,
    names: Sequence[str],
    limit: int,
    rng: random.Random,
) -> list[Query]:
    others = _other_subjects(fact, relation, batch, names, limit, rng)
    if relation is None:
        return others
    own = _facts_about(fact, fact.subject, relation.neighbours, batch, rng, "same subject")
    of_target: list[Query] = []
    if fact.target_new != ERASED:
        target = fact.target_new
        of_target = _facts_about(fact, target, relation.object, batch, rng, "the new target's own")
    return _interleave([own, others, of_target])


def _exceptions(fact: Fact, limit: int, rng: random.Random) -> list[Query]:
    """What the relation had besides the new value: the old answer must not be erased."""
    prompt = fact.prompt.rstrip()
    if fact.target_new == ERASED or not prompt.endswith(" is"):
        return []
    stem = prompt.removesuffix(" is")
    prompts = [
        wording.replace("{Stem}", stem)
        .replace("{stem}", lower_first(stem))
        .replace("{value}", fact.target_new)
        for wording in _shuffled(EXCEPTIONS, rng)[:limit]
    ]
    return [
        Query(prompt=p, kind="neighbour", fact_id=fact.id, of=EXCEPTION_OF, note="old")
        for p in prompts
    ]


def _facts_about(
    fact: Fact, subject: str, relations: Sequence[str], batch: Batch, rng: random.Random, note: str
) -> list[Query]:
    """Unchanged relations of one subject, in paraphrases: probes use the own wording."""
    groups = [
        [
            Query(
                prompt=wording.replace("{subject}", subject),
                kind="neighbour",
                fact_id=fact.id,
                of=name,
                note=note,
            )
            for wording in _shuffled(lexicon()[name].paraphrases, rng)
        ]
        for name in relations
        if not batch.changes(subject, name)
    ]
    rng.shuffle(groups)
    return _interleave(groups)


def _other_subjects(
    fact: Fact,
    relation: Relation | None,
    batch: Batch,
    names: Sequence[str],
    limit: int,
    rng: random.Random,
) -> list[Query]:
    key = relation_key(fact)
    kin = {key, *(relation.neighbours if relation else ())}
    related = [name for name, known in batch.relations.items() if kin & set(known)]
    unknown = [name for name in names if name not in batch.relations]
    pool = [
        name
        for name in dict.fromkeys([*unknown, *related])
        if name not in (fact.subject, fact.target_new) and not batch.changes(name, key)
    ]
    rng.shuffle(pool)
    # Whose name is like the subject's is taken for it first: up to half of these questions (a third
    # of all) are about them.
    alike = [name for name in pool if set(name.split()) & set(fact.subject.split())][: limit // 6]
    pool = [*alike, *(name for name in pool if name not in alike)]
    made = (_about_other(fact, relation, name, rng) for name in pool[:limit])
    return [
        Query(prompt=prompt, kind="neighbour", fact_id=fact.id, of=key, note="other subject")
        for prompt in made
        if prompt is not None
    ]


def _about_other(
    fact: Fact, relation: Relation | None, name: str, rng: random.Random
) -> str | None:
    if relation is None:
        if fact.subject not in fact.prompt:
            return None
        return rng.choice(generic(fact.prompt.replace(fact.subject, name)))
    if not relation.paraphrases:
        return None
    return rng.choice(relation.paraphrases).replace("{subject}", name)


def _shuffled(items: Sequence[T], rng: random.Random) -> list[T]:
    return rng.sample(items, len(items))


def _interleave(groups: Sequence[Sequence[T]]) -> list[T]:
    """One of each group in turn, so that a limit cuts all of them alike."""
    longest = max((len(group) for group in groups), default=0)
    return [group[i] for i in range(longest) for group in groups if i < len(group)]


def _unique(found: Iterable[Query], taken: set[str]) -> list[Query]:
    first: dict[str, Query] = {}
    for query in found:
        first.setdefault(query.prompt, query)
    return [query for prompt, query in first.items() if prompt not in taken]
