"""Sets of questions with one unrelated question or more beside each: MEND's zsRE, and QAEdit.

Each function turns one record of a parsed file into a `Case`.
"""

from __future__ import annotations

from typing import Any

from eval.counterfact import hop
from eval.records import Case, Probe, Source

UNRELATED = "Unrelated"
"""Locality probes about anything: they share neither subject nor relation with the edit."""

ZSRE_FACT = {"prompt": "src", "subject": "subject", "target_new": "alt"}
ZSRE_KEYS = (
    *("id", "case_id", "subject", "src", "pred", "alt", "answers", "rephrase"),
    *("loc", "loc_ans", "cond", "portability"),
)
QAEDIT_FACT = {"prompt": "prompt", "subject": "subject", "target_new": "target"}
QAEDIT_KEYS = ("id", "source", "prompt", "subject", "target", "rephrase", "locality")


def zsre_case(source: Source, record: dict[str, Any], where: str, number: int) -> Case | None:
    """A record of zsRE as MEND's authors cut it (Mitchell et al. 2022, arXiv 2110.11309).

    The target is `alt`, as for MEND and EasyEdit; ROME's own loader takes the true answer, the
    first of `answers`, which is the old answer here. `pred` and `cond` say what another model
    answered: not used. `loc` keeps its "nq question: ". EasyEdit's file with a question one hop
    away (`portability`) is read too.
    """
    source.unread_keys(record, ZSRE_KEYS)
    old = source.answers(record, "answers", where)
    fact = source.fact({**record, "ground_truth": old}, where, number, ZSRE_FACT)
    rephrased = source.text(record, "rephrase", where)
    away = hop(source, record, where)
    near = source.pair(record, "loc", "loc_ans", where)
    if fact is None:
        return None
    paraphrase = source.probe(rephrased, ((fact.target_new,),), f"{where}, rephrase")
    return Case(
        fact=fact,
        paraphrase=(paraphrase,) if paraphrase else (),
        portability={"Reasoning": away} if away else {},
        locality={UNRELATED: near} if near else {},
        data=source.name,
    )


def qaedit_case(source: Source, record: dict[str, Any], where: str, number: int) -> Case | None:
    """A record of QAEdit (Yang et al. 2025, arXiv 2502.11177): a question of an open QA set.

    A record has five unrelated questions; the authors' script asks the first, we ask all. The old
    answer is not in the file. An `id` counts within its QA set, so that both make the name.
    """
    source.unread_keys(record, QAEDIT_KEYS)
    named = source.text(record, "id", where) if record.get("id") is not None else ""
    origin = source.text(record, "source", where) if record.get("source") is not None else ""
    parts = [source.name, origin, named or f"{number:04d}"]
    made = {**record, "id": "-".join(part for part in parts if part)}
    fact = source.fact(made, where, number, QAEDIT_FACT)
    rephrased = source.text(record, "rephrase", where)
    near: list[Probe] = []
    for place, item in enumerate(source.filled(record, "locality", where)):
        at = f"{where}, locality probe {place}"
        found = source.object(item, at)
        if found is not None:
            source.unread_keys(found, ("loc", "loc_ans"))
            near += source.pair(found, "loc", "loc_ans", at)
    if fact is None:
        return None
    paraphrase = source.probe(rephrased, ((fact.target_new,),), f"{where}, rephrase")
    return Case(
        fact=fact,
        paraphrase=(paraphrase,) if paraphrase else (),
        locality={UNRELATED: tuple(near)} if near else {},
        data=source.name,
    )
