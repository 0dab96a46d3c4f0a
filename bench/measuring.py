"""One measure for every way of packing: fresh questions about each fact, asked from its prompt.

The questions are drawn anew for each seed, so nothing is measured with what it was searched with.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from langgraph.runtime import Runtime

from agents.batch import Batch
from agents.brain import RulesBrain
from agents.context import Context
from agents.examiner import examiner, summary
from agents.queries import queries
from agents.questioner import MAX_CONSEQUENCES, ExamLimits
from agents.resolve import resolve
from agents.state import ExamTask, FactScore
from bench.variants import Prompt, Task
from ske.lm import LM, Chat, Pair, Reply, Sampling, Scored
from ske.trace import Trace


class Counted:
    """An `LM` that counts what it is asked."""

    def __init__(self, lm: LM) -> None:
        """Around `lm`."""
        self.lm = lm
        self.questions = self.tokens = 0

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Reply]:
        """As the model says."""
        replies = self.lm.generate(chats, sampling)
        self.questions += len(chats)
        self.tokens += sum(reply.prompt_tokens + reply.reply_tokens for reply in replies)
        return replies

    def logprobs(self, pairs: Sequence[Pair], top_k: int = 0) -> list[Scored]:
        """As the model says."""
        return self.lm.logprobs(pairs, top_k)


def measured(task: Task, prompts: Sequence[Prompt], draw: str = "measure") -> dict[str, Any]:
    """How all facts do under these prompts: scores, sizes, and a row a fact.

    `facts_per_prompt` counts facts that are recalled; `reached` says whether enough of them are.
    """
    context = _context(task, draw)
    facts: list[FactScore] = []
    tokens = 0
    for index, prompt in enumerate(prompts):
        asked: ExamTask = {
            "trial": 0,
            "layout": prompt.layout,
            "pack": {
                "index": index,
                "origin": -1,
                "fact_ids": prompt.fact_ids,
                "repeated": [],
                "system": prompt.system,
            },
        }
        (exam,) = examiner(asked, Runtime(context=context))["exams"]
        facts += exam["facts"]
        tokens += exam["tokens"]
    scores = summary(facts, tokens)
    verified = sum(fact["recall"] for fact in facts)
    return {
        **scores.model_dump(),
        "n": len(facts),
        "prompts": len(prompts),
        "facts_per_prompt": round(verified / len(prompts), 3),
        "reached": scores.recall >= task.config.recall,
        "facts": {fact["id"]: {"recall": fact["recall"], "drift": fact["drift"]} for fact in facts},
    }


def _context(task: Task, draw: str) -> Context:
    by_id = {fact.id: fact for fact in task.facts}
    folder = task.folder / draw
    context = Context(
        lm=task.lm,
        facts=by_id,
        config=task.config,
        trace=Trace(folder / "trace.jsonl"),
        folder=folder,
        brain=RulesBrain(),
        batch=Batch(task.facts),
        names=task.names,
    )
    drawn = [
        query
        for fact in task.facts
        for query in queries(
            fact, context.batch, ExamLimits(), task.names,
            random.Random(f"{draw}-{task.seed}-{fact.id}"),
        )
    ]  # fmt: skip
    sampling = Sampling(max_new_tokens=24)
    settled = resolve(drawn, context.batch, lambda asked: _texts(task.lm, asked, sampling))
    for fact in task.facts:
        own = [query for query in settled if query.fact_id == fact.id]
        known = [q for q in own if q.kind == "consequence" and q.expected is not None]
        keep = known[:MAX_CONSEQUENCES]
        context.exam[fact.id] = [q for q in own if q.kind != "consequence" or q in keep]
    return context


def _texts(lm: LM, asked: Sequence[str], sampling: Sampling) -> list[str]:
    chats: list[Chat] = [[{"role": "user", "content": text}] for text in asked]
    return [reply.text for reply in lm.generate(chats, sampling)]
