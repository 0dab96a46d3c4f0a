"""MQuAKE (Zhong et al. 2023, arXiv 2305.14795): edits, and questions several hops away from them.

A record holds one edit or more and three wordings of a question that needs all of them. A case is
one edit, so:

- Every edit of every record becomes a case, once: records share edits (MQuAKE-T has 96 in 1,825
  records), and an edit brings the questions of all its records along. Its own question form is
  its paraphrase.
- Questions of records with one edit are portability, "Multi_Hop". Each wording is a probe; the
  authors count a record as right if one of three is.
- Questions that need several edits at once are not asked, because nothing here promises that the
  others are made too (`edits.limit` draws single cases). They are counted in `skipped`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from eval.records import Case, Probe, Source
from ske.types import Fact

KEYS = (
    *("case_id", "requested_rewrite", "questions", "new_answer", "new_answer_alias"),
    *("new_single_hops", "single_hops", "answer", "answer_alias", "answer_extended", "orig"),
)
REWRITE_KEYS = ("prompt", "relation_id", "target_new", "target_true", "subject", "question")
HOP_KEYS = ("question", "cloze", "answer", "answer_alias")


@dataclass
class Edited:
    """One edit, and the probes that all its records add; a dict, because records repeat them."""

    fact: Fact
    paraphrase: dict[str, Probe] = field(default_factory=dict)
    questions: dict[str, Probe] = field(default_factory=dict)


def mquake_cases(source: Source, data: list[Any]) -> list[Case]:
    """The cases of a whole file: one an edit, in the order in which they first occur."""
    edits: dict[tuple[str, str], Edited] = {}
    for number, item in enumerate(data):
        record = source.object(item, f"record {number}")
        if record is not None:
            _read(source, record, f"record {number}", number, edits)
    return [
        Case(
            fact=edit.fact,
            paraphrase=tuple(edit.paraphrase.values()),
            portability={"Multi_Hop": tuple(edit.questions.values())} if edit.questions else {},
            data=source.name,
        )
        for edit in edits.values()
    ]


def _read(
    source: Source,
    record: dict[str, Any],
    where: str,
    number: int,
    edits: dict[tuple[str, str], Edited],
) -> None:
    """Add the edits and the questions of one record."""
    source.unread_keys(record, KEYS)
    name = _name(source, record, where, number)
    rewrites = source.filled(record, "requested_rewrite", where)
    hops = _hops(source, record, where, len(rewrites))
    made: list[Edited | None] = []
    for place, item in enumerate(rewrites):
        at = f"{where}, requested_rewrite {place}"
        part = f"{name}-{place}" if len(rewrites) > 1 else name
        made.append(_rewrite(source, item, at, part, hops, edits))
    asked = _questions(source, record, where, len(rewrites))
    if len(made) == 1 and made[0] is not None:
        known = made[0].questions
        again = [probe for probe in asked if known.setdefault(probe.prompt, probe) is not probe]
        source.skip_all("probe", "questions", "asked already, after the same edit", len(again))
    elif len(made) == 1 and asked:
        source.skip_all("probe", "questions", "their edit is not used", len(asked))


def _name(source: Source, record: dict[str, Any], where: str, number: int) -> str:
    value = record.get("case_id")
    if value is not None and not isinstance(value, int):
        source.wrong(where, "case_id", f"{value!r} is not a whole number")
        return f"{source.name}-{number:04d}"
    return f"{source.name}-{number if value is None else value:04d}"


def _rewrite(
    source: Source,
    item: Any,
    where: str,
    name: str,
    hops: dict[str, tuple[str, ...]],
    edits: dict[tuple[str, str], Edited],
) -> Edited | None:
    """The edit that a rewrite asks for, new or met before; None if it is wrong or empty."""
    rewrite = source.object(item, where)
    if rewrite is None:
        return None
    source.unread_keys(rewrite, REWRITE_KEYS)
    flat = {key: rewrite[key] for key in ("prompt", "subject") if key in rewrite}
    for key, to in (("target_new", "target_new"), ("target_true", "ground_truth")):
        value = rewrite.get(key)
        flat |= {to: value["str"] if isinstance(value, dict) and "str" in value else value}
    if isinstance(flat.get("prompt"), str) and isinstance(flat.get("subject"), str):
        flat["prompt"] = flat["prompt"].replace("{}", flat["subject"].strip())
    question = source.text(rewrite, "question", where)
    fact = source.fact({**flat, "id": name}, where, 0)
    if fact is None:
        return None
    edit = edits.setdefault((fact.prompt, fact.target_new), Edited(fact))
    aliases = dict.fromkeys((fact.target_new, *hops.get(question or "", ())))
    probe = source.probe(question, (tuple(aliases),), f"{where}, question")
    if probe is not None:
        edit.paraphrase[probe.prompt] = probe
    return edit


def _hops(
    source: Source, record: dict[str, Any], where: str, edited: int
) -> dict[str, tuple[str, ...]]:
    """Question of each step of the edited chain -> the aliases of its answer."""
    steps: dict[str, tuple[str, ...]] = {}
    found = source.filled(record, "new_single_hops", where)
    for place, item in enumerate(found):
        at = f"{where}, new_single_hops {place}"
        hop = source.object(item, at)
        if hop is None:
            continue
        source.unread_keys(hop, HOP_KEYS)
        question = source.text(hop, "question", at)
        names = source.names(hop, "answer_alias", at)
        if question and names is not None:
            steps[question] = names
    reason = "steps that the record does not edit, and that another record may"
    source.skip_all("text", "new_single_hops", reason, max(len(found) - edited, 0))
    return steps


def _questions(source: Source, record: dict[str, Any], where: str, edited: int) -> Sequence[Probe]:
    """The questions of a record with one edit."""
    asked = source.filled(record, "questions", where)
    if edited > 1:
        reason = f"they need {edited} edits at once, and a case is one edit"
        source.skip_all("probe", "questions", reason, len(asked))
        return ()
    answer = source.text(record, "new_answer", where)
    aliases = source.names(record, "new_answer_alias", where)
    if answer is None or aliases is None:
        return ()
    names = dict.fromkeys(name for name in (answer, *aliases) if name)
    found = (tuple(names),) if names else ()
    return source.probes(asked, f"{where}, questions", found)
