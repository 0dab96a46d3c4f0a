"""The main toolkit's evaluation of edits, record by record, and ours of the same probes.

Its scoring functions under teacher forcing, unchanged. Each record's groups of probes are a batch
there; ours takes all probes of all records together. On GPT-2 a padded probe is read at shifted
positions there (docs/evaluation.md), so scores are compared on the Llama alone.
"""

from __future__ import annotations

import typing
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import torch

from bench.authors.excerpt import excerpt
from bench.authors.models import toy
from bench.row import Row
from bench.timing import Work, paired
from eval.ask import Answer, Item, answer, items
from eval.records import Case
from pipeline.facts import load_cases
from ske.backends.local import LocalLM
from ske.config import DataConfig, EditsConfig

RECORDS = 64
ALIKE = "llama"
PLACES = {"edit_success": "rewrite", "paraphrase": "rephrase"}


def evaluation(folder: Path, kind: str, scratch: Path) -> Row:
    """Records a second on one model."""
    lm = toy(kind)
    read = load_cases(DataConfig(), "world", EditsConfig(), scratch).cases[:RECORDS]
    # Theirs asks for one paraphrase, and does not know our harder probes.
    cases = [
        case.model_copy(update={"paraphrase": case.paraphrase[:1], "hard": {}}) for case in read
    ]
    asked = list(enumerate(items(cases)))
    theirs = _theirs(folder)
    found = paired(
        Work(lambda: answer(lm, asked, ["teacher_forced"], 1, before=[]), len(cases)),
        Work(lambda: [_evaluated(theirs, lm, case) for case in cases], len(cases)),
    )
    differ = _differing(asked, *found.gave) if kind == ALIKE else 0
    wrong = f"{differ} probes differ" if differ else ""
    what = f"evaluation, {kind}: {len(asked)} probes of {len(cases)} records"
    return Row(what, *found.rates("records"), found.ratios, at_least=1, wrong=wrong)


def _theirs(folder: Path) -> dict[str, Any]:
    at = folder / "easyeditor"
    scope: dict[str, Any] = {
        "np": numpy, "torch": torch, "typing": typing, "LORA": type("LORA", (), {}),
    }  # fmt: skip
    excerpt(at / "util" / "device.py", {"normalize_device"}, scope)
    excerpt(at / "evaluate" / "metric_meta.py", (), scope)
    excerpt(at / "evaluate" / "evaluate_utils.py", {"test_prediction_acc", "slice_list"}, scope)
    functions = {
        "compute_edit_quality", "compute_rewrite_or_rephrase_quality",
        "compute_locality_quality", "compute_portability_quality",
    }  # fmt: skip
    excerpt(at / "evaluate" / "evaluate.py", functions, scope)
    return scope


def _evaluated(scope: dict[str, Any], lm: LocalLM, case: Case) -> dict[str, Any]:
    settings = SimpleNamespace(alg_name="ROME", max_length=40)
    return scope["compute_edit_quality"](
        lm.model, lm.name, settings, lm.tokenizer, _record(case), "cpu"
    )


def _record(case: Case) -> dict[str, Any]:
    """A case in the toolkit's shape; it takes the first alias of the first answer."""

    def group(probes: Any) -> dict[str, list[str]]:
        return {
            "prompt": [probe.prompt for probe in probes],
            "ground_truth": [probe.answers[0][0] for probe in probes],
        }

    return {
        "prompt": case.fact.prompt,
        "target_new": case.fact.target_new,
        "ground_truth": case.fact.ground_truth,
        "rephrase_prompt": case.paraphrase[0].prompt,
        "portability": {name: group(probes) for name, probes in case.portability.items()},
        "locality": {name: group(probes) for name, probes in case.locality.items()},
    }


def _differing(
    asked: Sequence[tuple[int, Item]], mine: Sequence[Answer], published: Sequence[dict[str, Any]]
) -> int:
    """Probes with another score, or for locality other tokens, which are what it compares there."""
    by_case = dict(zip(dict.fromkeys(item.case for _, item in asked), published, strict=True))
    pairs = [
        (_own(item, own), _said(item, by_case[item.case]))
        for (_, item), own in zip(asked, mine, strict=True)
    ]
    return sum(len(one) != len(other) or not numpy.allclose(one, other) for one, other in pairs)


def _own(item: Item, own: Answer) -> Sequence[float]:
    if item.metric == "locality":
        return own.argmax
    equal = [one == other for one, other in zip(own.target, own.argmax, strict=True)]
    return [sum(equal) / len(equal)]


def _said(item: Item, result: dict[str, Any]) -> Sequence[float]:
    if item.metric == "locality":
        return result["locality"][f"{item.category}_output"][item.probe]
    if item.metric == "portability":
        return [result["portability"][f"{item.category}_acc"][item.probe]]
    return [result[f"{PLACES[item.metric]}_acc"][item.probe]]
