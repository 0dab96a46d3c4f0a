"""Stage `teach`: queries about the facts, answered by the teacher, become the student's lessons.

In-scope queries are asked under the pack's PROMPT and verified: where rules and the base model's
own knowledge say what should follow, that is learned whatever the teacher said (`teach.repair`).
Neighbours and free text are the base model's own, without any prompt, with its distribution
stored: that is where PROMPT's own damage to locality is left behind. Writes `lessons.jsonl` (what
the student reads), `queries.jsonl` (each query's fate) and `leakage.json`.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple

from agents.batch import Batch, Query
from agents.queries import EXCEPTION_OF, queries
from agents.records import Design, Pack
from agents.resolve import aliases, resolve
from eval.leakage import Guard
from eval.score import matches, normalise
from methods.base import Lesson, stored
from pipeline.behind import BEHIND, behind
from pipeline.design import examined, read_design
from pipeline.facts import read_cases, read_facts
from pipeline.freetext import names_like, subjects, without_subjects
from pipeline.leaks import leaks_in, refuse
from pipeline.rehearsing import rehearsed
from pipeline.retelling import retold
from pipeline.run import Run
from prompts.relations import relation_of
from ske.io import write_json, write_rows
from ske.lm import LM, Pair, Sampling, Scored, ask
from ske.teaching import TeachConfig
from ske.texts import free_texts
from ske.types import Fact, UserError

SAMPLING = Sampling(max_new_tokens=48)
BELIEVED = math.log(0.5)
"""Log-probability of a whole answer, its end included, from which the base model knows it."""
RAMBLE = 8
"""Tokens to which the student is held where the base model's reply finds no end."""


def run(run: Run, folder: Path) -> None:
    """Ask, verify, guard, write."""
    facts, design, lm = read_facts(run), read_design(run), run.base
    teach = run.config.teach
    # A handful of facts would drown among so many texts, and wait for them.
    count = min(teach.free_texts, 128 + 32 * len(facts))
    with run.progress("free text", count) as update:
        texts = free_texts(lm, count, teach.free_tokens, run.config.seed + 1, update)
    texts = without_subjects(texts, facts)
    found = draw(facts, run, subjects(texts, known=teach.lexicon))
    guard = guard_of(run)
    kept, leaks = guard.filter([query.prompt for query in found])
    kept_texts, text_leaks = guard.filter(texts)
    texts = [texts[i] for i in kept_texts]
    _check_leaks(run, leaks.copies + text_leaks.copies)
    designed = {kind: guard.filter(some).report for kind, some in examined(run).items()}
    used = {kind: leaks_in(report) for kind, report in designed.items()}
    refuse(run.config.leakage.strict, "the prompt design", used)
    with run.progress("teacher", len(kept)) as update:
        taught = [found[i] for i in kept if found[i].kind != "neighbour"]
        rows = in_scope(run.teacher, taught, design, teach)
        update(len(rows))
        others = [found[i] for i in kept if found[i].kind == "neighbour"]
        old = old_values(lm, [query for query in others if query.of == EXCEPTION_OF], facts)
        near = [query for query in others if query.of != EXCEPTION_OF]
        more, near_more, behind_leaks = behind(run, rows, near, texts, guard)
        rows += more
        asked = (*near, *old, *near_more)
        rows += held(lm, [(query.prompt, query) for query in asked], teach.top_k)
        update(len(kept))
    _check_leaks(run, behind_leaks.copies)
    rows += free_lessons(lm, texts, teach.top_k)
    told, told_leaks = retold(run, facts, design, guard)
    run.dismiss()
    _check_leaks(run, sum(one.copies for one in told_leaks.values()))
    rows += told
    again = rehearsed(lm, run.earlier, facts, teach.rehearsal, teach.top_k, run.config.seed)
    rows += [
        {"kind": one.kind, "status": "held", "lesson": one.model_dump(mode="json"), "query": None}
        for one in again
    ]
    reports = {"queries": leaks, "free_text": text_leaks, BEHIND: behind_leaks, **told_leaks}
    dropped = sum(one.copies for one in reports.values())
    reports |= designed
    write_json(folder / "leakage.json", {kind: asdict(each) for kind, each in reports.items()})
    counts = _write(rows, folder)
    said = ", ".join(f"{n} {what}" for what, n in counts.items())
    run.console.print(f"  {said}; {dropped} near-copies of probes dropped", highlight=False)


def _write(rows: Sequence[dict[str, Any]], folder: Path) -> dict[str, int]:
    """Lessons, questions and how many there are of each kind and status, which is given back."""
    write_rows(folder / "lessons.jsonl", [row["lesson"] for row in rows if row["lesson"]])
    write_rows(folder / "queries.jsonl", [row["query"] for row in rows if row["query"]])
    counts = Counter(f"{row['kind']} {row['status']}" for row in rows)
    summary = dict(sorted(counts.items()))
    write_json(folder / "summary.json", summary)
    return summary


def draw(facts: Sequence[Fact], run: Run, named: dict[str, set[str]]) -> list[Query]:
    """The Questioner's queries for every fact, with expected answers where rules can tell."""

    def answer(questions: list[str]) -> list[str]:
        return [r.text for r in run.base.generate([ask(q) for q in questions], SAMPLING)]

    batch, known = Batch(facts), run.config.teach.lexicon
    other_names = aliases([fact.subject for fact in facts], answer) if known else {}
    found: list[Query] = []
    for fact in facts:
        relation = relation_of(fact) if known else None
        rng = random.Random(f"teach-{run.config.seed}-{fact.id}")
        names = names_like(named, relation.id if relation else None)
        alias = other_names.get(fact.subject)
        found += queries(fact, batch, run.config.teach, names, rng, alias)
    unique = {query.prompt: query for query in reversed(resolve(found, batch, answer))}
    return list(reversed(unique.values()))


def guard_of(run: Run) -> Guard:
    """The leakage guard over every probe of the run; edit prompts are known to everybody."""
    cases = read_cases(run)
    probes = [
        probe.prompt
        for case in cases
        for groups in (case.portability, case.locality, case.hard, {"": case.paraphrase})
        for group in groups.values()
        for probe in group
    ]
    leakage = run.config.leakage
    return Guard(
        probes,
        [case.fact.subject for case in cases],
        leakage.ngram,
        leakage.threshold,
        allowed=[case.fact.prompt for case in cases],
    )


def _check_leaks(run: Run, copies: int) -> None:
    if run.config.leakage.strict and copies:
        raise UserError(
            f"leakage.strict: {copies} training texts are near-copies of probes; "
            "set leakage.strict=false to drop and count them instead"
        )


def in_scope(
    lm: LM, found: Sequence[Query], design: Design, teach: TeachConfig
) -> list[dict[str, Any]]:
    """Ask the teacher, all queries of a pack under one prompt, and verify what it says."""
    rows: list[dict[str, Any]] = []
    for pack in design.packs:
        own = [query for query in found if query.fact_id in pack.fact_ids]
        replies = lm.generate([ask(query.prompt, pack.system) for query in own], SAMPLING)
        judged = [
            _verified(query, reply.text, reply.finished, teach.repair)
            for query, reply in zip(own, replies, strict=True)
        ]
        soft = _distributions(lm, pack, own, judged, teach.top_k) if teach.soft else {}
        rows += [
            _taught(query, pack, reply.text, one, soft.get(query.prompt, {}))
            for query, reply, one in zip(own, replies, judged, strict=True)
        ]
    return rows


class Judged(NamedTuple):
    """What becomes of a reply."""

    status: Literal["kept", "repaired", "trusted", "unverified", "dropped"]
    completion: str
    """What is learned; nothing of a dropped reply."""


def _verified(query: Query, reply: str, finished: bool, repair: bool) -> Judged:
    """Kept if right; if the right answer is known, repaired, or else trusted; or dropped."""
    whole = finished and bool(reply)
    if query.expected is None:
        return Judged("unverified", reply) if whole else Judged("dropped", "")
    right = matches(reply, query.expected, query.prompt)
    if repair:
        return Judged("kept" if right else "repaired", query.expected)
    if not whole:
        return Judged("dropped", "")
    return Judged("kept" if right else "trusted", reply)


def _distributions(
    lm: LM, pack: Pack, asked: Sequence[Query], judged: Sequence[Judged], top_k: int
) -> dict[str, dict[str, Any]]:
    """By question, the teacher's distribution over each token of what is learned in its words."""
    own = [
        (query.prompt, one.completion)
        for query, one in zip(asked, judged, strict=True)
        if one.status != "repaired" and one.completion
    ]
    pairs = [Pair(ask(prompt, pack.system), said, end=True) for prompt, said in own]
    scored = lm.logprobs(pairs, top_k)
    return {
        prompt: stored(each) for (prompt, _), each in zip(own, scored, strict=True) if each.tokens
    }


def _taught(
    query: Query, pack: Pack, reply: str, judged: Judged, soft: dict[str, Any]
) -> dict[str, Any]:
    """A teacher's reply as a lesson, and what was asked."""
    status, completion = judged
    lesson = Lesson(
        chat=ask(query.prompt),
        completion=completion,
        kind=query.kind,
        fact=query.fact_id,
        pack=pack.id,
        **soft,
    )
    return {
        "kind": query.kind,
        "status": status,
        "lesson": lesson.model_dump(mode="json") if completion else None,
        "query": {
            **query.model_dump(mode="json"),
            "pack": pack.id,
            "reply": reply,
            "status": status,
            "completion": completion,
        },
    }


def old_values(lm: LM, asked: Sequence[Query], facts: Sequence[Fact]) -> list[Query]:
    """Exceptions with what they should answer: what the base model says to the fact's own prompt.

    It may not understand "other than ..."; what it believes is the old value all the same. Where
    it only guesses, there is no old value to keep.
    """
    beliefs = lm.generate([ask(fact.prompt) for fact in facts], SAMPLING)
    pairs = [Pair(ask(f.prompt), r.text, r.finished) for f, r in zip(facts, beliefs, strict=True)]
    old = {
        fact.id: pair.answer
        for fact, pair, own in zip(facts, pairs, lm.logprobs(pairs), strict=True)
        if believed(pair, own)
    }
    return [
        query.model_copy(update={"expected": old[query.fact_id]})
        for query in asked
        if query.fact_id in old
    ]


def believed(pair: Pair, scored: Scored) -> bool:
    """Whether the base model knows its answer: a guess or a ramble is held to, not learned.

    The whole answer counts: one that repeats itself is sure of every word but the first.
    """
    return pair.end and bool(scored.logprobs) and sum(scored.logprobs) > BELIEVED


def held(lm: LM, asked: Sequence[tuple[str, Query]], top_k: int) -> list[dict[str, Any]]:
    """Neighbours: the base model's own answer, and its distribution at every token of it."""
    replies = lm.generate([ask(prompt) for prompt, _ in asked], SAMPLING)
    pairs = [
        Pair(ask(prompt), r.text, r.finished) for (prompt, _), r in zip(asked, replies, strict=True)
    ]
    return [
        _held(pair, scored, "neighbour", query)
        for pair, scored, (_, query) in zip(pairs, lm.logprobs(pairs, top_k), asked, strict=True)
        if scored.tokens
    ]


def free_lessons(lm: LM, texts: Sequence[str], top_k: int) -> list[dict[str, Any]]:
    """Free text, to be held to wherever it leads."""
    pairs = [Pair(ask(""), text) for text in texts]
    scored = lm.logprobs(pairs, top_k)
    return [_held(pair, s, "free", None) for pair, s in zip(pairs, scored, strict=True) if s.tokens]


def _held(pair: Pair, scored: Scored, kind: str, query: Query | None) -> dict[str, Any]:
    if query and query.expected and normalise(pair.answer) != normalise(query.expected):
        return _repaired(pair, query)
    rambles = kind == "neighbour" and not pair.end
    most = RAMBLE if rambles else len(scored.tokens)
    lesson = Lesson(
        chat=pair.chat,
        completion=pair.answer,
        kind=kind,
        fact=query.fact_id if query else None,
        spoken=kind == "neighbour" and believed(pair, scored),
        **stored(scored, most),
    )
    seen = (
        {**query.model_dump(mode="json"), "reply": pair.answer, "status": "held"} if query else None
    )
    return {"kind": kind, "status": "held", "lesson": lesson.model_dump(mode="json"), "query": seen}


def _repaired(pair: Pair, query: Query) -> dict[str, Any]:
    """An old value that the base model did not give in these words: learned as it believes it."""
    completion = query.expected or ""
    lesson = Lesson(
        chat=pair.chat, completion=completion, kind=query.kind, fact=query.fact_id
    ).model_dump(mode="json")
    seen = {"reply": pair.answer, "status": "repaired", "completion": completion}
    return {
        "kind": query.kind,
        "status": "repaired",
        "lesson": lesson,
        "query": {**query.model_dump(mode="json"), **seen},
    }
