"""The Questioner: what each fact is examined with, and the public door to `queries`.

The teacher stage asks with the same functions: `queries` for a fact's questions, `resolve` to find
what the base model makes the consequences of a new target.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from langgraph.runtime import Runtime
from pydantic import Field

from agents.batch import UNKNOWN, Batch, Query, relation_key
from agents.call import ask_base, decide
from agents.context import Context
from agents.queries import Limits, queries
from agents.resolve import majority, resolve
from agents.state import State
from prompts.relations import relation_of
from ske.types import Fact, Frozen

MAX_CONSEQUENCES = 2
"""Consequences per fact in an examination; twice as many are drawn, for some get no answer."""
SHOWN = 12
"""Other subjects that the message to a model names."""


class ExamLimits(Frozen):
    """How many questions an examination draws for each fact."""

    paraphrases: int = 1
    consequences: int = 2 * MAX_CONSEQUENCES
    neighbours: int = 2
    exceptions: int = 0


class Questions(Frozen):
    """The Questioner's decision."""

    queries: list[Query] = Field(default_factory=list)


def questioner(state: State, runtime: Runtime[Context]) -> dict[str, Any]:
    """Node: see to it that every fact of this trial has its questions."""
    context = runtime.context
    ids = [fact_id for pack in state["packs"] for fact_id in pack["fact_ids"]]
    new = [fact_id for fact_id in ids if fact_id not in context.exam]
    examination(context, ids)
    for fact_id in new:
        _record(context, context.facts[fact_id])
    return {}


def examination(context: Context, ids: Sequence[str]) -> dict[str, list[Query]]:
    """Each fact's exam questions, drawn once in a run; the same ones in every trial."""
    new = [fact_id for fact_id in dict.fromkeys(ids) if fact_id not in context.exam]
    drawn = [query for fact_id in new for query in _draw(context, context.facts[fact_id])]
    settled = resolve(drawn, context.batch, lambda asked: _base_texts(context, asked))
    by_fact: dict[str, list[Query]] = {fact_id: [] for fact_id in new}
    for query in settled:
        by_fact[query.fact_id].append(query)
    for fact_id, own in by_fact.items():
        context.exam[fact_id] = _answerable(own)
    return {fact_id: context.exam[fact_id] for fact_id in ids}


def _draw(context: Context, fact: Fact) -> list[Query]:
    rng = random.Random(f"exam-{fact.id}")
    return queries(fact, context.batch, ExamLimits(), context.names, rng)


def _base_texts(context: Context, questions: list[str]) -> list[str]:
    return [reply.text for reply in ask_base(context, "questioner", questions)]


def _answerable(found: Sequence[Query]) -> list[Query]:
    """Consequences without an agreed answer can't be marked; of the others a few suffice."""
    known = [q for q in found if q.kind == "consequence" and q.expected is not None]
    keep = known[:MAX_CONSEQUENCES]
    return [q for q in found if q.kind != "consequence" or q in keep]


def _record(context: Context, fact: Fact) -> None:
    found = context.exam[fact.id]
    decide(
        context,
        "questioner",
        question_variables(fact, context.batch, ExamLimits(), context.names),
        Questions,
        lambda: Questions(queries=found),
        facts=[fact.id],
        notes=sorted({q.note for q in found if q.note == UNKNOWN}),
    )


def question_variables(
    fact: Fact, batch: Batch, limits: Limits, names: Sequence[str]
) -> dict[str, Any]:
    """What `prompts/agents/questioner.md` shows about one fact."""
    relation = relation_of(fact)
    return {
        "fact": fact.model_dump(include={"id", "subject", "prompt", "target_new"}),
        "relation": relation.label if relation else None,
        "edited": [
            f"{subject}: {key}"
            for subject in (fact.subject, fact.target_new)
            for key in dict.fromkeys(batch.relations.get(subject, []))
        ],
        "others": list(names[:SHOWN]),
        "paraphrases": limits.paraphrases,
        "consequences": limits.consequences,
        "neighbours": limits.neighbours,
    }


__all__ = [
    "UNKNOWN",
    "Batch",
    "ExamLimits",
    "Limits",
    "Query",
    "Questions",
    "examination",
    "majority",
    "queries",
    "question_variables",
    "questioner",
    "relation_key",
    "resolve",
]
