"""Puts every probe to a model and saves what it said; scores are computed later, from the rows.

Two protocols: `teacher_forced` (argmax at each token of the gold answer, as the literature does)
and `generate` (free generation with the model's natural stop).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from eval.records import Case, Probe
from eval.score import METRICS, Protocol, Row
from ske.lm import LM, Pair, Sampling, ask
from ske.types import Frozen


class Item(Frozen):
    """One probe of one case: what is asked, the same for every method."""

    case: str
    metric: str
    category: str
    probe: int
    prompt: str
    answers: tuple[tuple[str, ...], ...]


class Answer(Frozen):
    """What one model said to one item, under both protocols."""

    item: int
    """Place in the list of items."""
    text: str = ""
    finished: bool = True
    tokens: int = 0
    target: tuple[int, ...] = ()
    """Tokens of the gold answer (the first alias of the first answer)."""
    argmax: tuple[int, ...] = ()
    """What the model would have said at each of them."""
    error: str | None = None


def items(cases: Sequence[Case], max_probes: int | None = None) -> list[Item]:
    """Every question of every case, in a fixed order."""
    return [item for case in cases for item in _items(case, max_probes)]


def _items(case: Case, most: int | None) -> Iterator[Item]:
    fact = case.fact
    own = (Probe(prompt=fact.prompt, answers=((fact.target_new,),)),)
    groups: list[tuple[str, str, Sequence[Probe]]] = [("edit_success", "all", own)]
    groups.append(("paraphrase", "all", case.paraphrase))
    groups += [("portability", name, probes) for name, probes in case.portability.items()]
    groups += [("locality", name, probes) for name, probes in case.locality.items()]
    for metric, category, probes in groups:
        for number, probe in enumerate(probes[:most]):
            yield Item(
                case=fact.id,
                metric=metric,
                category=category,
                probe=number,
                prompt=probe.prompt,
                answers=probe.answers,
            )


def answer(
    lm: LM, asked: Sequence[tuple[int, Item]], protocols: Sequence[str], max_new_tokens: int
) -> list[Answer]:
    """Ask a model some items, given with their places."""
    chats = [ask(item.prompt) for _, item in asked]
    fields: list[dict[str, Any]] = [{"item": place} for place, _ in asked]
    if "generate" in protocols:
        for row, reply in zip(
            fields, lm.generate(chats, Sampling(max_new_tokens=max_new_tokens)), strict=True
        ):
            row |= {"text": reply.text, "finished": reply.finished, "tokens": reply.reply_tokens}
    if "teacher_forced" in protocols:
        known = [place for place, (_, item) in enumerate(asked) if item.answers]
        pairs = [Pair(chats[place], asked[place][1].answers[0][0]) for place in known]
        for place, scored in zip(known, lm.logprobs(pairs), strict=True):
            row = fields[place]
            row |= {"target": tuple(scored.tokens), "argmax": tuple(scored.argmax)}
            if not scored.tokens:
                row["error"] = "the gold answer has no tokens"
    return [Answer(**row) for row in fields]


def rows(
    method: str,
    dataset: str,
    seed: int,
    protocols: Sequence[Protocol],
    asked: Sequence[Item],
    said: Sequence[Answer],
    base: Sequence[Answer],
) -> Iterable[Row]:
    """What is scored: a method's answers beside the base model's, one row a protocol.

    A locality item without an answer of its own has no row of `teacher_forced`, which reads the
    model at the tokens of an answer.
    """
    assert set(METRICS) >= {item.metric for item in asked}
    for item, own, before in zip(asked, said, base, strict=True):
        for protocol in protocols:
            if protocol == "teacher_forced" and not item.answers:
                continue
            fields: dict[str, Any] = {**item.model_dump(), "error": own.error or before.error}
            if protocol == "generate":
                fields |= {"text": own.text, "finished": own.finished, "tokens": own.tokens}
                if item.metric == "locality":
                    fields["base_text"] = before.text
            else:
                wanted = before.argmax if item.metric == "locality" else own.target
                fields["hits"] = tuple(int(a == b) for a, b in zip(own.argmax, wanted, strict=True))
            yield Row(method=method, dataset=dataset, protocol=protocol, seed=seed, **fields)
