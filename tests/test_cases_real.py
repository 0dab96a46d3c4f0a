"""The benchmark loader on the data sets' real files, which are not part of the project.

They are found at `../shared/data` from the project's root, or where SKE_REAL_DATA says.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from eval.cases import Case, Loaded, Probe, conflicts, load

REAL = Path(os.environ.get("SKE_REAL_DATA") or Path(__file__).parents[2] / "shared" / "data")
real = pytest.mark.skipif(
    not REAL.is_dir(), reason=f"no real data at {REAL}; set SKE_REAL_DATA to check on it"
)
COUNTS = {
    "knowedit/wiki_counterfact/train_cf.json": 1428,
    "knowedit/wiki_counterfact/test_cf.json": 885,
    "knowedit/wiki_recent/recent_train.json": 570,
    "knowedit/WikiBio/wikibio-train-all.json": 464,
    "knowedit/Convsent/blender_val.json": 799,
    "knowedit/trivia/trivia_qa_train.json": 80,
    "counterfact/counterfact-val.json": 1919,
    "counterfact/counterfact_portability_gpt4.json": 1031,
}


def probes(case: Case) -> list[Probe]:
    groups = [*case.portability.values(), *case.locality.values()]
    return [*case.paraphrase, *(probe for group in groups for probe in group)]


def load_real(file: str) -> tuple[Any, Loaded]:
    path = REAL / file
    return json.loads(path.read_text(encoding="utf-8")), load(path)


def raw_probes(data: Any) -> int:
    """Probes in a parsed file, counted by another way than the loader's."""
    if isinstance(data, dict):
        return len(data["K_R"])
    count = 0
    for record in data:
        if "requested_rewrite" in record:
            lists = (record["paraphrase_prompts"], record["neighborhood_prompts"])
            count += sum(map(len, lists)) + 1
            continue
        groups = [record.get(key, {}) for key in ("portability", "locality")]
        count += sum(len(group) for each in groups for group in each.values())
        count += ("rephrase_prompt" in record) + ("locality_prompt" in record)
    return count


@real
@pytest.mark.parametrize("file", COUNTS)
def test_real_files_lose_nothing(file: str) -> None:
    data, loaded = load_real(file)
    assert len(loaded.cases) == COUNTS[file]
    assert len({case.fact.id for case in loaded.cases}) == COUNTS[file]
    assert all(case.fact.subject in case.fact.prompt for case in loaded.cases)
    used = sum(len(probes(case)) for case in loaded.cases)
    skipped = sum(row.count for row in loaded.skipped if row.kind == "probe")
    assert used + skipped == raw_probes(data)
    assert not [row for row in loaded.skipped if row.kind in ("record", "key")]


@real
def test_real_wiki_recent_with_empty_answer_lists() -> None:
    data, loaded = load_real("knowedit/wiki_recent/recent_train.json")
    raw = [
        probe
        for record in data
        for groups in (record["portability"], record["locality"])
        for group in groups.values()
        for probe in group
    ]
    # EasyEdit stops on these: the first inner list is empty.
    assert len([probe for probe in raw if probe["ground_truth"][0] == []]) == 9
    empty = [probe for probe in raw if not any(probe["ground_truth"])]
    assert len(empty) == len(loaded.skipped) == 7
    assert all(all(probe.answers) for case in loaded.cases for probe in probes(case))


@real
def test_real_repeated_prompts_are_conflicts() -> None:
    data, loaded = load_real("knowedit/wiki_counterfact/test_cf.json")
    assert len({record["prompt"] for record in data}) == 864
    assert len(conflicts(case.fact for case in loaded.cases)) == 21
