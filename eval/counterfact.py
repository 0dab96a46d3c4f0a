"""CounterFact's record shapes: ROME's own (`requested_rewrite`) and the flat one.

`counterfact_case` turns one record of a parsed file into a `Case`.
"""

from __future__ import annotations

from typing import Any

from eval.knowedit import wiki_case
from eval.records import Answers, Case, Probe, Source
from ske.types import Fact

NOT_PROBES = {
    "attribute_prompts": "prompts about things that have the new target: no answer of their own",
    "generation_prompts": "openings for free text: no answer of their own",
}
PROMPT_LISTS = ("paraphrase_prompts", "neighborhood_prompts", *NOT_PROBES)
KEYS = ("case_id", "id", "pararel_idx", "requested_rewrite", "portability", *PROMPT_LISTS)
REWRITE_KEYS = ("prompt", "relation_id", "target_new", "target_true", "subject")
HOP_KEYS = ("New Question", "New Answer", "Recalled Relation")


def counterfact_case(
    source: Source, record: dict[str, Any], where: str, number: int
) -> Case | None:
    """A record of CounterFact in either shape.

    In ROME's, paraphrases are answered by the new target, neighborhood prompts by the old one.
    """
    if "requested_rewrite" not in record:
        return wiki_case(source, record, where, number)
    source.unread_keys(record, KEYS)
    fact, true = _rewrite(source, record, where, number)
    portability = hop(source, record, where)
    lists = {key: source.items(record, key, where) for key in PROMPT_LISTS}
    for key, reason in NOT_PROBES.items():
        source.skip_all("text", key, reason, len(lists[key]))
    if fact is None or true is None:
        return None
    place = f"{where}, neighborhood_prompts"
    near = source.probes(lists["neighborhood_prompts"], place, true)
    place = f"{where}, paraphrase_prompts"
    return Case(
        fact=fact,
        paraphrase=source.probes(lists["paraphrase_prompts"], place, ((fact.target_new,),)),
        portability={"Reasoning": portability} if portability else {},
        locality={"Neighborhood": near} if near else {},
        data=source.name,
    )


def _rewrite(
    source: Source, record: dict[str, Any], where: str, number: int
) -> tuple[Fact | None, Answers | None]:
    """The fact, and the true answer that its neighbours share."""
    place = f"{where}, requested_rewrite"
    rewrite = source.object(record["requested_rewrite"], where, "requested_rewrite")
    if rewrite is None:
        return None, None
    source.unread_keys(rewrite, REWRITE_KEYS)
    flat = {key: rewrite[key] for key in ("prompt", "subject") if key in rewrite}
    for key in ("target_new", "target_true"):
        value = rewrite.get(key)
        if isinstance(value, dict) and "str" in value:
            flat[key] = value["str"]
        elif value is not None:
            flat[key] = value
    if isinstance(flat.get("prompt"), str) and isinstance(flat.get("subject"), str):
        flat["prompt"] = flat["prompt"].replace("{}", flat["subject"].strip())
    true = source.answers(flat, "target_true", place)
    named = {key: record[key] for key in ("id", "case_id") if key in record}
    fact = source.fact({**flat, **named, "ground_truth": flat.get("target_true")}, place, number)
    return fact, true


def hop(source: Source, record: dict[str, Any], where: str) -> tuple[Probe, ...]:
    """The question one hop away that the portability set adds to a record, if there is one."""
    if record.get("portability") is None:
        return ()
    found = source.object(record["portability"], where, "portability")
    if not found:
        return ()
    source.unread_keys(found, HOP_KEYS)
    return source.pair(found, "New Question", "New Answer", f"{where}, portability")
