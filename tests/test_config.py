"""The configuration: complete, strict, repeatable."""

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ske.config import Config, load, parse, resolved
from ske.types import UserError

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "some.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert load(written(tmp_path, "# nothing\n")) == Config()
    assert Config().model.path == "world/model"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_loads_and_repeats(path: Path, tmp_path: Path) -> None:
    config = load(path)
    assert load(written(tmp_path, resolved(config))) == config


def test_the_resolved_form_has_every_key() -> None:
    tree = yaml.safe_load(resolved(Config()))
    assert tree == Config().model_dump(mode="json")
    assert set(tree) == set(Config.model_fields)
    assert tree["data"]["path"] is None


TEXTS = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), min_size=1)


@settings(deadline=None, max_examples=30)
@given(
    st.builds(
        dict,
        seed=st.integers(0, 2**31),
        edits=st.builds(dict, limit=st.none() | st.integers(1, 10**6)),
        train=st.builds(dict, learning_rate=st.floats(1e-8, 1.0), epochs=st.floats(0.1, 100)),
        data=st.builds(dict, path=st.none() | TEXTS),
        options=st.dictionaries(
            st.sampled_from(["lora", "prompt"]),
            st.dictionaries(TEXTS, st.booleans() | TEXTS | st.integers()),
        ),
    )
)
def test_resolved_and_loaded_is_the_same(tree: dict[str, object]) -> None:
    config = parse(tree, "test")
    assert parse(yaml.safe_load(resolved(config)), "test") == config


def test_overrides_are_yaml_at_a_path(tmp_path: Path) -> None:
    path = written(tmp_path, "edits: {limit: 3, seed: 2}\n")
    sets = ["edits.limit=16", "seed=3", "methods=[base, lora]", "options.lora.rank=4"]
    config = load(path, [*sets, "data.path=a=b.jsonl", "eval.max_probes=null", "seed = 4"])
    assert (config.edits.limit, config.edits.seed, config.seed) == (16, 2, 4)
    assert config.methods == ("base", "lora")
    assert config.options == {"lora": {"rank": 4}}
    assert config.data.path == "a=b.jsonl"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("edits.limit", "key.path=value"),
        ("=3", "key.path=value"),
        ("edits.limit=[1", "not YAML"),
        ("edits.limit=many", r"edits\.limit = 'many'"),
        ("edits.limit=0", r"edits\.limit = 0.*greater than or equal to 1"),
        ("edits.limits=3", r"'edits\.limits' \(value 3\); did you mean 'limit'"),
        ("methods=base", r"methods = 'base': Input should be a list: \[base\]$"),
        ("edits.limit=true", r"edits\.limit = True: Input should be a number$"),
        ("train.learning_rate=no", r"train\.learning_rate = False: Input should be a number$"),
        ("seed.deep=3", r"'seed' has no keys below it"),
        ("model.dtype=int8", r"model\.dtype = 'int8'.*bfloat16"),
    ],
)
def test_bad_overrides(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(written(tmp_path, "seed: 1\n"), [override])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trian: {}\n", r"some\.yaml: unknown key 'trian' .*did you mean 'train'"),
        ("train: {ranks: 3}\n", r"unknown key 'train\.ranks' \(value 3\); did you mean 'rank'"),
        ("world: {zzz: 3}\n", "known keys: path"),
        ("train: 3\n", r"some\.yaml: train = 3"),
        ("train: [\n", r"some\.yaml: not YAML.*line 2"),
        ("- a\n", "expected `key: value` lines, found list"),
        ("methods: base\n", "methods = 'base'"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load(written(tmp_path, text))
    assert re.search(message, str(caught.value), re.DOTALL)


def test_all_problems_of_a_file_come_together(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load(written(tmp_path, "trian: {}\nedits: {limit: 0}\nseed: x\n"))
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert all("some.yaml: " in line for line in lines)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bytes.yaml").write_bytes(b"seed: \xff\n")
    for path in (tmp_path, tmp_path / "missing.yaml", tmp_path / "bytes.yaml"):
        with pytest.raises(UserError, match=r"cannot be read.*configs/demo\.yaml"):
            load(path)


def test_another_world_brings_its_own_model(tmp_path: Path) -> None:
    path = written(tmp_path, "seed: 1\n")
    assert load(path, ["world.path=worlds/seven"]).model.path == "worlds/seven/model"
    assert load(path, ["world.path=worlds/seven", "model.path=mine"]).model.path == "mine"
    assert load(path, ["world.path=worlds/seven", "model.device=cpu"]).model.model_dump() == {
        **Config().model.model_dump(),
        "path": "worlds/seven/model",
        "device": "cpu",
    }
    repeated = load(written(tmp_path, resolved(load(path, ["world.path=worlds/seven"]))))
    assert repeated.model.path == "worlds/seven/model"


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().seed = 3  # pyright: ignore[reportAttributeAccessIssue]


SERVER = "server: {base_url: http://localhost:8000/v1, model: m}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {backend: openai}", "needs model.server"),
        ("model: {backend: tgi}", "model.backend = 'tgi'"),
        (f"model: {{backend: openai, {SERVER}}}\nedits: {{mode: sequential}}", "earlier rounds"),
    ],
)
def test_backends_that_cannot_be(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load(path)
    assert message in str(caught.value)
    assert "free_texts" not in str(caught.value)  # not the whole configuration


def test_a_key_in_the_wrong_place_is_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(
        "model: {backend: openai, server: {base_url: 'http://u:s3cret@h/v1', model: m,"
        " key_env: 's3cret key', api_key: s3cret}}"
    )
    with pytest.raises(UserError) as caught:
        load(path)
    assert "model.server" in str(caught.value)
    assert "s3cret" not in str(caught.value)
