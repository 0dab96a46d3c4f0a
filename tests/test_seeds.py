"""Runs that differ in their seeds, as one table: by hand, and what is refused."""

import csv
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from eval.score import Row
from eval.seeds import gather
from eval.tables import comparisons, results
from pipeline.cli import app
from pipeline.combining import combine
from ske.config import parse, resolved
from ske.io import read_rows, write_rows, write_text
from ske.types import UserError

METHODS = ("base", "lora", "ske")


def asked(folder: Path, patterns: dict[str, str], prompts: str = "abcdefgh", **keys: Any) -> Path:
    """A run whose methods answer as the patterns say; case i edits the prompt `prompts[i]`."""
    tree = {"methods": list(METHODS), "model": {"path": "a-model"}}
    config = parse(tree | keys, "test")
    write_text(folder / "config.yaml", resolved(config))
    rows = [
        Row(
            method=method,
            dataset="world_counterfact",
            case=f"world-{number:04d}",
            metric="edit_success",
            probe=0,
            prompt=f"The mother of {prompts[number]} is",
            protocol="generate",
            seed=config.seed,
            answers=(("Ada",),),
            text="Ada" if mark == "1" else "Eve",
        ).model_dump(mode="json")
        for method, pattern in patterns.items()
        for number, mark in enumerate(pattern)
    ]
    write_rows(folder / "stages" / "ask" / "rows.jsonl", rows)
    skills = [
        {
            "method": method,
            "dataset": "world_counterfact",
            "seed": config.seed,
            "skill": "sums",
            "prompt": prompt,
            "answer": "4",
            "text": "4",
        }
        for method in patterns
        for prompt in ("1 + 3 =", "2 + 2 =")
    ]
    write_rows(folder / "stages" / "ask" / "capability.jsonl", skills)
    return folder


def patterns(lora: str, ske: str) -> dict[str, str]:
    return {"base": "0" * len(ske), "lora": lora, "ske": ske}


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    return [
        asked(tmp_path / "a", patterns("1000", "1111"), seed=0),
        asked(tmp_path / "b", patterns("1100", "1101"), seed=5),
    ]


def test_two_seeds_by_hand(two: list[Path]) -> None:
    runs = gather(two)
    assert runs.seeds == {0: two[0], 5: two[1]}
    found = {
        (row["seed"], row["method"]): (row["n"], row["mean"])
        for row in results(runs.answers.rows, beside=runs.answers.beside.values)
        if row["category"] == "all" and row["metric"] == "edit_success"
    }
    assert found["all", "ske"] == (4, 87.5)  # four cases under two seeds
    assert found["all", "lora"] == (4, 37.5)
    assert (found[0, "ske"], found[5, "ske"]) == ((4, 100), (4, 75))
    line = comparisons(runs.answers.rows)[1]
    assert (line["method_a"], line["method_b"], line["n"], line["diff"]) == ("ske", "lora", 4, 50)
    assert line["test"] == "two-level"


def test_skills_have_a_line_over_all_seeds(two: list[Path]) -> None:
    found = results([], beside=gather(two).answers.beside.values)
    lines = {(r["method"], r["seed"], r["category"]): (r["n"], r["mean"]) for r in found}
    assert lines["ske", "all", "all"] == lines["ske", 5, "sums"] == (2, 100)


def test_edits_drawn_anew_are_told_apart_by_their_prompts(tmp_path: Path) -> None:
    # Ids are positions: case 0 of the one run is case 2 of the other.
    runs = gather(
        [
            asked(tmp_path / "a", patterns("100", "111"), "xyz", edits={"seed": 3}),
            asked(tmp_path / "b", patterns("110", "110"), "uvx", edits={"seed": 4}),
        ]
    )
    assert set(runs.seeds) == {3, 4}
    table = results(runs.answers.rows)
    pooled = [row for row in table if row["seed"] == "all" and row["method"] == "ske"]
    # x is 1 and 0, so 50; y, z, u and v are 100.
    assert (pooled[0]["n"], pooled[0]["mean"]) == (5, 90)


def test_seeds_are_numbered_if_neither_tells_the_runs_apart(tmp_path: Path) -> None:
    folders = [
        asked(tmp_path / name, patterns("1", "1"), seed=seed, edits={"seed": draw})
        for name, seed, draw in (("a", 0, 0), ("b", 0, 1), ("c", 1, 1))
    ]
    assert list(gather(folders).seeds) == [0, 1, 2]


def test_one_run_is_not_several(two: list[Path]) -> None:
    with pytest.raises(UserError, match="at least two"):
        gather(two[:1])
    with pytest.raises(UserError, match=r"same seeds \(seed 0, edits.seed 0\)"):
        gather([two[0], two[0]])


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"model": {"path": "b-model"}}, "differ in model.path: 'a-model' and 'b-model'"),
        ({"data": {"name": "world_recent"}}, "differ in data.name: 'world_counterfact' and"),
        ({"methods": ["base", "ske"]}, r"differ in methods: \['base', 'lora', 'ske'\] and"),
        ({"options": {"lora": {"rank": 4}}}, "differ in options.lora.rank: None and 4"),
        ({"edits": {"limit": 3}}, "differ in edits.limit: 64 and 3"),
    ],
)
def test_runs_of_something_else_are_refused(tmp_path: Path, keys, told: str) -> None:
    one = asked(tmp_path / "a", patterns("1", "1"), seed=0)
    other = asked(tmp_path / "b", patterns("1", "1"), seed=1, **keys)
    with pytest.raises(UserError, match=told):
        gather([one, other])


def test_rows_of_another_data_set_are_refused(two: list[Path]) -> None:
    path = two[1] / "stages" / "ask" / "rows.jsonl"
    path.write_text(path.read_text().replace("world_counterfact", "zsre"))
    with pytest.raises(UserError, match=r"different data sets: \['world_counterfact'\]"):
        gather(two)


def test_unfinished_runs_are_named(two: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing: no run folder"):
        gather([two[0], tmp_path / "nothing"])
    rows = two[1] / "stages" / "ask" / "rows.jsonl"
    kept = [line for line in rows.read_text().splitlines() if '"lora"' not in line]
    rows.write_text("\n".join(kept) + "\n")
    with pytest.raises(UserError, match=r"b: no answers of lora"):
        gather(two)
    rows.unlink()
    with pytest.raises(UserError, match=r"b: nothing was asked yet"):
        gather(two)


def test_the_command_writes_tables(two: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "seeds"
    done = CliRunner().invoke(app, ["combine", *map(str, two), "--out", str(out)])
    assert done.exit_code == 0
    assert "Fewer than 5 seeds" in done.output
    with (out / "results.csv").open() as file:
        seeds = {line["seed"] for line in csv.DictReader(file)}
    assert seeds == {"0", "5", "all"}
    with (out / "comparisons.csv").open() as file:
        header = file.readline().strip()
    assert header == "method_a,method_b,metric,protocol,n,diff,ci_low,ci_high,p,p_holm,test"
    assert "| ske | **87.5** [" in (out / "results.md").read_text()


def test_nothing_is_written_if_the_runs_cannot_be_combined(two: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError):
        combine([two[0], two[0]], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def in_rounds(tmp_path: Path) -> list[Path]:
    """Two sequential runs of one round."""
    edits = {"mode": "sequential", "rounds": 1, "per_round": 4}
    folders = [
        asked(tmp_path / "a", patterns("1000", "1111"), seed=0, edits=edits),
        asked(tmp_path / "b", patterns("1100", "1101"), seed=5, edits=edits),
    ]
    for folder in folders:
        rows = read_rows(folder / "stages" / "ask" / "rows.jsonl")
        kept = [{"after_round": 1, "round": 1, "row": row} for row in rows]
        write_rows(folder / "stages" / "ask" / "retention.jsonl", kept)
    return folders


def test_a_broken_line_of_retention_is_named(in_rounds: list[Path]) -> None:
    path = in_rounds[1] / "stages" / "ask" / "retention.jsonl"
    lines = read_rows(path)
    write_rows(path, [*lines[:2], {**lines[2], "round": 2}, *lines[3:]])
    with pytest.raises(UserError, match=r"retention\.jsonl, line 3: .*round 2 .* after round 1"):
        gather(in_rounds)
    path.unlink()
    with pytest.raises(UserError, match=r"retention\.jsonl cannot be read .*first: ske run"):
        gather(in_rounds)


def test_retention_of_several_seeds_is_joined(in_rounds: list[Path], tmp_path: Path) -> None:
    combine(in_rounds, tmp_path / "out")
    with (tmp_path / "out" / "retention.csv").open() as file:
        retained = {(x["method"], x["seed"]): x["mean"] for x in csv.DictReader(file)}
    with (tmp_path / "out" / "results.csv").open() as file:
        results = {
            (x["method"], x["seed"]): x["mean"]
            for x in csv.DictReader(file)
            if (x["metric"], x["category"]) == ("edit_success", "all")
        }
    assert retained == results and len(retained) == 9
