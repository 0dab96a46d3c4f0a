import csv
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest
from minirun import EVIL, minirun, rows_of

from pipeline import evidence, figures, published, report, sayings, scoring, sheets
from pipeline.run import Run
from pipeline.show import stale_notes
from pipeline.stage import ingredients
from ske.io import file_hash, write_json, write_rows

OUTSIDE = re.compile(r"""(?:src|href)\s*=\s*["']?\s*(?!data:|#)\S|url\(|@import""")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    this = minirun(tmp_path_factory.mktemp("run"))
    return written(this)


def written(run: Run) -> Run:
    run.stage("report").mkdir(parents=True, exist_ok=True)
    report.run(run, run.stage("report"))
    return run


def text(run: Run, name: str) -> str:
    return (run.folder / name).read_text(encoding="utf-8")


def test_everything_is_written_and_listed_with_its_hash(run: Run) -> None:
    listed = evidence._json(run.stage("report") / "written.json")
    assert {"report.md", "report.html", "figures/capacity.png"} <= set(listed)
    assert {"figures/metrics-generate.png", "figures/locality-teacher_forced.png"} <= set(listed)
    assert all(file_hash(run.folder / name) == key for name, key in listed.items())


def test_the_page_stands_alone_and_model_text_is_text(run: Run) -> None:
    page = text(run, "report.html")
    assert not OUTSIDE.search(re.sub(r'src="data:image/png;base64,[^"]*"', "", page))
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(") >= 3  # a reply, a reason, a skipped probe


def test_markdown_keeps_model_text_in_its_cell(run: Run) -> None:
    document = text(run, "report.md")
    assert "<script" not in document and "[a](http" not in document
    line = next(line for line in document.splitlines() if line.startswith("| world-0000 | The"))
    assert re.sub(r"\\\|", "", line).count("|") in (4, 5)
    assert r"\*\*bold\*\*" in line


def test_every_number_of_results_is_in_both(run: Run) -> None:
    with (run.folder / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["category"] == "all"]
    plain = re.sub(r"<[^>]+>", "", text(run, "report.html"))
    assert len(rows) > 10
    for row in rows:
        mean, low, high = (f"{float(row[key]):.1f}" for key in ("mean", "ci_low", "ci_high"))
        assert f"{mean} [{low}, {high}]" in plain
        assert f"[{low}, {high}]" in text(run, "report.md")


def test_the_report_leaves_the_results_alone_and_repeats_itself(run: Run) -> None:
    names = ("results.csv", "comparisons.csv", "report.md", "report.html", "figures/capacity.png")
    before = {name: file_hash(run.folder / name) for name in names}
    written(run)
    assert before == {name: file_hash(run.folder / name) for name in names}


def test_comparisons_are_said_in_words(run: Run) -> None:
    found = {(c.other, c.metric, c.protocol): c for c in sayings.comparisons(evidence.gather(run))}
    above = found["prompt", "edit_success", "generate"]
    assert above.sentence.startswith("SKE's edit success is 75.0 points above PROMPT's [")
    assert above.sentence.endswith("n = 4.")
    below = found["base", "locality", "generate"]
    assert "is 75.0 points below BASE's [" in below.sentence
    turned = f"[{-below.row['ci_high']:.1f}, {-below.row['ci_low']:.1f}]"
    assert turned in below.sentence  # told as the distance that the sentence speaks of
    assert above.verdict == "open"  # four facts cannot be significant
    assert above.corrected >= above.row["p"]


@pytest.mark.parametrize(
    ("p", "told"), [(1.0, "1.00"), (0.40625, "0.41"), (0.0005, "0.0005"), (0.000244, "0.00024")]
)
def test_p_is_told_without_exponent(p: float, told: str) -> None:
    assert sayings.p_text(p) == told


def test_caveats_come_from_the_run(run: Run, tmp_path: Path) -> None:
    told = " ".join(sayings.caveats(evidence.gather(run)))
    assert "One seed (0)" in told and "4 edits" in told
    assert "does not answer 1 of 4" in told and "2 training texts" in told
    single = " ".join(sayings.caveats(evidence.gather(minirun(tmp_path / "one", n=1))))
    assert "A single edit" in single
    bare = sayings.caveats(evidence.gather(minirun(tmp_path / "bare", ("base", "prompt"))))
    assert not any("teacher" in caveat for caveat in bare)


@pytest.mark.parametrize(
    ("methods", "n"), [(("base", "lora"), 3), (("base",), 2), (("base", "ske"), 1)]
)
def test_smaller_runs_have_a_report_too(methods: tuple[str, ...], n: int, tmp_path: Path) -> None:
    page = text(written(minirun(tmp_path, methods, n)), "report.html")
    assert ("How many facts one prompt holds" in page) == ("ske" in methods)
    assert ("beside the others" in page) == (len(methods) > 1)


def test_graded_figures_and_shares_have_tables_of_their_own(tmp_path: Path) -> None:
    run = minirun(tmp_path)
    path = run.stage("ask") / "rows.jsonl"
    rows = rows_of(path)
    near = [row for row in rows if (row["metric"], row["protocol"]) == ("locality", "generate")]
    for row in near:
        row["divergence"] = [{"base": 0.0, "prompt": 0.5, "ske": 0.125}[str(row["method"])]]
    edits = [
        row for row in rows if (row["metric"], row["protocol"]) == ("edit_success", "generate")
    ]
    for row in edits:
        said = "Mill 0" if row["method"] == "prompt" else row["text"]
        rows.append({**row, "metric": "portability", "category": "Reasoning", "text": said})
        claim = {"category": "Claims", "answers": [["no"]], "text": "Yes."}
        rows.append({**row, "metric": "hard", **claim})
    write_rows(path, rows)
    scoring.run(run, run.stage("score"))
    written(run)
    page = re.sub(r"<[^>]+>", " ", text(run, "report.html"))
    document = text(run, "report.md")
    for told in ("moved (nats)", "argues for the old", "Less is better", "hard"):
        assert told in page and told in document
    assert "0.500 [0.500, 0.500]" in re.sub(r" +", " ", page)
    # The ceiling has one of four right, ske three; the best of a column that should be low is low.
    assert "portability, in percent of a ceiling's" in document and "**300.0** [" in document
    assert "**0.125** [0.125, 0.125]" in document
    assert "SKE's success on hard probes" in document
    assert "SKE's locality, moved" not in document  # in words, only the main metrics are compared


def test_error_rows_and_empty_groups_are_named(tmp_path: Path) -> None:
    run = minirun(tmp_path, ("base", "prompt"))
    path = run.stage("ask") / "rows.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    lines = [
        line.replace('"error": null', '"error": "broken"') if '"locality"' in line else line
        for line in lines
    ]
    path.write_text("".join(lines), encoding="utf-8")
    scoring.run(run, run.stage("score"))
    written(run)
    assert "Error rows, in no mean" in text(run, "report.md")
    assert "PROMPT locality (generate) 4" in text(run, "report.html")


def test_figures_have_the_same_bytes_for_the_same_numbers(tmp_path: Path) -> None:
    row = {"mean": 50.0, "ci_low": 40.0, "ci_high": 60.0}
    panels = [figures.Panel("locality", {"ske": row})]
    one = figures.dots(panels, ["base", "ske"], tmp_path / "a.png")
    two = figures.dots(panels, ["base", "ske"], tmp_path / "b.png")
    assert one.read_bytes() == two.read_bytes()


def test_labels_never_lie_on_each_other() -> None:
    placed = sorted(figures._spread([0.0, 1.0, 50.0, 99.0, 100.0], gap=13.0))
    assert all(b - a >= 13 - 1e-9 for a, b in itertools.pairwise(placed))
    assert placed[0] >= 0 and placed[-1] <= 100 and 50.0 in placed


def test_a_report_loads_no_model_library(run: Run) -> None:
    script = (
        "import sys; from pathlib import Path; from pipeline import report; "
        "from pipeline.run import Run; from ske.config import load; "
        f"f = Path({str(run.folder)!r}); r = Run(load(f / 'config.yaml'), f); "
        "report.run(r, r.stage('report')); "
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_evil_text_is_what_these_tests_think() -> None:
    assert "<script>" in EVIL and "|" in EVIL


def test_costs_are_told_per_edit_and_per_question(run: Run) -> None:
    table = sheets.cost_table(evidence.gather(run))
    told = dict(zip(table.columns, table.rows[1], strict=True))
    # 1.5 seconds and 6,200 tokens for 4 edits.
    assert told["seconds per edit"] == "0.38"
    assert told["tokens per edit"] == "1,550"
    assert told["tokens per question"] == "32"


def test_seconds_that_do_not_compare_are_said_not_to(run: Run) -> None:
    found = evidence.gather(run)
    costs = {**found.costs, "ske": {**found.costs["ske"], "meanwhile": True}}
    assert "do not compare" in sheets.cost_table(found._replace(costs=costs)).caption
    assert "do not compare" not in sheets.cost_table(found).caption


def test_published_figures_stand_apart_and_say_whose_they_are(run: Run) -> None:
    for name in ("report.md", "report.html"):
        page = text(run, name)
        assert page.count("Published elsewhere, of other models") == 1
        assert "not for comparison" in page
        assert "76.3" in page  # SVF's edit success in the overview
        assert "Llama-2-7b-chat" not in page  # nobody published anything about this data set


def test_published_figures_are_those_of_the_nearest_set() -> None:
    own, kin = published.beside("wiki_counterfact"), published.beside("world_counterfact")
    assert own.knowedit and kin.knowedit
    assert own.knowedit.rows == kin.knowedit.rows
    rome = next(row for row in own.knowedit.rows if row[0] == "ROME")
    assert rome == ["ROME", "98.6", "55.9", "52.0", "584.0"]
    assert "wiki_counterfact is not world_counterfact" in kin.knowedit.caption
    assert "is not" not in own.knowedit.caption
    assert published.beside("mine").knowedit is None
    for published_figures in published.KNOWEDIT.values():
        assert {len(values) for values in published_figures.values()} == {len(published.METHODS)}
    assert "divergence" in (published.beside("convsent").knowedit or own.knowedit).caption


def test_answers_that_were_altered_are_not_called_another_configuration_s(tmp_path: Path) -> None:
    run = minirun(tmp_path / "run", ("base", "prompt"))
    for stage in run.stages:
        folder = run.stage(stage.name)
        names = [path.name for path in folder.glob("*.jsonl")]
        done = {
            "ingredients": ingredients(stage, run.config, run.folder),
            "outputs": dict.fromkeys(names, "0"),
            "sizes": {name: (folder / name).stat().st_size for name in names},
        }
        write_json(folder / "manifest.json", done)
    assert stale_notes(run) == []
    rows = run.stage("ask") / "rows.jsonl"
    rows.write_bytes(rows.read_bytes() + b"\n")
    again = f"to make it again: ske run {run.folder}/config.yaml"
    [note] = stale_notes(run)
    assert note.startswith("Note: ask is not as it was made") and again in note
    assert note.endswith("(rows.jsonl is not as the stage wrote it)")
    model = run.config.model.model_copy(update={"path": "another"})
    [note] = stale_notes(Run(run.config.model_copy(update={"model": model}), run.folder))
    assert note.startswith("Note: edit was made with another configuration than ")
    (run.stage("edit") / "manifest.json").unlink()
    [note] = stale_notes(run)
    assert note == "Note: ask was made of what another stage would make again (edit runs again)"
