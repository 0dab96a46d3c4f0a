"""The Examiner: asks the teacher with one PROMPT and marks the answers, fact by fact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langgraph.runtime import Runtime

from agents.batch import Kind, Query
from agents.call import ask_base, ask_teacher, decide
from agents.context import Context
from agents.meter import Spent
from agents.questioner import examination
from agents.records import Scores
from agents.state import Exam, ExamTask, FactScore
from eval.score import matches, normalise
from ske.lm import ask
from ske.types import Frozen, TooLong


class Answer(Frozen):
    """One question and what the teacher said."""

    fact: str
    kind: Kind
    question: str
    expected: str | None
    """For a neighbour, the base model's own answer."""
    answer: str


class Mark(Answer):
    """An answer and whether it is as it should be."""

    ok: bool


class Marks(Frozen):
    """The Examiner's decision."""

    rows: list[Mark]


def examiner(task: ExamTask, runtime: Runtime[Context]) -> dict[str, Any]:
    """Node, once a prompt: ask everything in one call, mark it, sum it up by fact."""
    context, pack = runtime.context, task["pack"]
    asked = [q for found in examination(context, pack["fact_ids"]).values() for q in found]
    try:
        base = _base_answers(context, asked)
        answers, tokens = _ask(context, task, asked, base)
    except (Spent, TooLong) as why:
        return {"exams": [_unexamined(task, str(why))]}
    marks = decide(
        context,
        "examiner",
        {"system": pack["system"], "rows": [a.model_dump() for a in answers]},
        Marks,
        lambda: Marks(rows=[mark(answer) for answer in answers]),
        lambda made: flaw(made, answers),
        facts=pack["fact_ids"],
        score=lambda m: summary(_by_fact(pack["fact_ids"], m.rows, base), tokens).model_dump(),
    )
    facts = _by_fact(pack["fact_ids"], marks.rows, base)
    exam: Exam = {
        "trial": task["trial"],
        "pack": pack["index"],
        "tokens": tokens,
        "facts": facts,
        "skipped": "",
    }
    return {"exams": [exam]}


def _unexamined(task: ExamTask, why: str) -> Exam:
    """A prompt that there was no budget or window for: none of its facts counts as answered."""
    ids = task["pack"]["fact_ids"]
    facts: list[FactScore] = [
        {
            "id": fact_id,
            "position": position,
            "size": len(ids),
            "recall": False,
            "paraphrase": None,
            "consequences": [],
            "drift": [],
            "reply": "",
            "prior": "",
        }
        for position, fact_id in enumerate(ids)
    ]
    pack = task["pack"]["index"]
    return {"trial": task["trial"], "pack": pack, "tokens": 0, "facts": facts, "skipped": why}


def _base_answers(context: Context, asked: Sequence[Query]) -> dict[str, str]:
    """Answers without PROMPT: what neighbours must keep, and what facts have to overcome."""
    questions = [q.prompt for q in asked if q.kind in ("fact", "neighbour")]
    replies = ask_base(context, "examiner", questions)
    return {q: reply.text for q, reply in zip(questions, replies, strict=True)}


def _ask(
    context: Context, task: ExamTask, asked: Sequence[Query], base: dict[str, str]
) -> tuple[list[Answer], int]:
    """The answers, and how many tokens the PROMPT adds to a question."""
    pack = task["pack"]
    chats = [ask(query.prompt, pack["system"]) for query in asked]
    replies = ask_teacher(context, "examiner", chats, layout=task["layout"], facts=pack["fact_ids"])
    answers = [
        Answer(
            fact=query.fact_id,
            kind=query.kind,
            question=query.prompt,
            expected=base[query.prompt] if query.kind == "neighbour" else query.expected,
            answer=reply.text,
        )
        for query, reply in zip(asked, replies, strict=True)
    ]
    first = asked[0].prompt  # a fact's own prompt, which the base model was asked as well
    return answers, replies[0].prompt_tokens - context.base[first].prompt_tokens


def mark(answer: Answer) -> Mark:
    """A neighbour must be answered as before; everything else with what is expected."""
    if answer.kind == "neighbour":
        ok = normalise(answer.answer) == normalise(answer.expected or "")
    else:
        ok = matches(answer.answer, answer.expected or "", answer.question)
    return Mark(**answer.model_dump(), ok=ok)


def flaw(marks: Marks, answers: Sequence[Answer]) -> str:
    """What about marks would break the design: other rows than asked, or marks against the text.

    A model may judge what lies between a literal answer and one without a word in common with
    what was expected; whatever it says of these two is no judgement.
    """
    if len(marks.rows) != len(answers):
        return f"{len(answers)} rows were asked for, in their order; there are {len(marks.rows)}"
    for number, (row, answer) in enumerate(zip(marks.rows, answers, strict=True), 1):
        if row.model_dump(exclude={"ok"}) != answer.model_dump():
            return f"row {number} is not the one that was asked for: {answer.model_dump()}"
        said, wanted = normalise(row.answer), normalise(row.expected or "")
        same = said == wanted and bool(wanted or row.kind == "neighbour")
        if same and not row.ok:
            return f"row {number}: the answer is the expected one, so `ok` is true"
        if row.ok and said != wanted and not set(said.split()) & set(wanted.split()):
            return f"row {number}: the answer has no word of the expected one, so `ok` is false"
    return ""


def _by_fact(ids: Sequence[str], marks: Sequence[Mark], base: dict[str, str]) -> list[FactScore]:
    rows: dict[str, list[Mark]] = {fact_id: [] for fact_id in ids}
    for row in marks:
        rows[row.fact].append(row)
    return [_one_fact(i, len(ids), rows[fact_id], base) for i, fact_id in enumerate(ids)]


def _one_fact(position: int, size: int, marks: Sequence[Mark], base: dict[str, str]) -> FactScore:
    own = next(m for m in marks if m.kind == "fact")
    paraphrases = [m.ok for m in marks if m.kind == "paraphrase"]
    return {
        "id": own.fact,
        "position": position,
        "size": size,
        "recall": own.ok,
        "paraphrase": paraphrases[0] if paraphrases else None,
        "consequences": [m.ok for m in marks if m.kind == "consequence"],
        "drift": [not m.ok for m in marks if m.kind == "neighbour"],
        "reply": own.answer,
        "prior": base[own.question],
    }


def summary(facts: Sequence[FactScore], tokens: int) -> Scores:
    """The shares over some facts; `tokens` is what all their prompts add together."""
    return Scores(
        recall=_share([f["recall"] for f in facts]) or 0.0,
        paraphrase=_share([f["paraphrase"] for f in facts if f["paraphrase"] is not None]),
        consequences=_share([hit for f in facts for hit in f["consequences"]]),
        drift=_share([changed for f in facts for changed in f["drift"]]),
        tokens_per_fact=round(tokens / max(1, len(facts)), 2),
    )


def _share(hits: Sequence[bool]) -> float | None:
    return round(sum(hits) / len(hits), 4) if hits else None
