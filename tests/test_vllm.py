"""vLLM answers as transformers does, on the embedded world's model; run by `make test-vllm`."""

from __future__ import annotations

import csv
import importlib.util
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from realserver import asked_again, design, made, replays, serving

from eval.cases import load as load_cases
from methods.delta import DeltaEdit, LowRank
from methods.prompt import PromptEdit
from pipeline.asking import answerer
from pipeline.run import Run
from ske.backends import local, vllm
from ske.backends.server import ServerLM
from ske.config import Config, ModelConfig
from ske.endpoints import TeacherServer
from ske.lm import LM, Chat, Pair, Sampling, Scored, TakesAdapters, ask
from ske.types import Fact, NeedsWeights, UserError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"
)
ROOT = Path(__file__).parent.parent
WORLD = ROOT / "world"
MODEL = ModelConfig(path=str(WORLD / "model"), device="cpu")
ENGINE = {"max_model_len": 1024}
GREEDY = Sampling(max_new_tokens=24)
CLOSE = 1e-4


def facts(count: int) -> list[Fact]:
    cases = load_cases(WORLD / "benchmarks" / "world_counterfact-test.json").cases
    return [case.fact for case in cases[:count]]


@pytest.fixture(scope="module")
def here() -> local.LocalLM:
    return local.load(MODEL)


@pytest.fixture(scope="module")
def engine() -> vllm.VllmLM:
    return vllm.load(MODEL.model_copy(update={"backend": "vllm", "engine": ENGINE}))


def chats() -> list[Chat]:
    """Questions alone and under a prompt of many facts, and an empty one."""
    system = "\n".join(f"{f.prompt} {f.target_new}." for f in facts(16))
    own = [ask(f.prompt) for f in facts(24)]
    return [*own, *(ask(f.prompt, system) for f in facts(16)), ask("")]


def pairs() -> list[Pair]:
    return [
        Pair(chat, ("Vell", fact.target_new, "")[i % 3], end=i % 2 == 0)
        for i, (chat, fact) in enumerate(zip(chats(), facts(41) * 2, strict=False))
    ]


def same(found: Sequence[Scored], expected: Sequence[Scored]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.tokens == other.tokens
        assert one.logprobs == pytest.approx(other.logprobs, abs=CLOSE)
        assert list(map(len, one.top_ids)) == list(map(len, other.top_ids))
        for row, wanted in zip(one.top_logprobs, other.top_logprobs, strict=True):
            assert row == pytest.approx(wanted, abs=CLOSE)
        for place, best in enumerate(one.argmax):
            if best != other.argmax[place]:  # only where two are as good as equal
                first, second = other.top_logprobs[place][:2]
                assert first - second < CLOSE


def test_greedy_text_is_that_of_transformers(here: LM, engine: LM) -> None:
    assert isinstance(engine, LM)
    assert engine.generate(chats(), GREEDY) == here.generate(chats(), GREEDY)
    assert engine.generate([], GREEDY) == []


def test_a_stop_text_and_a_least_length_mean_the_same(here: LM, engine: LM) -> None:
    how = Sampling(max_new_tokens=12, min_new_tokens=6, stop=("e",))
    assert engine.generate(chats(), how) == here.generate(chats(), how)


def test_logprobs_are_those_of_transformers(here: LM, engine: LM) -> None:
    same(engine.logprobs(pairs(), 20), here.logprobs(pairs(), 20))
    for found, expected in zip(engine.logprobs(pairs()), here.logprobs(pairs()), strict=True):
        assert found.logprobs == pytest.approx(expected.logprobs, abs=CLOSE)
        assert found.top_ids == expected.top_ids
    everything = engine.logprobs(pairs()[:1], 10**6)[0]
    assert sum(torch.tensor(everything.top_logprobs[0]).exp()).item() == pytest.approx(1, abs=1e-4)


def test_samples_repeat_with_their_seed_and_differ_within_a_call(engine: LM) -> None:
    how = Sampling(max_new_tokens=16, temperature=1.0, seed=5)
    first = engine.generate([ask("")] * 32, how)
    assert engine.generate([ask("")] * 32, how) == first
    assert len({reply.text for reply in first}) > 16
    other = engine.generate([ask("")] * 32, how.model_copy(update={"seed": 6}))
    assert len({r.text for r in first} & {r.text for r in other}) < 16


def test_a_shared_beginning_is_read_once(engine: vllm.VllmLM) -> None:
    system = " ".join(f"{f.prompt} {f.target_new}." for f in facts(30))
    ids = [engine.renderer.prompt_ids(ask(f.prompt, system)) for f in facts(2)]
    outputs = [engine._run([one], [engine._how(GREEDY, 0)])[0] for one in ids]
    assert outputs[1].num_cached_tokens >= 128


def test_a_prompt_that_does_not_fit_is_said_before_it_is_read(engine: LM) -> None:
    with pytest.raises(UserError, match=r"max_model_len"):
        engine.generate([ask("word " * 2000)], GREEDY)


# -- edits ------------------------------------------------------------------------------------


def delta(lm: local.LocalLM, seed: int, rank: int = 4) -> DeltaEdit:
    """Random differences of every kind of projection, large enough to change answers."""
    rng = torch.Generator().manual_seed(seed)
    deltas: dict[str, LowRank | torch.Tensor] = {}
    for name, weight in lm.model.named_parameters():
        if name.endswith("proj.weight") and "layers.0" not in name:
            out, inner = weight.shape
            up = 0.02 * torch.randn(out, rank, generator=rng)
            deltas[name] = LowRank(up, 0.5 * torch.randn(rank, inner, generator=rng))
    return DeltaEdit(deltas, "test")


def test_edits_are_served_as_adapters(here: local.LocalLM, engine: vllm.VllmLM) -> None:
    assert isinstance(engine, TakesAdapters)
    base = engine.logprobs(pairs(), 20)
    one, two = delta(here, 1), delta(here, 2, rank=2)
    with one.applied(engine) as edited, one.applied(here):
        same(edited.logprobs(pairs(), 20), here.logprobs(pairs(), 20))
        assert edited.generate(chats(), GREEDY) == here.generate(chats(), GREEDY)
        moved = [
            a.logprobs != b.logprobs for a, b in zip(base, here.logprobs(pairs()), strict=True)
        ]
        assert sum(moved) > len(moved) / 2
        with two.applied(edited) as both, two.applied(here):
            same(both.logprobs(pairs(), 20), here.logprobs(pairs(), 20))
        same(edited.logprobs(pairs(), 20), here.logprobs(pairs(), 20))
    assert engine.logprobs(pairs(), 20) == base


def test_an_edit_under_a_prompt_reaches_the_model_behind_it(
    here: local.LocalLM, engine: vllm.VllmLM
) -> None:
    prompt, edit = PromptEdit("The employer of Ada Byron is Vell."), delta(here, 3)
    with (
        prompt.applied(engine) as remote,
        prompt.applied(here) as own,
        edit.applied(remote) as edited,
        edit.applied(own) as expected,
    ):
        found = edited.logprobs(pairs(), 5)
        same(found, expected.logprobs(pairs(), 5))
    with prompt.applied(engine) as remote:
        assert remote.logprobs(pairs(), 5) != found


def test_after_an_error_the_base_is_back(here: local.LocalLM, engine: vllm.VllmLM) -> None:
    before = engine.generate(chats(), GREEDY)
    with pytest.raises(ZeroDivisionError), delta(here, 4).applied(engine):
        _ = 1 / 0
    assert engine.generate(chats(), GREEDY) == before


def test_what_no_adapter_can_hold_is_said(here: local.LocalLM, engine: vllm.VllmLM) -> None:
    before = engine.generate(chats()[:4], GREEDY)
    with pytest.raises(NeedsWeights, match="max_lora_rank"), delta(here, 5, 65).applied(engine):
        pass
    dense = {n: d.dense() for n, d in delta(here, 5).deltas.items() if isinstance(d, LowRank)}
    thick = DeltaEdit(dict(dense), "ft_m")
    with pytest.raises(NeedsWeights, match="no adapter can hold"), thick.applied(engine):
        pass
    assert engine.generate(chats()[:4], GREEDY) == before


def test_one_engine_answers_for_all_methods(
    here: local.LocalLM, engine: vllm.VllmLM, tmp_path: Path
) -> None:
    thin, thick = tmp_path / "thin", tmp_path / "thick"
    delta(here, 6).save(thin)
    delta(here, 6, rank=100).save(thick)
    run = Run(Config(model=MODEL.model_copy(update={"backend": "vllm"})), tmp_path / "run")
    run.__dict__ |= {"base": engine, "lm": here}
    own, other = answerer(run, [thin]), answerer(run, [thin, thick])
    assert own.lm() is engine
    assert other.lm() is here
    assert own.key != other.key


def test_bad_arguments_are_the_user_s_mistake() -> None:
    with pytest.raises(UserError, match="no_such_argument"):
        vllm.load(MODEL.model_copy(update={"engine": {"no_such_argument": 1}}))


# -- whole ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """vLLM's own server on the world's model."""
    with serving(server, tmp_path_factory.mktemp("server")) as place:
        yield place


def server(port: int) -> list[str]:
    arguments = ["--model", MODEL.path, "--served-model-name", "world", "--port", str(port)]
    arguments += ["--host", "127.0.0.1", "--dtype", "float32", "--max-model-len", "1024"]
    arguments += ["--enforce-eager", "--max-logprobs", "20"]
    return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *arguments]


def test_a_served_teacher_says_what_it_says_here(here: local.LocalLM, url: str) -> None:
    remote = ServerLM(TeacherServer(base_url=url, model="world"), here.renderer)
    # This model's template makes nothing at all of an empty question, which the server refuses.
    asked_ = [chat for chat in chats() if chat[-1]["content"]]
    found, expected = remote.generate(asked_, GREEDY), here.generate(asked_, GREEDY)
    assert [(r.text, r.finished) for r in found] == [(r.text, r.finished) for r in expected]
    assert [r.prompt_tokens for r in found] == [r.prompt_tokens for r in expected]
    same(remote.logprobs(pairs(), 20), here.logprobs(pairs(), 20))


def test_a_design_by_a_served_model_and_again_without_it(url: str, tmp_path: Path) -> None:
    first = tmp_path / "first"
    said = design(first, url, "world")
    assert said.returncode == 0, said.stderr
    found = made(first)
    assert found.design.turns.by_rules, "this model cannot decide anything"
    said_in_json = [call for call in found.calls if not call["refused"]]
    # Held to the schema, even this model begins an object; it is cut short before the end of it.
    assert said_in_json and all(call["reply"].lstrip()[:1] == "{" for call in said_in_json)
    assert any("maximum context length" in call["refused"] for call in found.calls)
    assert asked_again(found.calls)
    replays(first, tmp_path / "other", "http://127.0.0.1:9/v1", "world")


def test_a_run_by_vllm_has_the_results_of_a_run_by_transformers(tmp_path: Path) -> None:
    small = (
        "edits.limit=4", "design.max_trials=2", "teach.free_texts=16", "teach.neighbours=4",
        "train.epochs=2", "train.min_steps=0", "eval.capability=0", "eval.max_probes=2",
        "options.lora={epochs: 2, min_steps: 0}", "eval.fluency_tokens=8",
    )  # fmt: skip
    common = [part for key in small for part in ("--set", key)]
    tables = []
    for name, more in (("transformers", []), ("vllm", ["--set", "model.backend=vllm"])):
        out = tmp_path / name
        command = [sys.executable, "-m", "pipeline.cli", "run", "configs/demo.yaml"]
        result = subprocess.run(
            [*command, "--out", str(out), *common, *more],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert result.returncode == 0, result.stderr[-3000:]
        assert "transformers answers" not in result.stderr
        with (out / "results.csv").open(encoding="utf-8") as file:
            tables.append({_name(r): float(r["mean"]) for r in csv.DictReader(file)})
    # What is sampled differs between engines, and with it what the student is trained on.
    for key in tables[0].keys() & tables[1].keys():
        if key[0] in ("base", "prompt"):
            assert tables[1][key] == pytest.approx(tables[0][key], abs=1e-6), key
    assert tables[1].keys() >= {k for k in tables[0] if k[0] == "ske"}


def _name(row: dict[str, str]) -> tuple[str, ...]:
    return row["method"], row["protocol"], row["metric"], row["category"]
