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
from agents.call import ask_ahead, ask_base, decide
from agents.context import Context
from agents.meter import Spent
from agents.queries import Limits, queries
from agents.resolve import majority, resolve
from agents.state import State
from eval.score import matches, normalise
from prompts.relations import relation_of
from ske.lm import ask
from ske.types import Fact, Frozen

MAX_CONSEQUENCES = 2
"""Consequences per fact in an examination; twice as many are drawn, for some get no answer."""
FEW = 64
"""Prompts with fewer questions than that are asked about together."""
SHOWN = 12
"""Other subjects that the message to a model names."""


class ExamLimits(Frozen):
    """How many questions an examination draws for each fact."""

    lexicon: bool = True
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
    found = examination(context, ids, record=True)
    asked = [
        [ask(q.prompt, pack["system"]) for fact_id in pack["fact_ids"] for q in found[fact_id]]
        for pack in state["packs"]
    ]
    ask_ahead(context, [chat for chats in asked if len(chats) < FEW for chat in chats])
    return {}


def examination(
    context: Context, ids: Sequence[str], record: bool = False
) -> dict[str, list[Query]]:
    """Each fact's exam questions, decided once in a run; the same ones in every trial.

    `record`: whether the trace is told. A run that goes on in the middle of a trial has lost the
    questions, but not their events.
    """
    new = [fact_id for fact_id in dict.fromkeys(ids) if fact_id not in context.exam]
    drawn = [query for fact_id in new for query in _draw(context, context.facts[fact_id])]
    try:
        settled = resolve(drawn, context.batch, lambda asked: _base_texts(context, asked))
    except Spent:  # No budget for what follows from a fact; its own prompt costs nothing yet.
        settled = [query for query in drawn if query.kind == "fact"]
    by_fact: dict[str, list[Query]] = {fact_id: [] for fact_id in new}
    for query in settled:
        by_fact[query.fact_id].append(query)
    for fact_id, own in by_fact.items():
        context.exam[fact_id] = _decided(context, fact_id, _answerable(own), record)
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


def _decided(context: Context, fact_id: str, found: list[Query], record: bool) -> list[Query]:
    fact, limits = context.facts[fact_id], ExamLimits()
    return decide(
        context,
        "questioner",
        question_variables(fact, context.batch, limits, context.names),
        Questions,
        lambda: Questions(queries=found),
        lambda made: flaw(made, fact, context.batch, limits),
        facts=[fact.id],
        notes=sorted({q.note for q in found if q.note == UNKNOWN}),
        record=record,
    ).queries


def flaw(made: Questions, fact: Fact, batch: Batch, limits: Limits) -> str:
    """What about a fact's questions would break its exam."""
    found = made.queries
    if not found or found[0].kind != "fact" or found[0].prompt != fact.prompt:
        return f"the first question is of kind `fact` and is the prompt itself: {fact.prompt!r}"
    if any(query.fact_id != fact.id for query in found):
        return f"`fact_id` is {fact.id!r} in every question"
    most = {
        "fact": 1,
        "paraphrase": limits.paraphrases,
        "consequence": limits.consequences,
        "neighbour": limits.neighbours,
    }
    for kind, limit in most.items():
        if sum(query.kind == kind for query in found) > limit:
            return f"at most {limit} questions of kind `{kind}` are allowed"
    prompts = [normalise(query.prompt) for query in found]
    if len(set(prompts)) < len(prompts) or "" in prompts:
        return "a question is empty, or is asked twice"
    return next(filter(None, (_query_flaw(query, fact, batch) for query in found)), "")


def _query_flaw(query: Query, fact: Fact, batch: Batch) -> str:
    asked = f"question {query.prompt!r}"
    if query.kind in ("fact", "paraphrase") and query.expected != fact.target_new:
        return f"{asked}: `expected` is {fact.target_new!r}, the new answer"
    if query.kind == "consequence" and not (query.expected or "").strip():
        return f"{asked}: `expected` is missing"
    if query.kind == "neighbour" and query.expected is not None:
        return f"{asked}: `expected` of a neighbour is null: the model's own answer counts"
    if query.kind == "neighbour" and any(query.prompt == f.prompt for f in batch.by_id.values()):
        return f"{asked}: a corrected fact is no neighbour"
    if query.kind != "fact" and query.expected and matches(query.prompt, query.expected):
        return f"{asked} gives its own answer away"
    return ""


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
