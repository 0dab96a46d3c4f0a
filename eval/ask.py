"""Puts every probe to a model and saves what it said; scores are computed later, from the rows.

Two protocols: `teacher_forced` (argmax at each token of the gold answer, as the literature does)
and `generate` (free generation with the model's natural stop). Beside them: the distributions at
the base model's own answer (`eval.divergence`), and how strongly it believed the old answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from eval.divergence import TOP_K, Told, divergence, told
from eval.fluency import FLUENCY, sampling
from eval.records import Case, Probe
from eval.score import BASE, METRICS, REFUSABLE, Protocol, Row
from eval.sentiment import OUTER, SENTIMENT, OpinionRow
from ske.lm import LM, Pair, Reply, Sampling, Scored, ask
from ske.types import Frozen, TooLong

Got = TypeVar("Got")


class Item(Frozen):
    """One probe of one case: what is asked, the same for every method."""

    case: str
    metric: str
    """One of `score.METRICS`; "fluency" for a text behind the edit's prompt, "sentiment" for what
    people say of its topic; "capability" and "perplexity" for what belongs to no case."""
    category: str
    probe: int
    prompt: str
    answers: tuple[tuple[str, ...], ...]
    system: str | None = None
    """What is read before the prompt, if anything."""
    old: str | None = None
    """The old answer, for an edit's own question in its own and in other words."""


class Answer(Frozen):
    """What one model said to one item, under both protocols."""

    item: int
    """Place in the list of items."""
    text: str = ""
    finished: bool = True
    tokens: int = 0
    read: int = 0
    """Tokens that were read before the reply, a method's own prompt included."""
    target: tuple[int, ...] = ()
    """Tokens of the gold answer (the first alias of the first answer)."""
    argmax: tuple[int, ...] = ()
    """What the model would have said at each of them."""
    told: Told | None = None
    """Distributions at the base model's own answer (locality, protocol `generate`), or at what is
    said of another topic (sentiment)."""
    prior: float | None = None
    """The probability, from 0 to 1, that the reply begins with the old answer (base model only)."""
    loss: float | None = None
    """Mean negative log-probability of a text's tokens, in nats (perplexity, sentiment)."""
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
    groups += [("hard", name, probes) for name, probes in case.hard.items()]
    for metric, category, probes in groups:
        for number, probe in enumerate(probes[:most]):
            yield Item(
                case=fact.id,
                metric=metric,
                category=category,
                probe=number,
                prompt=probe.prompt,
                answers=probe.answers,
                old=fact.ground_truth if metric in REFUSABLE else None,
            )


def written(cases: Sequence[Case]) -> list[Item]:
    """The prompt of every edit, to be gone on with freely."""
    return [
        Item(
            case=case.fact.id,
            metric=FLUENCY,
            category="all",
            probe=0,
            prompt=case.fact.prompt,
            answers=(),
        )
        for case in cases
    ]


def opinions(cases: Sequence[Case]) -> list[Item]:
    """What people say of the topics, to be read at its tokens."""
    return [
        Item(
            case=case.fact.id,
            metric=SENTIMENT,
            category=side,
            probe=number,
            prompt=probe.prompt,
            answers=probe.answers,
        )
        for case in cases
        for side, said in case.opinions.items()
        for number, probe in enumerate(said)
    ]


def answer(
    lm: LM,
    asked: Sequence[tuple[int, Item]],
    protocols: Sequence[str],
    max_new_tokens: int,
    before: Sequence[Answer] | None = None,
    fluency_tokens: int = 0,
) -> list[Answer]:
    """Ask a model some items, given with their places.

    Args:
        lm: The model.
        asked: The items and their places in the whole list.
        protocols: Which are asked.
        max_new_tokens: Longest reply.
        before: The base model's answers to the same items; None if this is the base model.
        fluency_tokens: Length of a text that is written freely.
    """
    fields: list[dict[str, Any]] = [{"item": place} for place, _ in asked]
    own = [item for _, item in asked]
    unspoken = ("perplexity", FLUENCY, SENTIMENT)
    spoken = [i for i, item in enumerate(own) if item.metric not in unspoken]
    read: dict[int, Scored] = {}
    if "generate" in protocols:
        _reply(lm, own, spoken, Sampling(max_new_tokens=max_new_tokens), fields)
        free = [i for i, item in enumerate(own) if item.metric == FLUENCY]
        _reply(lm, own, free, sampling(fluency_tokens), fields)
        read = _distributions(lm, own, fields, before)
    if "teacher_forced" in protocols:
        _force(lm, own, spoken, fields, read)
    if before is None:
        _believe(lm, own, fields)
    _lose(lm, own, fields)
    return [Answer(**row) for row in fields]


def _reply(
    lm: LM,
    own: Sequence[Item],
    places: Sequence[int],
    how: Sampling,
    fields: list[dict[str, Any]],
) -> None:
    """What the model says to some of the items."""

    def said(some: Sequence[int]) -> list[Reply]:
        return lm.generate([ask(own[i].prompt, own[i].system) for i in some], how)

    for i, reply in _fitting(said, places, fields).items():
        fields[i] |= {"text": reply.text, "finished": reply.finished}
        fields[i] |= {"tokens": reply.reply_tokens, "read": reply.prompt_tokens}


def _fitting(
    call: Callable[[Sequence[int]], list[Got]],
    places: Sequence[int],
    fields: list[dict[str, Any]],
) -> dict[int, Got]:
    """What a model answers, by place; what its context window does not hold gets an error.

    The halves of a call that fails are asked by themselves: lengths are seen before anything is.
    """
    try:
        return dict(zip(places, call(places) if places else [], strict=True))
    except TooLong as error:
        if len(places) == 1:
            fields[places[0]]["error"] = str(error)
            return {}
    middle = len(places) // 2
    halves = (_fitting(call, part, fields) for part in (places[:middle], places[middle:]))
    return {place: got for half in halves for place, got in half.items()}


def _force(
    lm: LM,
    own: Sequence[Item],
    spoken: Sequence[int],
    fields: list[dict[str, Any]],
    read: Mapping[int, Scored],
) -> None:
    """The argmax at each token of the gold answer; `read` is what is known of some already."""
    known = [i for i in spoken if own[i].answers]
    unread = [i for i in known if i not in read]
    scores = {**read, **_scored(lm, own, unread, _gold(own, unread), fields)}
    for i, scored in scores.items():
        fields[i] |= {"target": tuple(scored.tokens), "argmax": tuple(scored.argmax)}
        if not scored.tokens:
            fields[i]["error"] = "the gold answer has no tokens"


def _distributions(
    lm: LM,
    own: Sequence[Item],
    fields: list[dict[str, Any]],
    before: Sequence[Answer] | None,
) -> dict[int, Scored]:
    """What the model is about to say at each token of the base model's own answer.

    Returns:
        Where that is the gold answer: its tokens' scores, which need not be read again.
    """
    near = [
        i for i, item in enumerate(own) if item.metric == "locality" and "error" not in fields[i]
    ]
    base = [fields[i] if before is None else before[i].model_dump() for i in near]
    pairs = {
        i: Pair(ask(own[i].prompt, own[i].system), said["text"], end=said["finished"])
        for i, said in zip(near, base, strict=True)
    }
    read: dict[int, Scored] = {}
    call = lambda some: lm.logprobs([pairs[i] for i in some], TOP_K)  # noqa: E731
    for i, scored in _fitting(call, near, fields).items():
        pair = pairs[i]
        try:
            fields[i]["told"] = told(scored)
        except ValueError as error:
            fields[i]["error"] = str(error)
        if own[i].answers and own[i].answers[0][0] == pair.answer:
            tokens = len(scored.tokens) - pair.end
            read[i] = scored._replace(tokens=scored.tokens[:tokens], argmax=scored.argmax[:tokens])
    return read


def _believe(lm: LM, own: Sequence[Item], fields: list[dict[str, Any]]) -> None:
    """How probable the old answer is, its end not counted: "Vell" and "Vell." believe the same."""
    known = [i for i, item in enumerate(own) if item.old and item.metric == "edit_success"]
    old = [own[i].old or "" for i in known]
    for i, scored in _scored(lm, own, known, old, fields).items():
        if scored.tokens and not math.isnan(total := math.fsum(scored.logprobs)):
            fields[i]["prior"] = math.exp(min(total, 0.0))


def _lose(lm: LM, own: Sequence[Item], fields: list[dict[str, Any]]) -> None:
    """How badly the model predicts a text or sentence; of other topics, distributions, too."""
    texts = [i for i, item in enumerate(own) if item.metric in ("perplexity", SENTIMENT)]
    outer = [i for i in texts if own[i].category == OUTER]
    inner = [i for i in texts if own[i].category != OUTER]
    for places, top_k in ((inner, 0), (outer, TOP_K)):
        found = _scored(lm, own, places, _gold(own, places), fields, top_k)
        for i, scored in found.items():
            fields[i] |= _loss(scored, distributions=places is outer)


def _loss(scored: Scored, distributions: bool) -> dict[str, Any]:
    loss = -math.fsum(scored.logprobs) / max(len(scored.tokens), 1)
    if not scored.tokens or not math.isfinite(loss):
        return {"error": f"the text's {len(scored.tokens)} tokens have no finite loss"}
    kept = {"told": told(scored)} if distributions else {}
    return {"loss": max(loss, 0.0), "tokens": len(scored.tokens), **kept}


def _gold(own: Sequence[Item], places: Sequence[int]) -> list[str]:
    return [own[i].answers[0][0] for i in places]


def _scored(
    lm: LM,
    own: Sequence[Item],
    places: Sequence[int],
    answers: Sequence[str],
    fields: list[dict[str, Any]],
    top_k: int = 0,
) -> dict[int, Scored]:
    """How the model reads an answer to some of the items, by place."""
    wanted = dict(zip(places, answers, strict=True))

    def scored(some: Sequence[int]) -> list[Scored]:
        pairs = [Pair(ask(own[i].prompt, own[i].system), wanted[i]) for i in some]
        return lm.logprobs(pairs, top_k)

    return _fitting(scored, places, fields)


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
            fields: dict[str, Any] = item.model_dump(exclude={"system", "old"})
            fields |= {"error": own.error or before.error}
            if method == BASE and item.metric == "edit_success":
                fields["prior"] = own.prior
            if protocol == "generate" and item.metric in REFUSABLE:
                fields["old"] = item.old
            read = _generated if protocol == "generate" else _forced
            fields |= read(item, own, before)
            yield Row(method=method, dataset=dataset, protocol=protocol, seed=seed, **fields)


def opinion_rows(
    method: str,
    dataset: str,
    seed: int,
    asked: Sequence[Item],
    said: Sequence[Answer],
    base: Sequence[Answer],
) -> Iterable[OpinionRow]:
    """What is scored of a method's sentences beside the base model's."""
    for item, own, before in zip(asked, said, base, strict=True):
        moved = ()
        if own.told and before.told and own.told.tokens == before.told.tokens:
            moved = divergence(before.told, own.told)
        yield OpinionRow.model_validate(
            {
                "method": method,
                "dataset": dataset,
                "seed": seed,
                "case": item.case,
                "side": item.category,
                "probe": item.probe,
                "prompt": item.prompt,
                "sentence": item.answers[0][0],
                "tokens": own.tokens,
                "loss": own.loss,
                "base_loss": before.loss,
                "divergence": moved,
                "error": own.error or before.error,
            }
        )


def _generated(item: Item, own: Answer, before: Answer) -> dict[str, Any]:
    fields: dict[str, Any] = {"text": own.text, "finished": own.finished, "tokens": own.tokens}
    if item.metric == "locality":
        fields["base_text"] = before.text
        # Behind a prompt of its own, a method may read the same answer as other tokens.
        if own.told and before.told and own.told.tokens == before.told.tokens:
            fields["divergence"] = divergence(before.told, own.told)
    return fields


def _forced(item: Item, own: Answer, before: Answer) -> dict[str, Any]:
    if own.error is not None and not own.target:
        return {}
    gold = _hits(own.argmax, own.target)
    if item.metric == "locality":
        return {"hits": _hits(own.argmax, before.argmax), "gold_hits": gold}
    return {"hits": gold}


def _hits(argmax: Sequence[int], wanted: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(a == b) for a, b in zip(argmax, wanted, strict=True))
