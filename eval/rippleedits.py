"""RippleEdits (Cohen et al. 2024, TACL, arXiv 2307.12976): what follows from an edit, what stays.

`rippleedits_case` turns one record of recent.json, random.json or popular.json into a `Case`.

A test has questions, and conditions: questions that the unedited model must answer rightly, or
the test does not count. Nothing here asks a model, so:

- Tests without conditions are used.
- Tests of what stays (Relation_Specificity, Forgetfulness) are used if their only conditions are
  their own questions: locality here is agreement with the unedited model's own answer, whatever
  that is.
- All other tests are counted in `skipped`, by group. Those are nearly all of Compositionality_I
  and _II, whose conditions are facts about other entities, and of Subject_Aliasing, whose
  conditions ask the unedited model for the new target.

The authors want all answers of a list in a reply, and each as a part of it; here any one counts,
in whole words. Like the authors, one-letter aliases that are no digits are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from eval.records import Answers, Case, Probe, Source
from eval.ripplewording import cuts
from ske.facts import quoted

PORTABILITY = (
    *("Logical_Generalization", "Compositionality_I", "Compositionality_II", "Subject_Aliasing"),
)
LOCALITY = ("Relation_Specificity", "Forgetfulness")
SPELLINGS = {"Relation_Specifity": "Relation_Specificity", "Preservation": "Forgetfulness"}
"""The README's spelling of one group, the paper's name of another."""
EDIT_KEYS = ("prompt", "subject_id", "relation", "target_id", "original_fact")
TEST_KEYS = ("test_queries", "test_condition", "condition_queries")
QUERY_KEYS = (
    *("prompt", "answers", "query_type", "subject_id", "relation", "target_ids", "phrase"),
    *("second_relation", "second_hop_target_ids"),
)


def rippleedits_case(
    source: Source, record: dict[str, Any], where: str, number: int
) -> Case | None:
    """A record: an edit as a sentence with identifiers, and six groups of tests.

    Subject and target are cut out of the sentence by the relation's wording. A record whose
    sentence can be cut in several ways is settled by the subject's name in its other sentences.
    """
    spelt = {key: name for key, name in SPELLINGS.items() if name not in record}
    record = {spelt.get(key, key): value for key, value in record.items()}
    source.unread_keys(record, ("example_type", "edit", *PORTABILITY, *LOCALITY))
    edit = source.object(record.get("edit"), where, "edit")
    cut = _cut(source, edit, record, f"{where}, edit") if edit is not None else None
    portability = _groups(source, record, PORTABILITY, where, stays=False)
    locality = _groups(source, record, LOCALITY, where, stays=True)
    fact = source.fact(cut, f"{where}, edit", number) if cut is not None else None
    if fact is None:
        return None
    return Case(fact=fact, portability=portability, locality=locality, data=source.name)


# --- the sentence of an edit ------------------------------------------------------------------


def _cut(
    source: Source, edit: dict[str, Any], record: dict[str, Any], where: str
) -> dict[str, Any] | None:
    """Prompt, subject, new and old target of an edit; None if its sentence cannot be cut."""
    source.unread_keys(edit, EDIT_KEYS)
    sentence = source.text(edit, "prompt", where)
    relation = source.text(edit, "relation", where)
    if sentence is None or relation is None:
        return None
    others = [text for text in _prompts(record) if text != edit["prompt"]]
    ways = list(cuts(sentence, relation))
    if len(ways) > 1:
        ways = [way for way in ways if way.subject and any(way.subject in t for t in others)]
    if not ways:
        reason = f"the subject and the target of {quoted(sentence)} cannot be told apart"
        source.skip("record", where, f"the record is not used: {reason}")
        return None
    prompt, subject, target = max(ways, key=lambda way: len(way.subject))
    made = {"prompt": prompt, "subject": subject, "target_new": target}
    old = edit.get("original_fact")
    if old is None or (old := source.object(old, where, "original_fact")) is None:
        return made
    true = source.text(old, "prompt", f"{where}, original_fact")
    if true is not None and true.startswith(f"{prompt} "):
        made["ground_truth"] = true.removeprefix(f"{prompt} ").removesuffix(".")
    return made


def _prompts(value: Any) -> Iterator[str]:
    """Every text at a key "prompt", however deep."""
    if isinstance(value, dict):
        if isinstance(value.get("prompt"), str):
            yield value["prompt"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _prompts(item)


# --- tests ------------------------------------------------------------------------------------


def _groups(
    source: Source, record: dict[str, Any], names: tuple[str, ...], where: str, *, stays: bool
) -> dict[str, tuple[Probe, ...]]:
    kept: dict[str, tuple[Probe, ...]] = {}
    for name in names:
        found: list[Probe] = []
        for number, item in enumerate(source.listed(record, name, where)):
            at = f"{where}, {name} test {number}"
            test = source.object(item, at)
            found += _test(source, test, name, at, stays=stays) if test is not None else ()
        if found:
            kept[name] = tuple(found)
    return kept


def _test(
    source: Source, test: dict[str, Any], group: str, where: str, *, stays: bool
) -> tuple[Probe, ...]:
    """The probes of a test, or nothing if it needs a model or means several questions at once."""
    source.unread_keys(test, TEST_KEYS)
    queries = source.filled(test, "test_queries", where)
    conditions = source.listed(test, "condition_queries", where)
    mode = source.text(test, "test_condition", where)
    if mode is not None and mode not in ("OR", "AND"):
        source.wrong(where, "test_condition", f"{quoted(mode)} is neither OR nor AND")
    if conditions and not (stays and all(asked in queries for asked in conditions)):
        reason = "its test counts only if the unedited model answers its conditions rightly"
        source.skip_all("probe", group, reason, len(queries))
        return ()
    if len(queries) > 1 and mode == "OR" and not stays:
        reason = "its test is passed by any one of several questions"
        source.skip_all("probe", group, reason, len(queries))
        return ()
    kept = [_probe(source, query, f"{where}, query {i}") for i, query in enumerate(queries)]
    return tuple(probe for probe in kept if probe is not None)


def _probe(source: Source, item: Any, where: str) -> Probe | None:
    query = source.object(item, where)
    if query is None:
        return None
    source.unread_keys(query, QUERY_KEYS)
    prompt = source.text(query, "prompt", where)
    return source.probe(prompt, _answers(source, query, where), where)


def _answers(source: Source, query: dict[str, Any], where: str) -> Answers | None:
    """One answer an entity, with its aliases; None if one is wrong."""
    found: list[tuple[str, ...] | None] = []
    for number, item in enumerate(source.listed(query, "answers", where)):
        at = f"{where}, answer {number}"
        entity = source.object(item, at)
        if entity is None:
            return None
        source.unread_keys(entity, ("value", "aliases"))
        value = source.text(entity, "value", at)
        aliases = source.names(entity, "aliases", at)
        if value is None or aliases is None:
            return None
        names = [name for name in (value, *aliases) if name]
        long = tuple(name for name in names if len(name) > 1 or name.isdigit())
        source.skip_all("text", "answers", "names of one letter", len(names) - len(long))
        found.append(long)
    return tuple(names for names in found if names)
