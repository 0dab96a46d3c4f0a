"""Options that a model has no place for, and practice of no use, are told before any work."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from methods.base import Workshop
from methods.student import Student
from methods.table import METHODS, build
from pipeline.fitting import check_fit
from pipeline.mistakes import check_options
from ske.config import ModelConfig, parse
from ske.types import UserError

PLAIN = {"prompt": "The capital of Ruria is", "subject": "Ruria", "target_new": "Vell"}


def check(folder: Path, methods: str = "base,rome,lora,ske", **tree: Any) -> None:
    whole = {"model": {"path": str(folder)}, "methods": methods.split(","), **tree}
    check_options(parse(whole, "test"))


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        (
            {"options": {"rome": {"layers": [9]}}},
            r"^options\.rome\.layers: 9 is not .* layers 0 to 1",
        ),
        ({"options": {"lora": {"layers": [2]}}}, r"^options\.lora\.layers: 2 is not there"),
        ({"train": {"layers": [7]}}, r"^train\.layers: 7 is not there"),
        ({"train": {"target_modules": ["foo"]}}, r"^train\.target_modules: foo: .* q_proj"),
        (
            {"train": {"start": "memit", "start_options": {"layers": [5]}}},
            r"^train\.start_options\.layers: 5 is not there",
        ),
        ({"practice": {"path": "/no"}}, r"^practice\.path = '/no': no such file"),
        ({"texts": {"path": "/no"}}, r"^texts\.path = '/no': no such file"),
        ({"data": {"path": "/no.json"}}, r"^data\.path = '/no\.json': no such file"),
    ],
)
def test_what_is_not_there_is_told_with_its_key(
    model_folder: Path, tree: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        check(model_folder, **tree)


def test_what_fits_is_not_refused(model_folder: Path) -> None:
    fitting = {"layers": [0, 1], "target_modules": ["q_proj", "down_proj"]}
    options = {"rome": {"layers": [1]}, "lora": fitting}
    start = {"start": "memit", "start_options": {"layers": [0]}}
    check(model_folder, options=options, train=fitting | start)
    check(model_folder, train={"tuning": "full", "layers": [7]})  # Full tuning asks for none.


@pytest.mark.parametrize("change", [{"quantization_config": {"quant_method": "x"}}, {}])
def test_modules_are_left_to_loading_where_they_may_be_others(
    model_folder: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    told = json.loads((model_folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(told | change))
    if not change:
        (tmp_path / "adapter_config.json").write_text("{}")
    assert AutoConfig.from_pretrained(tmp_path).num_hidden_layers == 2
    editors = {"lora": build("lora", {"target_modules": ["foo"]}, Workshop())}
    check_fit(ModelConfig(path=str(tmp_path)), editors)


@pytest.mark.parametrize("method", ["mend", "ike"])
def test_plain_facts_are_no_practice(model_folder: Path, tmp_path: Path, method: str) -> None:
    facts = tmp_path / "facts.jsonl"
    facts.write_text(json.dumps(PLAIN) + "\n")
    data = {"path": str(facts)}
    said = rf"method '{method}'.*practice\.path.*leave {method} out of `methods`"
    with pytest.raises(UserError, match=said):
        check(model_folder, f"base,ske,{method}", data=data)
    check(model_folder, "base,ske", data=data)
    check(model_folder, f"base,ske,{method}")  # The embedded world's other people are some.


def test_practice_that_cannot_be_read_is_told_with_its_key(
    model_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "torn.json").write_text("[{")
    with pytest.raises(UserError, match=r"^practice\.path: torn\.json"):
        check(model_folder, "base,mend", practice={"path": str(tmp_path / "torn.json")})


@pytest.mark.parametrize("name", [name for name in METHODS if not METHODS[name].taught])
def test_a_start_is_known_by_what_its_editor_makes(name: str) -> None:
    if not METHODS[name].runs_here():
        pytest.skip(f"needs {METHODS[name].needs}")
    none = {"base", "prompt", "prompt_packed", "ike", "retrieval", "svf"}
    if name in none:
        with pytest.raises(UserError, match=rf"train\.start = '{name}': it does not change"):
            Student({"start": name}, Workshop())
    else:
        Student({"start": name}, Workshop())
