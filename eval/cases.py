"""The benchmark loader: reads a data set's file as its makers publish it, whatever its shape.

`load` recognises the shape from the records, and the data set from the file's name (nested folders
and flattened download names alike). Every probe and record that is not used is in `skipped`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from eval.counterfact import counterfact_case
from eval.halluedit import halluedit_case, table
from eval.knowedit import (
    SANITATION_KEYS,
    bio_case,
    sanitation_cases,
    sentiment_case,
    wiki_case,
)
from eval.longform import unke_case, wise_case
from eval.mquake import mquake_cases
from eval.questions import qaedit_case, zsre_case
from eval.records import Answers, Case, Kind, Loaded, Probe, Skipped, Source, answers
from eval.rippleedits import rippleedits_case
from ske.facts import Conflict, conflicts, parse_json, quoted, read_facts, read_text
from ske.types import UserError

ReadRecord = Callable[[Source, dict[str, Any], str, int], Case | None]

ReadList = Callable[[Source, list[Any]], list[Case]]

LIST_FORMS: dict[str, tuple[tuple[str, ...], ReadList]] = {
    "mquake": (("requested_rewrite", "questions", "new_answer"), mquake_cases),
}
"""Like `RECORD_FORMS`, for lists whose cases are not one a record."""

RECORD_FORMS: dict[str, tuple[tuple[str, ...], ReadRecord]] = {
    "ripple": (("edit", "Logical_Generalization"), rippleedits_case),
    "mend": (("src", "alt", "loc"), zsre_case),
    "qaedit": (("prompt", "target", "rephrase"), qaedit_case),
    "unke": (("question", "para_question", "sub_question"), unke_case),
    "halluedit": (("question", "object", "paraphrased_question"), halluedit_case),
    "temporal": (("prompt", "target_new", "ood_rephrase"), wise_case),
    "rome": (("requested_rewrite",), counterfact_case),
    "flat": (("prompt", "target_new", "locality_prompt"), counterfact_case),
    "bio": (("text", "labels"), bio_case),
    "sentiment": (("ent", "pos"), sentiment_case),
    "wiki": (("prompt", "target_new"), wiki_case),
    "hallucination": (("prompt", "target_new", "locality_prompt"), wise_case),
}
"""Form -> the keys that tell it, and the reader of its records.

The first that fits is taken, those that the file's name tells before all others: "hallucination"
has the keys of "flat", and is told by the name alone.
"""

KEYS = {form: keys for form, (keys, _) in (*LIST_FORMS.items(), *RECORD_FORMS.items())}

SANITATION = "sanitation"


class Known(NamedTuple):
    """A data set that we know by name."""

    name: str
    pattern: str
    """What the name of its file looks like, in lower case."""
    forms: tuple[str, ...]
    description: str


KNOWN = (
    Known(
        "wiki_counterfact",
        r"(train|val|test)_cf\.json$",
        ("wiki",),
        "KnowEdit: false facts about Wikidata entities; portability and locality probes "
        "(..._test_cf.json, ..._train_cf.json)",
    ),
    Known(
        "wiki_recent",
        r"recent_(train|val|test)\.json$",
        ("wiki",),
        "KnowEdit: recent Wikidata facts; portability and locality probes (..._recent_test.json)",
    ),
    Known(
        "zsre",
        r"zsre-(train|val|test)[^/]*\.json$",
        ("wiki",),
        "KnowEdit: questions with new answers; paraphrase, portability and locality probes "
        "(...ZsRE-test-all.json)",
    ),
    Known(
        "wikibio",
        r"wikibio-(train|val|test)[^/]*\.json$",
        ("bio",),
        "KnowEdit: sentences that mend invented biographies; locality probes "
        "(...wikibio-test-all.json)",
    ),
    Known(
        "convsent",
        r"blender_(train|val|test)\.json$",
        ("sentiment",),
        "KnowEdit: opinions about entities, for or against; no probes (...blender_test.json)",
    ),
    Known(
        SANITATION,
        r"trivia_qa_(train|val|test)\.json$",
        (SANITATION,),
        "KnowEdit: answers to forget, and questions whose answers stay (...trivia_qa_test.json)",
    ),
    Known(
        "counterfact",
        r"counterfact[^/]*\.json$",
        ("flat", "rome"),
        "CounterFact: ROME's own file or the flat one; paraphrases and neighbours "
        "(counterfact*.json)",
    ),
    Known(
        "zsre_mend",
        r"zsre_[^/]*\.json$",
        ("mend",),
        "zsRE as MEND's authors cut it: a paraphrase and an unrelated question each "
        "(zsre_mend_eval.json)",
    ),
    Known(
        "mquake",
        r"mquake[^/]*\.json$",
        ("mquake",),
        "MQuAKE: questions several hops away from an edit; those that need several edits are "
        "counted, not asked (MQuAKE-T.json, MQuAKE-CF-3k-v2.json)",
    ),
    Known(
        "rippleedits",
        r"(recent|random|popular)\.json$",
        ("ripple",),
        "RippleEdits: what follows from an edit and what stays; tests whose conditions need a "
        "model are counted, not asked (popular.json, random.json, recent.json)",
    ),
    Known(
        "qaedit",
        r"qaedit[^/]*\.json$",
        ("qaedit",),
        "QAEdit: questions of three QA sets; paraphrase and unrelated questions (QAEdit.json)",
    ),
    Known(
        "halluedit",
        r"[a-z]+_[a-z_]+\.csv$",
        ("halluedit",),
        "HalluEditBench: what one model gets wrong about a topic; paraphrase, choice, reversed and "
        "2 to 6 hop questions (hallucination_final/MODEL/TOPIC.csv)",
    ),
    Known(
        "wise_hallucination",
        r"hallucination-(train|edit)[^/]*\.json$",
        ("hallucination",),
        "WISE: sentences that mend invented biographies; web text stays (hallucination-edit.json)",
    ),
    Known(
        "wise_temporal",
        r"temporal-(train|edit)[^/]*\.json$",
        ("temporal",),
        "WISE: descriptions of things newer than the model; web text stays (temporal-edit.json)",
    ),
    Known(
        "unke",
        r"(final_data_v\d+|unke[^/]*)\.json$",
        ("unke",),
        "UnKE: long answers to questions; paraphrase and sub-questions (final_data_v3.json)",
    ),
)


def datasets() -> list[tuple[str, str]]:
    """Name and description of each form that `load` reads."""
    own = [
        ("world", "The embedded world, or any .json list of records in KnowEdit's wiki shape"),
        ("facts", "Plain facts without probes (.jsonl: prompt, subject, target_new)"),
    ]
    return [*((known.name, known.description) for known in KNOWN), *own]


def load(path: Path, limit: int | None = None) -> Loaded:
    """Read the first `limit` cases of a data set's file, or all of them.

    Raises:
        UserError: the file cannot be read, has no known shape, or has wrong records; up to 20 are
            listed.
    """
    path = Path(path)
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit!r}; it must be 1 or more, or null for all cases")
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        facts = read_facts(path)[:limit]
        return Loaded([Case(fact=fact, data=path.stem) for fact in facts], [], path.stem)
    if suffix in (".json", ".csv") or not path.exists() or path.is_dir():
        text = read_text(path)
        data: Any = table(text, path.name) if suffix == ".csv" else parse_json(text, path.name)
        form = _form(path, data)
        known = _known(path)
        source = Source(path, known.name if known and form in known.forms else path.stem)
        if form == SANITATION:
            return source.finish(sanitation_cases(source, data)[:limit])
        if form in LIST_FORMS:
            return source.finish(LIST_FORMS[form][1](source, data)[:limit])
        return source.finish(_read_list(source, data, RECORD_FORMS[form][1], limit))
    raise UserError(f"{path} is neither a .json or .csv data set nor a .jsonl file of facts")


def _read_list(source: Source, data: list[Any], read: ReadRecord, limit: int | None) -> list[Case]:
    cases: list[Case] = []
    for number, item in enumerate(data):
        if limit is not None and len(cases) >= limit:
            break
        where = f"record {number}"
        record = source.object(item, where)
        case = read(source, record, where, number) if record is not None else None
        if case is not None:
            cases.append(case)
    return cases


def _known(path: Path) -> Known | None:
    """The data set that the file's name tells."""
    found = (known for known in KNOWN if re.search(known.pattern, path.name.lower()))
    return next(found, None)


def _form(path: Path, data: Any) -> str:
    """The form of the records: told by their keys, else by the file's name.

    The name alone counts if no record has the keys, so that the message names the missing ones.
    """
    named = _known(path)
    forms = named.forms if named else ()
    if isinstance(data, dict):
        if any(set(keys) <= set(data) for keys in SANITATION_KEYS):
            return SANITATION
        wanted = " or ".join(" and ".join(f'"{key}"' for key in keys) for keys in SANITATION_KEYS)
        raise UserError(
            f"{path.name}: an object with the keys {quoted(list(data))}; a data set is a list of "
            f"records, or an object with the keys {wanted}"
        )
    if not isinstance(data, list) or not data:
        raise UserError(f"{path.name}: {quoted(data)} is not a list of records; check the file")
    told = [form for form in forms if form in KEYS]
    records = [set(item) for item in data if isinstance(item, dict)]
    for among in (told, KEYS):
        for keys in records:
            for form in among:
                if set(KEYS[form]) <= keys:
                    return form
    if told:
        return told[0]
    shapes = "; ".join(dict.fromkeys(" + ".join(keys) for keys in KEYS.values()))
    first = list(data[0]) if isinstance(data[0], dict) else data[0]
    raise UserError(
        f"{path.name}: no known shape; record 0 has {quoted(first)}, known records have one of: "
        f"{shapes}"
    )


__all__ = [
    "Answers",
    "Case",
    "Conflict",
    "Kind",
    "Loaded",
    "Probe",
    "Skipped",
    "answers",
    "conflicts",
    "datasets",
    "load",
]
