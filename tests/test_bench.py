"""The bench itself: verdicts, pairs of runs, bytes counted, and that its commands run."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from minirun import minirun

from bench import __main__ as bench
from bench import ablations, chains, gpu, growth, headline, outcome, pictures, results
from bench.document import filled
from bench.memory import held
from bench.outcome import Must, section
from bench.row import Row, markdown
from bench.shapes import SHAPES, random_model
from bench.timing import Work, exponent, paired
from eval.answers import Answers, Beside
from eval.retention import RetentionRow
from eval.score import Row as Answered
from eval.stats import Interval

CPU = torch.device("cpu")


def test_results_say_what_was_found_and_which_goals_are_met(tmp_path: Path) -> None:
    assert "0 of 5 seeds: not run yet" in section("none", [], 5, ())
    folder = minirun(tmp_path / "one").folder  # Its student fails on one fact of four.
    musts = (Must("edit_success", least=70), Must("edit_success", least=80))
    text = section("one", [folder], 5, musts)
    assert "1 of 5 seeds, 4 different edits" in text
    assert "| SKE | 75.0 [" in text
    assert "| edit success | at least 70 | 75.0 [" in text
    first, second = (line for line in text.splitlines() if line.startswith("| edit success | at"))
    assert "met" in first and "missed" not in first
    assert "**missed**" in second


def test_make_results_runs_what_is_asked_for_and_writes_the_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []
    document, front = tmp_path / "results.md", tmp_path / "README.md"
    # What was run elsewhere stays.
    marks = [f"<!-- {name} -->\nold {name}\n<!-- end of {name} -->" for name in results.places()]
    document.write_text("\n".join(marks))
    monkeypatch.setattr(results, "_ske", lambda *arguments: asked.append(arguments))
    monkeypatch.setattr(results, "DOCS", document)
    monkeypatch.setattr(results, "README", front)
    monkeypatch.setattr(results, "FIGURES", tmp_path / "figures")
    row = "| 1 edit | 5 | of before |"
    tables = {"main": "old", "overview": row, "costs": "old"}
    front.write_text(
        "\n".join(f"<!-- {n} -->\n{t}\n<!-- end of {n} -->" for n, t in tables.items())
    )
    monkeypatch.chdir(tmp_path)
    results.main(["--only", "main", "second-world", "--seeds", "3"])
    assert [command[0] for command in asked] == ["run", "world", "run"]
    assert all("edits.seed=3" in command for command in asked if command[0] == "run")
    assert document.read_text() == "\n".join(marks)
    folder = minirun(tmp_path / "one").folder
    monkeypatch.setattr(results, "_done", lambda part: ({"insertion": [folder]}, 5))
    text = results.sections("tasks")["tasks/insertion"]
    assert text.startswith("Runs of commit ") and "1 of 5 seeds" in text
    assert row in front.read_text() and "old" in front.read_text()
    monkeypatch.setattr(results, "_done", lambda part: ({"counterfact": [folder]}, 5))
    monkeypatch.setattr(results, "sections", lambda part: {f"{part}/counterfact": "new"})
    results.main(["--only", "main", "--tables"])
    assert "new" in document.read_text() and "old started/taught-memit" in document.read_text()
    told = front.read_text()
    assert "| SKE | 75.0 [" in told and "| 64 edits | 1 | 75.0 [" in told
    assert row in told and "old" not in told
    drawn = {path.name for path in (tmp_path / "figures").iterdir()}
    assert drawn == {"balance.png", "sizes.png"}
    monkeypatch.undo()


def test_figures_are_of_the_runs_that_are_here(tmp_path: Path) -> None:
    folder = minirun(tmp_path / "one").folder
    groups = {"main/counterfact": [folder], "sizes/4-edits": [folder], "sequential/16x16": []}
    assert pictures.draw(groups, ["ablations"], tmp_path / "none") == []
    first = pictures.draw(groups, ["main"], tmp_path / "first")
    again = pictures.draw(groups, ["main"], tmp_path / "again")
    assert [path.name for path in first] == ["balance.png", "sizes.png"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    assert first[0].read_bytes().startswith(b"\x89PNG")


def test_a_trend_has_the_methods_that_were_asked_at_several_sizes() -> None:
    def made(*methods: str) -> outcome.Found:
        values = {("generate", m, ("locality", "all")): {("a", 0): 40.0} for m in methods}
        return outcome.Found(values, {})

    found = {64: made("base", "ske", "svf"), 4: made("base", "ske")}
    (trend,) = pictures._trends(found, ("locality", "all"))
    assert trend.method == "ske"
    assert [(size, row["mean"]) for size, row in trend.points] == [(4, 40.0), (64, 40.0)]


def after(round_: int, last: int, method: str, right: bool, seed: int) -> RetentionRow:
    asked = chain(SPOUSE, f"{SPOUSE} {round_} {seed}").model_copy(
        update={
            "method": method,
            "metric": "edit_success",
            "category": "all",
            "case": str(round_),
            "seed": seed,
            "answers": (("yes",),),
            "text": "yes" if right else "no",
        }
    )
    return RetentionRow(after_round=last, round=round_, row=asked)


def test_rounds_are_drawn_over_all_seeds_and_of_one_run_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def history(seed: int) -> list[RetentionRow]:
        known = [(1, 1, True), (1, 2, seed == 0), (2, 2, True)]
        return [
            after(own, last, method, right, seed)
            for method in ("base", "ske")
            for own, last, right in known
        ]

    ((title, trends),) = pictures.faded([*history(0), *history(1)])
    assert title == "edit success"
    (trend,) = trends
    assert [(x, row["mean"]) for x, row in trend.points] == [(0, 100.0), (1, 50.0)]
    monkeypatch.setattr(
        outcome, "_alone", lambda folder: Answers([], history(1), Beside([], [], []))
    )
    path = pictures.draw({pictures.ROUNDS: [tmp_path]}, ["sequential"], tmp_path)
    assert [one.name for one in path] == ["rounds.png"] and path[0].is_file()


def test_figures_are_of_groups_that_there_are() -> None:
    assert {*pictures.BALANCES, *pictures.SIZES, pictures.ROUNDS} <= set(results.places())


def test_documents_show_figures_that_are_there() -> None:
    for document in (results.DOCS, results.README):
        named = re.findall(r"!\[[^]]+\]\(([^)]+)\)", document.read_text(encoding="utf-8"))
        assert named, document
        for path in named:
            assert (document.parent / path).is_file(), path


def test_the_table_of_teachers_gets_its_larger_one_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(results, "_ske", lambda *arguments: asked.append(arguments[0]))
    monkeypatch.setattr(results.larger, "grow", lambda folder, out: asked.append(str(out)))
    monkeypatch.chdir(tmp_path)
    results._make("teaching", [3])
    assert asked[:2] == ["worlds/larger", "run"] and len(asked) > 5


def test_the_short_form_is_for_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(results, "_ske", lambda *arguments: asked.append(arguments))
    monkeypatch.setattr(results, "DOCS", tmp_path / "nowhere.md")
    monkeypatch.chdir(tmp_path)
    results.main(["--short"])
    assert len(asked) == 3
    assert "0 of 3 seeds" in capsys.readouterr().out


def test_readmes_overview_has_a_row_for_every_group_of_runs() -> None:
    every = {place for place in results.places() if "/" in place}
    assert set(headline.GROUPS) == every - {results.AGAINST, "started/taught-memit"}


def test_the_document_has_a_place_for_every_part() -> None:
    text = results.DOCS.read_text(encoding="utf-8")
    for place in results.places():
        assert "here" in filled(text, "here", place)
    for place in (results.MAIN, results.OVERVIEW, results.COSTS):
        assert "here" in filled(results.README.read_text(encoding="utf-8"), "here", place)
    with pytest.raises(ValueError, match="no place for 'nowhere'"):
        filled(text, "here", "nowhere")


def test_a_goal_can_bound_the_mean_and_its_interval() -> None:
    must = Must("capability_change", least=-1, most=1, above=-2)
    assert str(must) == "at least -1, at most 1, interval above -2"
    assert must.met(Interval(0.5, -1.5, 2.0, 9))
    assert not must.met(Interval(0.5, -2.5, 2.0, 9))
    assert not must.met(Interval(-1.5, -1.8, -1.2, 9))
    assert not must.met(Interval(1.5, 1.2, 1.8, 9))


def test_a_started_student_is_compared_with_the_main_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = {name: minirun(tmp_path / name).folder for name in ("main", "started")}
    monkeypatch.setattr(results, "_done", lambda part: ({f"of {part}": [folders[part]]}, 5))
    text = results.sections("started")["started/against main"]
    assert "| as it is | 1 of 5 | 75.0 [" in text
    assert "| of started | 1 of 5 | 75.0 (+0.0 [" in text


def test_ablations_are_differences_from_the_whole(tmp_path: Path) -> None:
    whole, less = (minirun(tmp_path / name).folder for name in ("whole", "less"))
    text = ablations.section({"as it is": [whole], "no such": [less], "later": []}, 5)
    assert "| as it is | 1 of 5 | 75.0 [" in text
    assert "| no such | 1 of 5 | 75.0 (+0.0 [" in text
    assert "| later | 0 of 5 | - |" in text
    assert "Not run yet" in ablations.section({"as it is": [], "no such": [less]}, 5)


def test_an_ablation_of_fewer_seeds_is_compared_over_those(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[Path]] = []

    def noted(folders: Sequence[Path]) -> outcome.Found:
        asked.append(list(folders))
        return outcome.read(folders[-1:])

    monkeypatch.setattr(ablations, "read", noted)
    whole = [minirun(tmp_path / "whole" / name).folder for name in ("seed-0", "seed-1")]
    less = [minirun(tmp_path / "less" / "seed-1").folder]
    text = ablations.section({"as it is": whole, "no such": less}, 5)
    assert "| no such | 1 of 5 | 75.0 (+0.0 [" in text
    assert asked == [whole, whole[1:], less]


def test_every_grid_of_results_can_be_read() -> None:
    for part in results.PARTS:
        assert len(results._cells(part)) >= 5
    assert len(results._cells(results.SHORT)) == 3


def test_a_row_is_judged_by_its_median_and_by_what_must_be_equal() -> None:
    row = Row("x", "1 s", "12 s", [9, 12, 11], at_least=10)
    assert row.ok and row.ratio == 11
    assert not row._replace(at_least=11.5).ok
    assert not row._replace(wrong="2 replies differ").ok
    assert not row._replace(at_least=None, at_most=10.9).ok
    assert row._replace(at_least=None).ok  # nothing is asked of it
    assert "| x | 1 s | 12 s | 11.00 | 9.00 to 12.00 (3) | at least 10 | ok |" in markdown(
        [row], "t"
    )
    assert "2 replies differ" in markdown([row._replace(wrong="2 replies differ")], "t")


def test_pairs_of_runs_change_their_order() -> None:
    done: list[str] = []
    found = paired(
        Work(lambda: done.append("ours") or 1, 10), Work(lambda: done.append("other") or 2), 4
    )
    assert done == ["ours", *["other", "ours", "ours", "other"] * 2]  # the first one warms up
    assert found.gave == (1, 2)
    assert len(found.ratios) == len(found.ours) == 4
    assert found.ratios[0] == found.reference[0] / found.ours[0]


def test_an_exponent_is_fitted_on_logarithms() -> None:
    assert exponent((1, 4, 16), (3, 12, 48)) == pytest.approx(1)
    assert exponent((1, 4, 16), (3, 48, 768)) == pytest.approx(2)


def test_bytes_are_counted_while_tensors_live() -> None:
    def work() -> torch.Tensor:
        kept = torch.ones(1000)
        dropped = torch.ones(500)
        del dropped
        view = kept[10:].view(-1)  # no bytes of its own
        return view + 1  # 990 more

    assert held(work, CPU).peak == 4 * (1000 + 990)
    outer = torch.ones(1000)
    assert held(lambda: outer.add_(1)[5:], CPU).peak == 0  # what was there before
    assert held(lambda: [torch.ones(10) for _ in range(3)], CPU).peak == 120
    assert held(lambda: [torch.ones(10).sum().item() for _ in range(3)], CPU).peak == 44


def test_bytes_that_a_backward_pass_needs_are_counted() -> None:
    x = torch.ones(100, requires_grad=True)
    chain = held(lambda: x.exp().exp().exp().sum(), CPU).peak
    with torch.no_grad():
        assert held(lambda: x.exp().exp().exp().sum(), CPU).peak < chain
    assert chain >= 3 * 400  # each result is kept for its gradient


def test_the_table_is_printed_written_and_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [Row("quick", "1 s", "20 s", [20], at_least=10)]
    monkeypatch.setattr(bench, "run", lambda names, long: rows)
    assert bench.main(["--only", "teacher", "--out", str(tmp_path)]) == 0
    assert "quick" in capsys.readouterr().out
    assert json.loads((tmp_path / "bench.json").read_text())["rows"][0]["ratio"] == 20
    assert "| quick |" in (tmp_path / "bench.md").read_text()
    rows.append(Row("slow", "1 s", "2 s", [2], at_least=10))
    assert bench.main(["--only", "teacher"]) == 1


def test_an_unknown_measurement_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        bench.main(["--only", "teachr"])
    assert exit_.value.code == 2
    assert "'teachr': there are teacher, scoring" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["memit", "alphaedit"])
def test_memory_grows_no_faster_than_the_facts(name: str) -> None:
    """Also where facts outnumber the keys' dimensions, 192: no facts x facts system is made."""
    lm = random_model("tiny")
    small, large = (held(lambda n=n: growth.edit(lm, name, n), CPU).peak for n in (256, 768))
    assert large < 3.3 * small


def test_the_shapes_have_as_many_weights_as_their_models() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    def billions(shape: str) -> float:
        kind, numbers = SHAPES[shape]
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **numbers))
        return round(sum(one.numel() for one in model.parameters()) / 1e9, 3)

    assert [billions(shape) for shape in gpu.LARGE] == [0.494, 1.236, 8.03]


@pytest.mark.slow
def test_the_gpu_s_command_runs_on_a_cpu(tmp_path: Path) -> None:
    assert gpu.main(["--tiny", "--device", "cpu", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["configurations"]["tiny"]["hidden_size"] == 64
    done = {(line["what"], line["facts"]) for line in found["lines"]}
    assert {(name, n) for name in growth.METHODS for n in gpu.FEW} < done
    assert all(line["seconds"] > 0 for line in found["lines"])
    assert "| tiny | ske | 4 |" in (tmp_path / "gpu.md").read_text()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here, so it would run")
def test_without_a_gpu_it_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 2
    assert "--tiny --device cpu" in capsys.readouterr().err


def test_shares_are_of_retrieval_where_prompt_was_not_asked() -> None:
    def made(*methods: str) -> outcome.Found:
        place = ("portability", "all")
        return outcome.Found(
            {
                ("generate", m, place): {("c", 0): v}
                for m, v in zip(methods, (50.0, 40.0), strict=True)
            },
            {},
        )

    column = next(c for c in outcome.MADE if c.place == (outcome.SHARE, "all"))
    without, beside = made("retrieval", "ske"), made("prompt", "ske")
    assert without.title(column) == "share of Retrieval's"
    assert beside.title(column) == "share of PROMPT's"
    for found in (without, beside):
        share = found.of("generate", "ske", column.place)
        assert share is not None and round(share.mean) == 80
        assert found.of("generate", found.ceiling, column.place) is None


def chain(case: str, prompt: str, category: str = "Beyond") -> Answered:
    return Answered(
        method="ske",
        dataset="world",
        case=f"world: {case}",
        metric="hard",
        category=category,
        probe=0,
        prompt=prompt,
        protocol="generate",
        seed=0,
        answers=(("x",),),
    )


SPOUSE = "The name of the spouse of Ada Zorn is"
HIS_WORK = "The name of the occupation of the spouse of Ada Zorn is"


def test_unseen_kinds_have_a_table_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = Answers([chain(SPOUSE, HIS_WORK)], [], Beside([], [], []))
    monkeypatch.setattr(outcome, "_alone", lambda folder: answers)
    text = section("x", [tmp_path], 1, ())
    assert f"| | {chains.TWO} |\n|---|---|\n| SKE | 0.0 [" in text
    assert "no mean" not in text


def test_questions_that_could_not_be_asked_are_counted_in_the_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = chain(SPOUSE, HIS_WORK)
    refused = asked.model_copy(update={"method": "prompt", "error": "too long"})
    again = refused.model_copy(update={"probe": 1})
    other = refused.model_copy(update={"metric": "portability"})
    forced = other.model_copy(update={"protocol": "teacher_forced"})
    answers = Answers([asked, refused, again, other, forced], [], Beside([], [], []))
    monkeypatch.setattr(outcome, "_alone", lambda folder: answers)
    told = "Error rows, in no mean, free generation (what users see): PROMPT 2 of hard, 1 of "
    assert f"{told}portability." in section("x", [tmp_path], 1, ())


def test_unseen_kinds_are_told_apart_by_hops_and_by_where_the_edit_lies() -> None:
    def kind(*row: str) -> list[str]:
        return [own.category for own in chains.by_kind([chain(*row)])]

    assert kind(SPOUSE, HIS_WORK) == [chains.TWO]
    assert kind(
        "The occupation of Ada Zorn is", "The name of the occupation of the spouse of Bo Ley is"
    ) == [chains.THROUGH]
    born = (
        "The name of the capital city of the country where the place of birth of Ada is located is"
    )
    assert kind("The place of birth of Ada is", born) == [chains.THREE]
    assert kind("The place of birth of Ada is", born, "Claims") == []
    assert kind("The place of birth of Ada is", "The capital of Ruria is") == []
