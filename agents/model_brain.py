"""The brain that asks a chat model, and leaves to the rules what the model cannot decide.

A reply is parsed into the role's schema and checked for what would break the design. One that
cannot be used is asked for again with the reason; after the last attempt the rules decide that
turn, and the trace says so. Keeps every call in `items/calls.jsonl` of the design's folder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from pydantic import BaseModel

from agents.brain import Brain, Decided, Decision, RulesBrain
from agents.calls import Call, Calls, call_key
from agents.chat import ChatModel, LocalChat, Refused
from agents.endpoint import Endpoint
from agents.parsing import Unusable, parsed
from agents.records import Turns
from prompts.loader import render
from ske.config import DesignConfig
from ske.lm import LM, Message
from ske.trace import Event

CALLS = "items/calls.jsonl"
"""In `items`, which stays when the design starts afresh: a question asked again costs nothing."""


class ModelBrain:
    """See the module."""

    def __init__(self, model: ChatModel, calls: Calls) -> None:
        """Replies come from `calls` where they are known, else from `model`."""
        self.model = model
        self.calls = calls
        self.name = model.name

    def decide(
        self,
        role: str,
        messages: list[Message],
        schema: type[Decision],
        rule: Callable[[], Decision],
        flaw: Callable[[Decision], str],
    ) -> Decided[Decision]:
        """Ask, at most `retries` times more than once; then follow the rule."""
        most = self.model.retries + 1
        said: list[Call] = []
        problems: list[str] = []
        fresh = 0
        while len(said) < most:
            asked = _again(messages, problems[-1], len(said), most) if problems else messages
            call, stored = self._call(role, asked, schema)
            said.append(call)
            fresh += not stored
            decision, problem = _read(call, schema, flaw)
            if decision is not None:
                return self._decided(decision, self.name, said, problems, fresh)
            problems.append(problem)
            if call.refused:
                break  # The same question with a reason added would be refused as well.
        return self._decided(rule(), RulesBrain.name, said, problems, fresh)

    def _decided(
        self, decision: Decision, brain: str, said: list[Call], problems: list[str], fresh: int
    ) -> Decided[Decision]:
        notes = [f"attempt {i} of {self.name}: {why}" for i, why in enumerate(problems, 1)]
        if brain != self.name:
            notes.append(f"{self.name} gave no reply that can be used: the rules decided")
        return Decided(
            decision,
            brain,
            reply=said[-1].reply,
            attempts=len(said),
            notes=tuple(notes),
            tokens=sum(call.tokens for call in said),
            cached=fresh == 0,
            call=said[0].key,
        )

    def _call(
        self, role: str, messages: list[Message], schema: type[BaseModel]
    ) -> tuple[Call, bool]:
        """A call, and whether it was a stored one."""
        model = self.model
        key = call_key(model.identity, messages, schema, model.sampling)
        stored = self.calls.get(key)
        if stored is not None:
            return stored, True
        reply, finished, refused, tokens = "", True, "", 0
        try:
            reply, tokens, finished = model.say(messages, schema, self.calls.answered())
        except Refused as error:
            refused = str(error)
        call = Call(
            key=key,
            role=role,
            model=model.identity,
            messages=messages,
            reply=reply,
            finished=finished,
            refused=refused,
            tokens=tokens,
        )
        self.calls.add(call)
        return call, False


def _read(
    call: Call, schema: type[Decision], flaw: Callable[[Decision], str]
) -> tuple[Decision | None, str]:
    """The decision, or None and what is wrong with the reply."""
    if call.refused:
        return None, f"refused: {call.refused}"
    try:
        decision = parsed(call.reply, schema)
    except Unusable as error:
        cut = "" if call.finished else "; the reply was cut short, be briefer"
        return None, f"{error}{cut}"
    problem = flaw(decision)
    return (None, problem) if problem else (decision, "")


def _again(messages: list[Message], problem: str, attempt: int, most: int) -> list[Message]:
    """The question once more, with what was wrong with the last reply."""
    *before, last = messages
    message = render(
        "agents/again",
        question=last["content"],
        problem=problem,
        attempt=attempt,
        attempts=most,
    )
    return [*before, {"role": last["role"], "content": message.text}]


def brain_for(config: DesignConfig, lm: LM, folder: Path, identity: str) -> Brain:
    """The brain that the configuration names.

    Args:
        config: `brain` and `endpoint`.
        lm: The run's own model, which decides if there is no endpoint.
        folder: The design's.
        identity: What tells `lm`'s weights from others.
    """
    if config.brain == "rules":
        return RulesBrain()
    model = Endpoint(config.endpoint) if config.endpoint else LocalChat(lm, identity)
    return ModelBrain(model, Calls(folder / CALLS))


def turns(brain: str, events: Iterable[Event]) -> Turns:
    """How many decisions a model was asked for, and which the rules had to take instead.

    A turn that was done again after a kill has two events and counts once.
    """
    asked = {event.call: event for event in events if event.attempts}
    left = [e.role for e in asked.values() if e.brain == RulesBrain.name]
    return Turns(brain=brain, asked=len(asked), by_rules=dict(sorted(Counter(left).items())))
