"""Sets whose targets are sentences or whole passages: WISE's two sets, and UnKE.

Each function turns one record of a parsed file into a `Case`.
"""

from __future__ import annotations

from typing import Any

from eval.questions import UNRELATED
from eval.records import Case, Probe, Source

WISE_KEYS = (
    *("id", "case_id", "prompt", "subject", "target_new", "ood_rephrase"),
    *("locality_prompt", "locality_ground_truth"),
)
UNKE_FACT = {"prompt": "question", "subject": "question", "target_new": "answer"}
UNKE_KEYS = ("id", "question", "para_question", "answer", "sub_question", "sub_answer")


def wise_case(source: Source, record: dict[str, Any], where: str, number: int) -> Case | None:
    """A record of WISE's sets (Wang et al. 2024, arXiv 2405.14768): hallucination or temporal.

    Hallucination: an opening about a person (SelfCheckGPT's WikiBio) and the sentence that is to
    follow. Temporal: a name and a description. Locality probes are pieces of web text, to be gone
    on with. The authors score by perplexity (hallucination) or token accuracy; `ood_rephrase`,
    text about the name from elsewhere, is no answer to a prompt of its own and is not asked.
    """
    source.unread_keys(record, WISE_KEYS)
    fact = source.fact(record, where, number)
    near = source.pair(record, "locality_prompt", "locality_ground_truth", where)
    if "ood_rephrase" in record:
        source.text(record, "ood_rephrase", where)
        reason = "text about the subject, no prompt with an answer: its authors measure perplexity"
        source.skip_all("text", "ood_rephrase", reason, 1)
    if fact is None:
        return None
    return Case(fact=fact, locality={UNRELATED: near} if near else {}, data=source.name)


def unke_case(source: Source, record: dict[str, Any], where: str, number: int) -> Case | None:
    """A record of UnKE (Deng et al. 2024, arXiv 2405.15349): a question and a long answer.

    The sub-questions ask for single parts of the long answer. A record names no subject: its whole
    question stands for it. The authors score by overlap of words, ROUGE and embeddings; whether a
    reply holds a long answer word for word says little.
    """
    source.unread_keys(record, UNKE_KEYS)
    fact = source.fact(record, where, number, UNKE_FACT)
    rephrased = source.text(record, "para_question", where)
    parts = _parts(source, record, where)
    if fact is None:
        return None
    paraphrase = source.probe(rephrased, ((fact.target_new,),), f"{where}, para_question")
    return Case(
        fact=fact,
        paraphrase=(paraphrase,) if paraphrase else (),
        portability={"Sub_Questions": parts} if parts else {},
        data=source.name,
    )


def _parts(source: Source, record: dict[str, Any], where: str) -> tuple[Probe, ...]:
    asked = source.filled(record, "sub_question", where)
    told = source.listed(record, "sub_answer", where)
    if len(asked) != len(told):
        problem = f"{len(told)} answers for {len(asked)} questions; write one for each"
        source.wrong(where, "sub_answer", problem)
        return ()
    kept: list[Probe] = []
    for number, (question, answer) in enumerate(zip(asked, told, strict=True)):
        pair = {"sub_question": question, "sub_answer": answer}
        kept += source.pair(pair, "sub_question", "sub_answer", f"{where}, part {number}")
    return tuple(kept)
