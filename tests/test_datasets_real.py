"""The data sets beyond KnowEdit on their real files, found by name where `test_cases_real` looks.

None of them is part of the project; each test is skipped if its file is not there.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from eval.cases import Case, Loaded, load
from tests.test_cases_real import REAL, probes

QUESTIONS = ("zsre_3k.json", "QAEdit.json", "QAEdit_inter_1k.json", "final_data_v2.json")
WISE = (
    *("hallucination-edit.json", "hallucination-train.json"),
    *("temporal-edit.json", "temporal-train.json"),
)
MQUAKE = ("MQuAKE-T.json", "MQuAKE-CF-3k-v2.json", "MQuAKE-CF.json", "MQuAKE-hard.json")
RIPPLE = ("popular.json", "random.json", "recent.json")
HALLUEDIT = ("human_writer.csv", "places_city.csv")


def found(name: str) -> Path:
    paths = sorted(REAL.rglob(name)) if REAL.is_dir() else []
    if not paths:
        pytest.skip(f"no {name} below {REAL}; set SKE_REAL_DATA to check on it")
    return paths[0]


def read(name: str) -> tuple[list[Any], Loaded]:
    path = found(name)
    with path.open(encoding="utf-8", newline="") as file:
        data = list(csv.DictReader(file)) if path.suffix == ".csv" else json.load(file)
    return data, load(path)


def accounted(loaded: Loaded) -> int:
    """Probes that are used or counted as skipped."""
    skipped = sum(row.count for row in loaded.skipped if row.kind == "probe")
    return skipped + sum(len(probes(case)) for case in loaded.cases)


def keys_and_records(loaded: Loaded) -> list[str]:
    return [row.where for row in loaded.skipped if row.kind in ("record", "key")]


@pytest.mark.parametrize("name", QUESTIONS)
def test_questions_lose_nothing(name: str) -> None:
    data, loaded = read(name)
    assert len(loaded.cases) == len(data)
    assert not keys_and_records(loaded)
    raw = sum(
        1 + ("loc" in r) + len(r.get("locality", ())) + len(r.get("sub_question", ())) for r in data
    )
    assert accounted(loaded) == raw


@pytest.mark.parametrize("name", WISE)
def test_wise_loses_nothing(name: str) -> None:
    data, loaded = read(name)
    assert len(loaded.cases) == accounted(loaded) == len(data)
    assert all(case.fact.subject in case.fact.prompt for case in loaded.cases)
    assert not keys_and_records(loaded)


@pytest.mark.parametrize("name", HALLUEDIT)
def test_halluedit_loses_nothing(name: str) -> None:
    data, loaded = read(name)
    assert len(loaded.cases) == len(data)
    assert accounted(loaded) == 11 * len(data)
    assert not keys_and_records(loaded)


@pytest.mark.parametrize("name", MQUAKE)
def test_mquake_loses_nothing(name: str) -> None:
    data, loaded = read(name)
    edits = {
        (r["prompt"].replace("{}", r["subject"].strip()).strip(), r["target_new"]["str"].strip())
        for record in data
        for r in record["requested_rewrite"]
    }
    assert {(case.fact.prompt, case.fact.target_new) for case in loaded.cases} == edits
    assert len(loaded.cases) == len(edits)
    asked = [probe for case in loaded.cases for probe in case.portability.get("Multi_Hop", ())]
    left_out = sum(row.count for row in loaded.skipped if row.kind == "probe")
    assert len(asked) + left_out == sum(len(record["questions"]) for record in data)


@pytest.mark.parametrize("name", RIPPLE)
def test_rippleedits_loses_nothing(name: str) -> None:
    data, loaded = read(name)
    dropped = [row for row in loaded.skipped if row.kind == "record"]
    assert len(loaded.cases) + len(dropped) == len(data)
    assert len(dropped) < len(data) / 20
    assert all(_fits(case) for case in loaded.cases)
    raw = sum(
        len(test["test_queries"])
        for record in data
        for tests in record.values()
        if isinstance(tests, list)
        for test in tests
    )
    # The probes of a record that is not used go with it.
    assert raw * 0.9 < accounted(loaded) <= raw


def _fits(case: Case) -> bool:
    return bool(case.fact.target_new) and case.fact.subject in case.fact.prompt
