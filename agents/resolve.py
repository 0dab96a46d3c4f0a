"""Settles drawn questions: what consequences should answer, and which neighbours must go.

Pure: it is handed a function that answers for the base model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from agents.batch import Batch, Query
from eval.score import normalise
from prompts.relations import lexicon


def resolve(
    found: Sequence[Query], batch: Batch, answer: Callable[[list[str]], list[str]]
) -> list[Query]:
    """Find what consequences should answer, and drop neighbours that turn out to change.

    The new target's own facts are the base model's (a majority over the wordings), unless the
    batch changes them too. A neighbour of a symmetric relation goes if its answer names somebody
    whom the batch touches: that person's partner is no longer certain.

    Args:
        found: What `queries` gave, for any facts of the batch.
        batch: All facts corrected together.
        answer: The base model's answers; called once, with every question it is needed for.
    """
    asked = {query: _wordings_needed(query, batch) for query in found}
    questions = list(dict.fromkeys(q for wordings in asked.values() for q in wordings))
    known = dict(zip(questions, answer(questions), strict=True)) if questions else {}
    settled = (_settle(query, [known[q] for q in asked[query]], batch) for query in found)
    return [query for query in settled if query is not None]


def aliases(subjects: Sequence[str], answer: Callable[[list[str]], list[str]]) -> dict[str, str]:
    """Other names of subjects, as far as the base model knows them.

    It is asked for the name and then whose name that is; only an answer that leads back to the
    subject counts, so that an invented alias is not taken for one.
    """
    entry = lexicon()["alias"]
    unique = list(dict.fromkeys(subjects))
    if not unique:
        return {}
    said = answer([entry.ask(subject) for subject in unique])
    pairs = [(s, name.strip()) for s, name in zip(unique, said, strict=True) if name.strip()]
    if not pairs:
        return {}
    back = answer([entry.inverse[0].replace("{object}", name) for _, name in pairs])
    return {
        subject: name
        for (subject, name), whose in zip(pairs, back, strict=True)
        if normalise(whose) == normalise(subject) != normalise(name)
    }


def majority(answers: Sequence[str]) -> str | None:
    """The answer that more than half of the wordings give, as first worded; else None."""
    counts = Counter(normalise(answer) for answer in answers)
    for answer in answers:
        if normalise(answer) and 2 * counts[normalise(answer)] > len(answers):
            return answer.strip()
    return None


def _settle(query: Query, answers: list[str], batch: Batch) -> Query | None:
    if not _is_open(query):
        changed = any(batch.names_touched(a, query.of or "") for a in answers)
        return None if changed else query
    target = batch.by_id[query.fact_id].target_new
    edited = batch.edits.get((target, _second(query)))
    expected = edited if edited is not None else majority(answers)
    note = "" if expected is not None else "the base model's wordings disagree"
    return query.model_copy(update={"expected": expected, "note": note})


def _wordings_needed(query: Query, batch: Batch) -> list[str]:
    """What the base model must be asked before a query is settled."""
    if _is_open(query):
        target, second = batch.by_id[query.fact_id].target_new, _second(query)
        return [] if (target, second) in batch.edits else _all_wordings(second, target)
    relation = lexicon().get(query.of or "")
    ask = query.kind == "neighbour" and relation is not None and relation.symmetric
    return [query.prompt] if ask else []


def _is_open(query: Query) -> bool:
    return query.kind == "consequence" and query.expected is None


def _second(query: Query) -> str:
    return (query.of or "").rpartition(".")[2]


def _all_wordings(relation: str, subject: str) -> list[str]:
    entry = lexicon()[relation]
    return [w.replace("{subject}", subject) for w in (entry.prompt, *entry.paraphrases)]
