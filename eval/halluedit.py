"""HalluEditBench (Huang et al. 2025, arXiv 2410.16251): tables of what a model said wrongly.

One CSV file a topic and model; `table` reads it, `halluedit_case` turns a row into a `Case`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from eval.records import Answers, Case, Probe, Source
from ske.types import UserError

FACT = {"prompt": "question", "subject": "subject", "target_new": "object"}
QUESTIONS = {
    "yes_question": "Yes",
    "no_question": "No",
    "multiple_choice_with_letters": "Multiple_Choice",
    "reversed_relation_question": "Reversed",
}
"""Column -> group of portability."""
HOPS = (2, 3, 4, 5, 6)
KEYS = (
    *("topic", "relation", "label", "multiple_choices", "multiple_choice_labels"),
    *FACT.values(),
    *("paraphrased_question", "locality_question", *QUESTIONS),
    *(f"{part}_{hops}hop" for hops in HOPS for part in ("question", "answer")),
)


def table(text: str, file: str) -> list[dict[str, Any]]:
    """The rows of a CSV text, by the names in its first line.

    Raises:
        UserError: it is not CSV, has no rows, or a row has more or fewer cells than names.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        lines = list(_numbered(reader))
    except csv.Error as error:
        raise UserError(
            f"{file} line {reader.line_num}: not CSV ({error}); mend the text there"
        ) from None
    (_, names), *rows = lines
    if not rows:
        raise UserError(f"{file}: no rows below the names {', '.join(names)}; check the file")
    for number, (line, row) in enumerate(rows):
        if len(row) != len(names):
            raise UserError(
                f"{file} line {line} (record {number}): {len(row)} cells for {len(names)} columns; "
                "mend the row"
            )
    return [dict(zip(names, row, strict=True)) for _, row in rows]


def _numbered(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV reader that are not empty, with the line of the file each begins in."""
    start = 1
    for row in reader:
        if row:
            yield start, row
        start = reader.line_num + 1


def halluedit_case(source: Source, record: dict[str, Any], where: str, number: int) -> Case | None:
    """A row: a fact that a model gets wrong, and questions of eleven kinds about it.

    Efficacy is the edit's own question. Of the authors' generalisation, the paraphrase is one
    here; the others (yes, no, choice, reversed) ask for something else than the target and are
    groups of portability, as are the hops. The old answer is what the model said. Robustness is no
    column: the authors ask yes and no questions again, "Are you sure?", for ten turns; here they
    are asked once. Locality questions, about the same subject, have no answers in the table: they
    are asked under the protocol `generate` alone.
    """
    said = [key for key in record if key.startswith("output_")]
    judged = [key for key in record if key.startswith("eval_")]
    source.unread_keys(record, (*KEYS, *said, *judged))
    made = {key: record[key] for key in FACT.values() if key in record}
    old = record[said[0]] if said else None
    fact = source.fact({**made, "ground_truth": old}, where, number, FACT)
    rephrased = source.text(record, "paraphrased_question", where)
    portability = _asked(source, record, where)
    near = _near(source, record, where)
    if fact is None:
        return None
    paraphrase = source.probe(rephrased, ((fact.target_new,),), f"{where}, paraphrased_question")
    return Case(
        fact=fact,
        paraphrase=(paraphrase,) if paraphrase else (),
        portability=portability,
        locality={"Same_Subject": near} if near else {},
        data=source.name,
    )


def _near(source: Source, record: dict[str, Any], where: str) -> tuple[Probe, ...]:
    prompt = source.text(record, "locality_question", where)
    if prompt == "":
        reason = "the probe is not used: its prompt is empty"
        source.skip("probe", f"{where}, locality_question", reason)
    return (Probe(prompt=prompt, answers=()),) if prompt else ()


def _asked(source: Source, record: dict[str, Any], where: str) -> dict[str, tuple[Probe, ...]]:
    """The questions whose answer is not the target, by group."""
    found: dict[str, Answers | None] = {
        "yes_question": (("Yes",),),
        "no_question": (("No",),),
        "multiple_choice_with_letters": source.answers(record, "multiple_choice_labels", where),
        "reversed_relation_question": source.answers(record, "subject", where),
    }
    kept: dict[str, tuple[Probe, ...]] = {}
    for key, group in QUESTIONS.items():
        prompt = source.text(record, key, where)
        if key == "multiple_choice_with_letters" and prompt:
            prompt = f"{record.get('question', '')} {prompt}"
        probe = source.probe(prompt, found[key], f"{where}, {key}")
        kept |= {group: (probe,)} if probe else {}
    for hops in HOPS:
        probes = source.pair(record, f"question_{hops}hop", f"answer_{hops}hop", where)
        kept |= {f"Multi_Hop_{hops}": probes} if probes else {}
    return kept
