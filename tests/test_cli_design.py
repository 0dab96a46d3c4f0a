"""The design stage from the command line: approval by hand, and a model that decides."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from chatserver import ChatServer, good

from ske.io import read_rows

FACTS = (
    {"prompt": "The capital of Ruria is", "subject": "Ruria", "target_new": "London"},
    {"prompt": "The employer of Bela Cole is", "subject": "Bela Cole", "target_new": "Acme"},
)


@pytest.fixture
def config(tmp_path: Path, model_folder: Path) -> Path:
    """Two facts for a tiny model of noise; the search is short."""
    (tmp_path / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in FACTS))
    design = {"layouts": ["triples", "prose"], "max_trials": 3, "max_repairs": 0}
    tree = {
        "model": {"path": str(model_folder)},
        "data": {"path": str(tmp_path / "facts.jsonl")},
        "methods": ["base", "ske"],
        "design": design,
        "teach": {"free_tokens": 4},
    }
    path = tmp_path / "some.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def hollow(folder: Path) -> str:
    """A model that is there, as far as can be seen without loading it."""
    (folder / "hollow").mkdir()
    (folder / "hollow" / "config.json").write_text('{"model_type": "gpt2"}')
    return f"model.path={folder / 'hollow'}"


def design(ske, config: Path, *sets: str, out: str = "runs/some"):
    more = [part for override in sets for part in ("--set", override)]
    return ske("run", config, "--stage", "design", "--out", out, *more)


def prompts(run: Path) -> list[str]:
    return [path.read_text() for path in sorted((run / "stages/design/prompts").iterdir())]


def test_prompts_wait_until_somebody_approves_them(ske, config: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs/some"
    said = design(ske, config, "design.approve=true")
    assert said.code == 2
    for part in ("prompts wait for your approval", "--approve", "--reject REASON"):
        assert part in said.err
    assert "wait for your approval" in ske("inspect", run).out
    trials = len(read_rows(run / "stages/design/trace.jsonl"))
    for arguments, part in [
        (("--approve", "--reject", "no"), "say one of them"),
        (("--reject", " "), "say why"),
    ]:
        bad = ske("inspect", run, *arguments)
        assert (bad.code, part in bad.err) == (2, True)
    assert ske("inspect", run, "--reject", "[too] short").code == 0
    before = prompts(run)
    again = ske("run", run / "config.yaml", "--stage", "design")
    assert (again.code, "prompts wait for your approval" in again.err) == (2, True)
    assert prompts(run) != before, "the agents proposed something else"
    told = ske("inspect", run).out
    assert "[too] short" in told and "wait for your approval" in told
    trace = len(read_rows(run / "stages/design/trace.jsonl"))
    assert trace > trials + 1
    good_word = ske("inspect", run, "--approve")
    assert (good_word.code, "ske run" in good_word.out) == (0, True)
    assert ske("run", run / "config.yaml", "--stage", "design").code == 0
    assert len(read_rows(run / "stages/design/trace.jsonl")) == trace + 1, "nothing again"
    late = ske("inspect", run, "--approve")
    assert (late.code, "the design is done" in late.err) == (2, True)


def test_without_approval_the_same_design_goes_on(ske, config: Path, tmp_path: Path) -> None:
    assert design(ske, config, "design.approve=true").code == 2
    trace = (tmp_path / "runs/some/stages/design/trace.jsonl").read_bytes()
    assert design(ske, config).code == 0
    assert (tmp_path / "runs/some/stages/design/trace.jsonl").read_bytes() == trace
    assert "Nothing to do" in design(ske, config, "design.approve=true").out
    early = ske("inspect", tmp_path / "runs/some", "--approve")
    assert early.code == 2
    assert "nobody was to approve" in early.err and "approved before" not in early.err
    # What it says to do ends with prompts that can be approved.
    shutil.rmtree(tmp_path / "runs/some/stages/design")
    waits = ske("run", "runs/some/config.yaml", "--stage", "design", "--set", "design.approve=true")
    assert "prompts wait for your approval" in waits.err
    assert ske("inspect", tmp_path / "runs/some", "--approve").code == 0


def test_an_approval_of_another_run_is_refused(ske, config: Path, tmp_path: Path) -> None:
    assert design(ske, config, "design.approve=true", out="runs/a").code == 2
    other = ("design.approve=true", "design.layouts=[prose]")
    assert design(ske, config, *other, out="runs/b").code == 2
    assert ske("inspect", "runs/a", "--approve").code == 0
    shutil.copytree(tmp_path / "runs/a/stages/design/work", tmp_path / "runs/b/stages/design/work")
    said = design(ske, config, *other, out="runs/b")
    assert (said.code, "this approval is for other prompts" in said.err) == (2, True)
    assert ske("inspect", "runs/b", "--approve").code == 0
    assert design(ske, config, *other, out="runs/b").code == 0


def test_approval_needs_a_design_that_waits(ske, config: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs/some"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(config.read_text())
    said = ske("inspect", run, "--approve")
    assert (said.code, "design.approve is false" in said.err) == (2, True)
    (run / "config.yaml").write_text(
        config.read_text().replace("layouts", "approve: true\n  layouts")
    )
    said = ske("inspect", run, "--reject", "x")
    assert (said.code, "no prompts wait for approval" in said.err) == (2, True)


def test_a_server_that_is_down_loses_nothing(
    ske, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    with ChatServer(good) as server:
        place = f"{{base_url: {server.url}, model: scripted, key_env: MY_KEY, retries: 0}}"
        sets = ("design.brain=model", f"design.endpoint={place}")
        answered = server.answer
        left = [3]  # The first is to see whether it is there.

        def dying(request):  # type: ignore[no-untyped-def]
            left[0] -= 1
            if left[0] < 0:
                raise ConnectionAbortedError
            return answered(request)

        server.answer = dying
        said = design(ske, config, *sets)
        assert (said.code, "Traceback" in said.err.split("error:")[-1]) == (2, False)
        for part in (server.url, "cannot be reached", "tried 1 times", "design.brain=rules"):
            assert part in said.err
        server.answer = answered
        said = design(ske, config, *sets)
        assert said.code == 0
        assert "decisions asked of scripted, none left to the rules" in said.err
        assert "decisions asked of scripted" in ske("inspect", "runs/some").out
    for path in (tmp_path / "runs").rglob("*"):
        assert not path.is_file() or b"sk-very-secret" not in path.read_bytes(), path


def test_a_server_that_is_down_is_found_before_the_model_is_loaded(
    ske, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ChatServer(good) as server:
        url = server.url
    place = f"design.endpoint={{base_url: {url}, model: m, retries: 0}}"
    said = design(ske, config, "design.brain=model", hollow(tmp_path), place)
    assert (said.code, "Traceback" in said.err) == (2, False)
    for part in (url, "cannot be reached", "tried 1 times", "nothing is lost", "brain=rules"):
        assert part in " ".join(said.err.split())
    assert not (tmp_path / "runs/some/stages/design/trace.jsonl").exists()
    assert design(ske, config, "design.brain=rules", place).code == 0, "as the message advises"


def test_a_design_with_all_its_replies_needs_no_server(
    ske, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    run, waits = tmp_path / "runs/some", "design.approve=true"
    with ChatServer(good) as server:
        place = f"design.endpoint={{base_url: {server.url}, model: m, retries: 0}}"
        first = ("design.brain=model", place)
        assert "wait for your approval" in design(ske, config, *first, waits).err
    assert "wait for your approval" in design(ske, config, *first, waits).err
    assert ske("inspect", run, "--reject", "too short").code == 0
    assert "cannot be reached" in design(ske, config, *first, waits).err, "others are wanted"
    assert ske("inspect", run, "--approve").code == 0
    assert design(ske, config, *first, waits).code == 0
    made = prompts(run)
    elsewhere = place.replace(server.url, "http://127.0.0.1:9/v1")
    assert "Nothing to do" in design(ske, config, first[0], elsewhere).out
    assert design(ske, config, "design.brain=rules", out="runs/some").code == 0
    assert design(ske, config, first[0], elsewhere).code == 0, "from the stored replies alone"
    assert prompts(run) == made


def test_bad_endpoints_are_found_before_the_model_is_loaded(
    ske, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    first = ("design.brain=model", hollow(tmp_path))

    def told(place: str) -> str:
        said = design(ske, config, *first, f"design.endpoint={place}")
        assert said.code == 2
        return said.err

    assert "'MY_KEY'" in told("{base_url: 'http://h/v1', model: m, key_env: MY_KEY}")
    assert "design.endpoint.base_url = 'h/v1'" in told("{base_url: h/v1, model: m}")
    assert "did you mean 'timeout'" in told("{base_url: 'http://h', model: m, timeuot: 3}")
    assert "design.endpoint.model" in told("{base_url: 'http://h'}")
    for place in (
        "{base_url: 'http://me:secret-1@h/v1', model: m}",
        "{base_url: 'http://h/v1?key=secret-1', model: m}",
        "{base_url: 'http://h/v1', model: m, key_env: sk-secret-1}",
        "{base_url: 'http://h/v1', model: m, api_key: secret-1}",
        "{base_url: 'http://h/v1', key_env: sk-secret-1}",
        "secret-1",
    ):
        err = told(place)
        assert "secret-1" not in err
        assert "design.endpoint" in err
