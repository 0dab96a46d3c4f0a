"""The only place where an agent talks to a model or to a brain; every call is one trace event.

Appends to `trace.jsonl` of the design's folder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel

from agents.brain import Brain, Decided, Decision, RulesBrain
from agents.context import Context
from agents.meter import TEACHER, Spent
from prompts.loader import render, schema_text, template_hash
from ske.lm import Chat, Message, Reply, Sampling, ask
from ske.trace import Event
from ske.types import TooLong

STAGE = "design"
TEMPLATES = {"writer": "agents/designer"}
"""Templates that are not called like their role."""
SAMPLING = Sampling(max_new_tokens=24)
"""How the teacher answers while prompts are designed: greedily."""
LONGEST_LIST = 8
LONGEST_TEXT = 4000
"""What a trace keeps of a list or text; `parsed`, which later stages read, is kept whole."""
LONGEST_REPLY = 1000
"""By rules, a reply only repeats what `parsed` holds."""


def decide(
    context: Context,
    role: str,
    variables: dict[str, Any],
    schema: type[Decision],
    rule: Callable[[], Decision],
    flaw: Callable[[Decision], str],
    *,
    facts: Sequence[str] = (),
    notes: Sequence[str] = (),
    score: Callable[[Decision], dict[str, Any]] | None = None,
    record: bool = True,
) -> Decision:
    """Ask the brain for a role's decision, and write down what was asked and decided.

    Args:
        context: Whose brain and trace.
        role: Who decides; its template is `prompts/agents/ROLE.md`.
        variables: What the template shows; the schema is added here.
        schema: What the decision is.
        rule: The decision by rules.
        flaw: What about a decision would break the design, in words for its maker; "" if nothing.
        facts: Ids of the facts it is about.
        notes: Anything out of the ordinary.
        score: What to record as scores of the decision.
        record: False for a turn that the trace has already, redone because only it was lost.
    """
    template = TEMPLATES.get(role, f"agents/{role}")
    message = render(template, **variables, schema=schema_text(schema))
    messages: list[Message] = [{"role": "user", "content": message.text}]
    started = time.perf_counter()
    brain, unpaid = _who_decides(context, message.text)
    made = brain.decide(role, messages, schema, rule, flaw)
    if record:
        event = Event(
            stage=STAGE,
            role=role,
            brain=made.brain,
            template=message.template,
            template_hash=message.hash,
            variables=shortened(variables),
            messages=[_clipped(m) for m in messages],
            scores=score(made.decision) if score else {},
            notes=[*notes, *unpaid, *made.notes],
            facts=list(facts),
            seconds=round(time.perf_counter() - started, 4),
            **_told(made),
        )
        context.trace.add(event)
        context.meter.add(event)
    return made.decision


def _who_decides(context: Context, question: str) -> tuple[Brain, list[str]]:
    """The brain; the rules, and why, where a budget has no room for a model's turn."""
    if context.brain.name == RulesBrain.name:
        return context.brain, []
    try:
        context.meter.check(0, len(question))
    except Spent as spent:
        return RulesBrain(), [f"{spent}: {context.brain.name} is not asked, the rules decide"]
    return context.brain, []


def _told(made: Decided[Any]) -> dict[str, Any]:
    """What a trace says about how a decision came about."""
    by_rules = _clip(_json(made.decision), LONGEST_REPLY)
    return {
        "reply": _clip(made.reply) if made.attempts else by_rules,
        "parsed": made.decision.model_dump(mode="json"),
        "tokens": made.tokens,
        "cached": made.cached,
        "attempts": made.attempts,
        "call": made.call,
    }


def ask_teacher(
    context: Context,
    role: str,
    chats: Sequence[Chat],
    *,
    layout: str = "",
    facts: Sequence[str] = (),
) -> list[Reply]:
    """Put all chats to the teacher in one call, so that a backend can share their prefix.

    Args:
        context: Whose model and trace.
        role: Who asks.
        chats: The questions; the trace shows the first one as an example.
        layout: The layout of the system message, "" if there is none.
        facts: Ids of the facts it is about.

    Raises:
        Spent: A budget does not allow it; nothing was asked.
    """
    if not chats:
        return []
    characters = sum(len(message["content"]) for chat in chats for message in chat)
    context.meter.check(len(chats), characters)
    replies, seconds = _replies(context, chats)
    event = Event(
        stage=STAGE,
        role=role,
        brain=TEACHER,
        template=f"teacher/{layout}" if layout else "",
        template_hash=template_hash(f"teacher/{layout}") if layout else "",
        messages=[_clipped(m) for m in chats[0]],
        reply=_clip(replies[0].text),
        scores={"questions": len(chats)},
        facts=list(facts),
        tokens=sum(reply.prompt_tokens + reply.reply_tokens for reply in replies),
        seconds=round(seconds, 4),
    )
    context.trace.add(event)
    context.meter.add(event, characters)
    return replies


def ask_ahead(context: Context, chats: Sequence[Chat]) -> None:
    """Have replies ready for `ask_teacher`: many prompts of few questions are one call, not many.

    Nothing is written down or counted before it is asked for; where a budget could forbid that,
    nothing is asked ahead.
    """
    context.ahead.clear()
    if not chats or context.meter.limited:
        return
    started = time.perf_counter()
    try:
        replies = context.lm.generate(chats, SAMPLING)
    except TooLong:
        return  # Which of the prompts is too long is found when each is asked by itself.
    share = (time.perf_counter() - started) / len(chats)
    context.ahead.update(
        (_key(chat), (reply, share)) for chat, reply in zip(chats, replies, strict=True)
    )


def _replies(context: Context, chats: Sequence[Chat]) -> tuple[list[Reply], float]:
    """The replies and the seconds that they took."""
    ready = [found for chat in chats if (found := context.ahead.get(_key(chat)))]
    if len(ready) == len(chats):
        return [reply for reply, _ in ready], sum(seconds for _, seconds in ready)
    started = time.perf_counter()
    return context.lm.generate(chats, SAMPLING), time.perf_counter() - started


def _key(chat: Chat) -> tuple[str, ...]:
    return tuple(text for message in chat for text in (message["role"], message["content"]))


def ask_base(context: Context, role: str, questions: Sequence[str]) -> list[Reply]:
    """What the base model answers without PROMPT; no question is put to it twice."""
    new = [q for q in dict.fromkeys(questions) if q not in context.base]
    replies = ask_teacher(context, role, [ask(question) for question in new])
    context.base.update(zip(new, replies, strict=True))
    return [context.base[question] for question in questions]


def shortened(value: Any) -> Any:
    """A value for the trace: long lists and texts are cut, and say by how much."""
    if isinstance(value, str):
        return _clip(value)
    if isinstance(value, dict):
        return {key: shortened(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        items = [shortened(item) for item in value[:LONGEST_LIST]]
        left = len(value) - LONGEST_LIST
        return [*items, f"... and {left} more"] if left > 0 else items
    return value


def _clip(text: str, longest: int = LONGEST_TEXT) -> str:
    left = len(text) - longest
    return f"{text[:longest]} ... and {left} more characters" if left > 0 else text


def _clipped(message: Message) -> Message:
    return {"role": message["role"], "content": _clip(message["content"])}


def _json(decision: BaseModel) -> str:
    return json.dumps(decision.model_dump(mode="json"), ensure_ascii=False)
