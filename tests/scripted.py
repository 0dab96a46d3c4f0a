"""A teacher made of rules, for tests: it knows a small world and uses facts from its prompt.

It answers from the fact with index i of its system message if i is below the capacity of the
message's layout; otherwise, and for everything else, it says what it always believed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from prompts.layouts import view
from prompts.relations import lexicon
from ske.lm import Chat, Pair, Reply, Sampling, Scored
from ske.types import Fact

Path = tuple[str, ...]
"""Relations to follow from the subject; "inverse" goes from an object to the fact's subject."""


@cache
def wordings() -> list[tuple[str, str, Path]]:
    """Every wording of the lexicon as (before the subject, after it, path)."""
    found = []
    for relation in lexicon().values():
        for text in (relation.prompt, *relation.paraphrases):
            found.append((*text.split("{subject}"), (relation.id,)))
        for second, texts in relation.compositions.items():
            found += [(*t.split("{subject}"), (relation.id, second)) for t in texts]
        found += [(*t.split("{object}"), ("inverse", relation.id)) for t in relation.inverse]
    return [(w[0], w[1], w[2]) for w in found]


@cache
def parse(question: str) -> tuple[str, Path] | None:
    """Whom a question is about and what it asks for; the longest wording that fits."""
    fits = [
        (len(before) + len(after), question[len(before) : len(question) - len(after)], path)
        for before, after, path in wordings()
        if question.startswith(before) and question.endswith(after)
    ]
    if not fits:
        return None
    _, subject, path = max(fits, key=lambda fit: fit[0])
    return subject, path


class ScriptedLM:
    """See the module. `cure` makes single facts harder, `crash_after` stops it mid-way."""

    def __init__(
        self,
        facts: Sequence[Fact],
        capacity: dict[str, int] | int,
        *,
        drifting: Sequence[str] = (),
        cure: dict[str, str] | None = None,
        crash_after: int | None = None,
        values: dict[tuple[str, str], str] | None = None,
        override: Callable[[str], str | None] | None = None,
    ) -> None:
        self.facts = list(facts)
        self.capacity = capacity
        self.drifting = drifting
        self.cure = cure or {}
        self.crash_after = crash_after
        self.values = values or {}
        self.override = override
        self.calls = 0
        self.questions = 0
        self._read: dict[str, tuple[str, dict[tuple[str, str], str]]] = {}

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Reply]:
        self.calls += 1
        if self.crash_after is not None and self.calls > self.crash_after:
            raise ConnectionError("the scripted model is gone")
        self.questions += len(chats)
        return [self._reply(chat) for chat in chats]

    def logprobs(self, pairs: Sequence[Pair], top_k: int = 0) -> list[Scored]:
        raise NotImplementedError

    def _reply(self, chat: Chat) -> Reply:
        text = self.answer(chat[-1]["content"], chat[0]["content"] if len(chat) > 1 else "")
        tokens = sum(len(message["content"].split()) for message in chat)
        return Reply(text, tokens, len(text.split()), True)

    def answer(self, question: str, system: str) -> str:
        layout, usable = self.read(system)
        forced = self.override(question) if self.override else None
        if forced is not None:
            return forced
        for fact in self.facts:
            if question.endswith(fact.prompt) and (fact.subject, fact.prompt) in usable:
                return fact.target_new
        parsed = parse(question)
        if parsed is None:
            return "no idea"
        subject, path = parsed
        touched = any(subject == name for name, _ in usable)
        value = self._follow(subject, path, usable)
        return f"{value} perhaps" if layout in self.drifting and not touched else value

    def _follow(self, subject: str, path: Path, usable: dict[tuple[str, str], str]) -> str:
        if path[0] == "inverse":
            owners = [s for (s, r), v in usable.items() if r == path[1] and v == subject]
            return owners[0] if owners else f"owner of {subject}"
        for relation in path:
            pair = (subject, relation)
            mirrored = [s for (s, r), v in usable.items() if r == relation and v == subject]
            if pair in usable:
                subject = usable[pair]
            elif lexicon()[relation].symmetric and mirrored:
                subject = mirrored[0]
            else:
                subject = self.values.get(pair, f"{relation} known of {subject}")
        return subject

    def read(self, system: str) -> tuple[str, dict[tuple[str, str], str]]:
        """The layout of a system message and the facts of it that this teacher can use."""
        if system not in self._read:
            self._read[system] = self._understand(system)
        return self._read[system]

    def _understand(self, system: str) -> tuple[str, dict[tuple[str, str], str]]:
        found = [
            (fact, layout, system.count(text))
            for fact in self.facts
            for layout, text in statements(fact).items()
            if text in system
        ]
        if not found:
            return "", {}
        layout = found[0][1]
        found.sort(key=lambda item: system.index(statements(item[0])[layout]))
        most = self.capacity if isinstance(self.capacity, int) else self.capacity.get(layout, 0)
        usable: dict[tuple[str, str], str] = {}
        for index, (fact, _, times) in enumerate(found):
            if index < most and self._cured(fact, index, len(found), times):
                usable[fact.subject, fact.relation or fact.prompt] = fact.target_new
                usable[fact.subject, fact.prompt] = fact.target_new
        return layout, usable

    def _cured(self, fact: Fact, index: int, size: int, times: int) -> bool:
        cures = {"move": index == size - 1, "repeat": times > 1, "own": size < 4, "never": False}
        return cures[self.cure[fact.id]] if fact.id in self.cure else True


def statements(fact: Fact) -> dict[str, str]:
    """How each layout states a fact (one fact a subject)."""
    seen = view(fact)
    return {
        "triples": f"{fact.subject} | {seen['label']} | {seen['object']}",
        "prose": f"{fact.prompt} {seen['object']}.",
        "by_subject": f"{fact.subject}: {seen['label']} = {seen['object']}",
    }


GIVEN = ("Ada", "Bela", "Cyra", "Dov", "Edda", "Finn", "Gita", "Hugo")
FAMILY = ("Abel", "Brook", "Cole", "Dunn", "Eder", "Frey", "Gross", "Holt")


def people(n: int) -> list[str]:
    """Up to 64 names; later ones share family names."""
    return [f"{GIVEN[(i // 8 + i) % 8]} {FAMILY[i % 8]}" for i in range(n)]


def make_facts(n: int, relation: str = "employer") -> list[Fact]:
    """`n` facts about different people, all of one relation."""
    return [
        Fact(
            id=f"f{i:03}",
            subject=name,
            prompt=lexicon()[relation].ask(name),
            target_new=f"Target{i:03}",
            relation=relation,
        )
        for i, name in enumerate(people(n))
    ]
