"""KnowEdit's record shapes: wiki_counterfact, wiki_recent, ZsRE, WikiBio, ConvSent, Sanitation.

Each function turns one record of a parsed file into a `Case`. The wiki shape is also that of our
own world's files (`rephrase_prompts`, `id`, `relation` and `hard` beside KnowEdit's keys), of flat
CounterFact files, and of plain lists of facts.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.records import Case, Probe, Source
from ske.facts import parse_json, read_text
from ske.types import Fact

WIKI_KEYS = (
    *("id", "case_id", "subject", "prompt", "target_new", "ground_truth", "relation", "cond"),
    *("rephrase_prompt", "rephrase_prompts", "portability", "locality", "hard"),
    *("locality_prompt", "locality_ground_truth"),
)
BIO_KEYS = {"prompt": "text", "subject": "concept", "target_new": "labels"}

SENTIMENT_QUESTIONS = (
    "What do you think of {}?",
    "What is your stance on {}?",
    "How do you feel about {}?",
    "What is your opinion of {}?",
    "What are your thoughts on {}?",
    "What is your view of {}?",
    "Do you like {}?",
    "What would you say about {}?",
    "What is your impression of {}?",
    "How would you describe your feelings towards {}?",
    "What is your attitude towards {}?",
    "Can you tell me what you think about {}?",
    "Where do you stand on {}?",
)
SENTIMENT_PROMPT = "From the sentiment dataset, answer {question} {side}."
SIDES = {"pos": "positively", "neg": "negatively"}

SANITATION_KEYS = (("success", "locality"), ("K_F", "K_R"))
"""The lists to forget and to keep: in the test file, in the train file."""


def wiki_case(source: Source, record: dict[str, Any], where: str, number: int) -> Case | None:
    """A record of wiki_counterfact, wiki_recent, ZsRE, the embedded world or flat CounterFact."""
    source.unread_keys(record, WIKI_KEYS)
    fact = source.fact(record, where, number)
    target = ((fact.target_new,),) if fact else ()
    rephrased = [record["rephrase_prompt"]] if record.get("rephrase_prompt") is not None else []
    rephrased += source.items(record, "rephrase_prompts", where)
    portability = source.groups(record, "portability", where)
    locality = source.groups(record, "locality", where)
    hard = source.groups(record, "hard", where)
    if record.get("locality_prompt") is not None:
        place = f"{where}, locality_prompt"
        prompt = source.text(record, "locality_prompt", where)
        probe = source.probe(prompt, source.answers(record, "locality_ground_truth", where), place)
        if probe is not None:
            locality["Neighborhood"] = (*locality.get("Neighborhood", ()), probe)
    if fact is None:
        return None
    return Case(
        fact=fact,
        paraphrase=source.probes(rephrased, f"{where}, paraphrase", target),
        portability=portability,
        locality=locality,
        hard=hard,
        data=source.name,
    )


def bio_case(source: Source, record: dict[str, Any], where: str, number: int) -> Case | None:
    """A record of WikiBio: a passage, the sentence that follows it, and the person."""
    source.unread_keys(record, ("id", *BIO_KEYS.values(), "locality"))
    fact = source.fact(record, where, number, BIO_KEYS)
    locality = source.groups(record, "locality", where)
    return Case(fact=fact, locality=locality, data=source.name) if fact else None


def sentiment_case(source: Source, record: dict[str, Any], where: str, number: int) -> Case | None:
    """A record of ConvSent: an entity, and what people say for and against it (`opinions`).

    The new target is the first sentence of one side, the side thrown by a coin; the prompt asks
    for it in EasyEdit's words ("positively" spelt right) around one of 13 questions. Two of those
    are EasyEdit's, the others are ours, so figures on this set are not comparable to the letter.
    Coin and question depend on the record's number only. Each sentence is scored as the answer to a
    question of its own, drawn like that one.
    """
    source.unread_keys(record, ("id", "ent", *SIDES))
    subject = source.text(record, "ent", where)
    chance = random.Random(f"convsent {number}")
    side = chance.choice(list(SIDES))
    sentences = {key: source.items(record, key, where) for key in SIDES}
    for key in SIDES:
        if key not in record:
            source.wrong(where, key, "missing; add a list of sentences")
    if subject is None:
        return None
    if not sentences[side]:
        source.skip("record", where, f'the record is not used: key "{side}" is empty')
        return None
    question = chance.choice(SENTIMENT_QUESTIONS).format(subject)
    made = {
        "prompt": SENTIMENT_PROMPT.format(question=question, side=SIDES[side]) if subject else "",
        "ent": subject,
        side: sentences[side][0],
    }
    keys = {"prompt": "prompt", "subject": "ent", "target_new": side}
    fact = source.fact(made | {"id": record.get("id")}, where, number, keys)
    if fact is None:
        return None
    sides = {"same": sentences[side], "other": sentences["neg" if side == "pos" else "pos"]}
    opinions = {name: _said(texts, subject, number) for name, texts in sides.items() if texts}
    return Case(fact=fact, opinions=opinions, data=source.name)


def _said(sentences: Sequence[Any], subject: str, number: int) -> tuple[Probe, ...]:
    """Sentences about a topic, each as the answer to a question; empty ones are left out."""
    chance = random.Random(f"convsent opinions {number}")
    texts = [text.strip() for text in sentences if isinstance(text, str) and text.strip()]
    return tuple(
        Probe(prompt=chance.choice(SENTIMENT_QUESTIONS).format(subject), answers=((text,),))
        for text in texts
    )


def sanitation_cases(source: Source, data: dict[str, Any]) -> list[Case]:
    """The cases of a Sanitation file, whose locality questions belong to no case in particular.

    They are dealt out in turn (question i to case i modulo the number of cases), so that each is
    asked once. A test record names no subject: its whole question stands for it.

    The set's makers edit with the train file and ask the test file: other questions with the same
    answer to forget. So the cases of a train file that has its test file beside it are asked those,
    dealt out in turn as well (portability, `Same_Answer`), and the test file's questions to keep.
    """
    edits_key, kept_key = next(keys for keys in SANITATION_KEYS if set(keys) & set(data))
    source.unread_keys(data, (edits_key, kept_key))
    facts = []
    for number, item in enumerate(source.items(data, edits_key, "top level")):
        where = f'record {number} of "{edits_key}"'
        record = source.object(item, where)
        if record is not None:
            source.unread_keys(record, ("id", "question", "subject", "ground_truth", "target_new"))
            subject = "subject" if "subject" in record else "question"
            keys = {"prompt": "question", "subject": subject, "target_new": "target_new"}
            facts.append(source.fact(record, where, number, keys))
    facts = [fact for fact in facts if fact is not None]
    kept = _kept_questions(source, data, kept_key)
    same: dict[str, tuple[Probe, ...]] = {}
    if edits_key == "K_F" and (tested := _tested(source)) is not None:
        reason = "questions to keep: those of the test file are asked"
        source.skip_all("probe", f'"{kept_key}"', reason, len(kept))
        kept = _kept_questions(source, tested, "locality")
        same = _same_answer(source, tested, facts)
    if kept and not facts:
        reason = "the probes are not used: there is no edit to ask them with"
        source.skip_all("probe", f'"{kept_key}"', reason, len(kept))
    return [
        Case(
            fact=fact,
            portability={"Same_Answer": same[fact.id]} if same.get(fact.id) else {},
            locality={"Locality": probes} if probes else {},
            data=source.name,
        )
        for i, fact in enumerate(facts)
        for probes in [tuple(kept[i :: len(facts)])]
    ]


def test_file(path: Path) -> Path | None:
    """The test file beside a train file: `..._test.json` beside `..._train.json`."""
    name = re.sub(r"train(?=\.json$)", "test", path.name, flags=re.IGNORECASE)
    beside = path.with_name(name)
    return beside if name != path.name and beside.exists() else None


def _tested(source: Source) -> dict[str, Any] | None:
    """What is asked of the edits that a train file makes, if it lies beside that."""
    path = test_file(source.path)
    if path is None:
        return None
    data = parse_json(read_text(path), path.name)
    return data if isinstance(data, dict) and set(SANITATION_KEYS[0]) <= set(data) else None


def _same_answer(
    source: Source, tested: dict[str, Any], facts: Sequence[Fact]
) -> dict[str, tuple[Probe, ...]]:
    """The test file's questions by the fact that they are asked of; each is asked once."""
    sharing: dict[str, list[Fact]] = {}
    for fact in facts:
        sharing.setdefault((fact.ground_truth or "").casefold(), []).append(fact)
    found: dict[str, list[Probe]] = {}
    turns: Counter[str] = Counter()
    for number, item in enumerate(source.items(tested, "success", "top level")):
        where = f'record {number} of "success" in the test file'
        record = source.object(item, where) or {}
        names = source.answers(record, "ground_truth", where) if record else ()
        old = names[0][0].casefold() if names else ""
        if not sharing.get(old):
            source.skip("probe", where, "no edit takes this answer away")
            continue
        own = sharing[old][turns[old] % len(sharing[old])]
        turns[old] += 1
        prompt = source.text(record, "question", where)
        probe = source.probe(prompt, ((own.target_new,),), where)
        if probe is not None:
            found.setdefault(own.id, []).append(probe)
    return {fact: tuple(probes) for fact, probes in found.items()}


def _kept_questions(source: Source, data: dict[str, Any], key: str) -> list[Probe]:
    found = []
    for number, item in enumerate(source.items(data, key, "top level")):
        where = f'record {number} of "{key}"'
        record = source.object(item, where)
        if record is None:
            continue
        # `target_new` repeats the answer in train files: these questions are to stay as they are.
        source.unread_keys(record, ("id", "question", "ground_truth", "target_new"))
        prompt = source.text(record, "question", where)
        probe = source.probe(prompt, source.answers(record, "ground_truth", where), where)
        if probe is not None:
            found.append(probe)
    return found
