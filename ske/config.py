"""The whole configuration of a run: frozen, complete, unknown keys refused.

Reads a YAML file and `key.path=value` overrides; `resolved` writes the complete form back, so that
`ske run runs/demo/config.yaml` repeats a run. Config is data: nothing heavy is built here.
"""

from __future__ import annotations

import difflib
import types
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from ske.endpoints import EndpointConfig, TeacherServer
from ske.explaining import booleans, reason
from ske.teaching import TeachConfig
from ske.training import Count, NotNegativeInt, Positive, StudentOptions
from ske.types import Frozen, UserError

Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""What every library takes for one."""


class ModelConfig(Frozen):
    """Which model is edited, and how it is run."""

    path: str = "world/model"
    """A local folder or a hub id."""
    device: str = "auto"
    """"auto" is cuda if there is one, else cpu."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """"auto" is bfloat16 on a GPU and float32 on a CPU."""
    style: Literal["auto", "chat", "plain"] = "auto"
    """How a question is put: by the tokenizer's chat template, or as a text to complete.
    "auto" is the template if there is one."""
    batch_tokens: int = Field(default=8192, ge=64)
    """Most tokens in one forward pass, padding included."""
    backend: Literal["transformers", "vllm", "openai"] = "transformers"
    """Who answers. "vllm": vLLM in this process, edits served as adapters (extra `vllm`).
    "openai": the agents' and the teacher's questions go to `server`. Weights are edited and
    trained by transformers in any case. See docs/scale-out.md."""
    engine: dict[str, Any] = Field(default_factory=dict)
    """Arguments of vLLM's own `LLM`, over those chosen here, e.g. {tensor_parallel_size: 2}."""
    server: TeacherServer | None = None
    """Where `backend: openai` finds the teacher."""

    @model_validator(mode="after")
    def _reachable(self) -> ModelConfig:
        if self.backend == "openai" and self.server is None:
            raise ValueError(
                "backend openai needs model.server, e.g. "
                "{base_url: http://localhost:8000/v1, model: NAME}"
            )
        return self


class DataConfig(Frozen):
    """Where the corrections come from."""

    name: str = "world_counterfact"
    """A benchmark of the embedded world (`ske datasets` lists them); ignored if `path` is given."""
    split: Literal["val", "test"] = "test"
    """People of the embedded world to tune on, or to report on."""
    path: str | None = None
    """A file of a data set that `ske datasets` lists, or facts.jsonl."""


class WorldConfig(Frozen):
    """The embedded world that `data.name` refers to."""

    path: str = "world"
    """A folder that `ske world build --out` made; its `model/` becomes the default model."""


class EditsConfig(Frozen):
    """Which corrections are made, and how many at a time."""

    limit: int | None = Field(default=64, ge=1)
    """How many facts, None for all; `mode: sequential` takes rounds x per_round instead."""
    seed: Seed = 0
    """Draws the facts and, on the embedded world, their new targets."""
    mode: Literal["batch", "single", "sequential"] = "batch"
    """batch: all facts in one edit. single: each alone on a fresh base, asked about itself only.
    sequential: rounds, each on the model as the rounds before it left it."""
    rounds: int = Field(default=8, ge=1)
    """How many rounds (`mode: sequential`)."""
    per_round: int = Field(default=8, ge=1)
    """Facts edited together in a round (`mode: sequential`)."""


class DesignConfig(Frozen):
    """How the agents design prompts."""

    brain: Literal["rules", "model"] = "rules"
    """Who decides: deterministic rules, or a chat model, whose unusable replies rules replace."""
    endpoint: EndpointConfig | None = None
    """Where the brain "model" is; None: the run's own model decides."""
    recall: float = Field(default=0.95, gt=0, le=1)
    """A capacity counts if at least this share of the facts is answered from the prompt."""
    repairable: float = Field(default=0.05, ge=0, le=1)
    """A trial of the search may miss the wanted recall by so much: repairs bring that back, by
    moving lost facts or stating them twice. Nothing without repairs (`max_repairs`)."""
    max_facts: int = Field(default=128, ge=1)
    """The most facts one prompt may hold."""
    layouts: tuple[str, ...] = Field(
        default=("by_relation", "triples", "prose", "by_subject"), min_length=1
    )
    """Layouts to search, best guess first; see `prompts/teacher`."""
    search: Literal["bisect", "gepa"] = "bisect"
    """How the Planner finds what to try next. "bisect": the largest capacity, layout by layout.
    "gepa": GEPA chooses, from its Pareto front over facts, what is changed next (extra `gepa`)."""
    search_seed: Seed = 0
    """Seeds GEPA's choices."""
    max_trials: int = Field(default=24, ge=1)
    """Budget of the search: how many (layout, capacity) pairs are examined at most."""
    max_calls: int | None = Field(default=None, ge=1)
    """Budget of the whole design: questions put to the teacher. None: as many as it takes."""
    max_tokens: int | None = Field(default=None, ge=1)
    """The same in tokens, the teacher's and those of a model that decides; where there are too few
    left for its turn, the rules decide."""
    max_seconds: float | None = Field(default=None, gt=0)
    """The same in seconds of answering and deciding. A design that ran out of any of these still
    places every fact; those that could not be examined count as lost."""
    max_repairs: int = Field(default=2, ge=0)
    """Rounds in which lost facts are moved, repeated or given a prompt of their own."""
    drift: float = Field(default=0.5, ge=0, le=1)
    """Between layouts of equal recall: weight of neighbour drift against facts per token."""
    approve: bool = False
    """Stop before the teacher and wait for a person to approve the prompts."""


class TrainConfig(StudentOptions):
    """How the student is trained; here is only where it differs from other fine-tuning."""

    rank: Count = 16
    alpha: int = 16
    learning_rate: Positive = 2e-3
    epochs: Positive = 5.0
    min_steps: NotNegativeInt = 320
    least_batch: Count | None = 8


class EvalConfig(Frozen):
    """How methods are asked and scored."""

    protocols: tuple[Literal["teacher_forced", "generate"], ...] = Field(
        default=("teacher_forced", "generate"), min_length=1
    )
    """Teacher forcing is comparable with the literature; generation is what users see."""
    max_new_tokens: int = Field(default=24, ge=1)
    """Longest answer when generating."""
    max_probes: int | None = Field(default=None, ge=1)
    """At most so many probes of a category per case (None: all), the first ones of the file."""
    capability: int = Field(default=100, ge=0)
    """Questions of each kind that an edit should leave alone, and texts for perplexity."""
    fluency_tokens: int = Field(default=48, ge=0)
    """Length of the text that a model writes behind each edit's prompt (fluency); 0: none."""
    judge: EndpointConfig | None = None
    """A chat model that marks free replies as well (`edit_success_judged`, ...); None: nobody."""
    tasks: tuple[str, ...] = ()
    """Tasks of lm-evaluation-harness, by name or as a task's YAML file (extra `eval`)."""
    task_limit: int | None = Field(default=100, ge=1)
    """Questions of each task, None for all."""


class LeakageConfig(Frozen):
    """The guard between training queries and probes."""

    strict: bool = False
    """Fail the run on a near-copy instead of dropping and counting it."""
    ngram: int = Field(default=5, ge=1)
    """Length of the word n-grams that are compared."""
    threshold: float = Field(default=0.8, gt=0, le=1)
    """Share of common n-grams from which a query counts as a near-copy."""


class PracticeConfig(Frozen):
    """Solved examples, for methods that learn to edit (MEND) or show how it is done (IKE)."""

    path: str | None = None
    """A data set; else other cases of `data`: on the embedded world those of its `val` people.
    Cases that share a subject with an edited fact are never used."""
    limit: int = Field(default=256, ge=1)
    """How many cases at most."""


class TextsConfig(Frozen):
    """General text, for methods that need statistics of what the model usually sees (ROME)."""

    path: str | None = None
    """A text file, paragraphs between blank lines; else texts are sampled from the model."""


class Config(Frozen):
    """One run."""

    seed: Seed = 0
    """Seeds training and sampling."""
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    world: WorldConfig = WorldConfig()
    edits: EditsConfig = EditsConfig()
    methods: tuple[str, ...] = ("base", "prompt", "lora", "ske")
    """What is compared; `ske methods` lists the names. The first is always the unedited base."""
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Options of single methods by name, over configs/methods/NAME.yaml."""
    tuned: str | None = None
    """A folder of NAME.yaml with options tuned for this model: over those of configs/methods,
    under `options`."""
    practice: PracticeConfig = PracticeConfig()
    texts: TextsConfig = TextsConfig()
    design: DesignConfig = DesignConfig()
    teach: TeachConfig = TeachConfig()
    train: TrainConfig = TrainConfig()
    eval: EvalConfig = EvalConfig()
    leakage: LeakageConfig = LeakageConfig()
    meanwhile: bool = False
    """On a processor: while the student is trained on half of the threads, a process with the other
    half edits with the other methods and asks them. Same results, sooner; twice the model in
    memory, and the seconds of different methods no longer compare."""

    @model_validator(mode="after")
    def _edits_reach_the_teacher(self) -> Config:
        if self.model.backend == "openai" and self.teach.model is not None:
            raise ValueError(
                "there are two teachers: teach.model, and the server of model.backend openai; "
                "leave one of them out"
            )
        if self.edits.mode == "sequential":
            needs = "edits.mode sequential needs a teacher with the edits of earlier rounds, which"
            if self.model.backend == "openai":
                raise ValueError(
                    f"{needs} a server does not have; set model.backend to transformers or vllm"
                )
            if self.teach.model is not None:
                raise ValueError(f"{needs} another model does not have; leave teach.model out")
        return self

    @field_validator("methods")
    @classmethod
    def _base_first(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        """Locality is measured against the base model, so it is always asked, and first."""
        return tuple(dict.fromkeys(("base", *names)))


ROOT = Path(__file__).resolve().parent.parent
"""The checkout: what a configuration names relatively is looked for here, too."""


def found(path: str) -> Path:
    """A path of the configuration: from the current folder or, if it is not there, the checkout."""
    here, there = Path(path), ROOT / path
    return there if not here.exists() and there.exists() else here


def load(path: Path, overrides: list[str] | None = None) -> Config:
    """Read a configuration file and apply `key.path=value` overrides.

    Raises:
        UserError: no such file, broken YAML, an unknown key (with the nearest known one) or a bad
            value; all problems of one file in one message.
    """
    tree = read_yaml(path)
    for override in overrides or []:
        apply(tree, override)
    return parse(tree, str(path))


def parse(tree: dict[str, Any], source: str) -> Config:
    """Check a tree of plain values; `source` is what messages call it."""
    if wrong := list(booleans(Config, tree)):
        told = (f"{source}: {key} = {value}: Input should be a number" for key, value in wrong)
        raise UserError("\n".join(told))
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise UserError("\n".join(_explain(source, dict(e)) for e in error.errors())) from error
    named = isinstance(tree.get("model"), dict) and "path" in tree["model"]
    if named or config.world == WorldConfig():
        return config
    # Another world brings its own base model.
    model = config.model.model_copy(update={"path": f"{config.world.path}/model"})
    return config.model_copy(update={"model": model})


def resolved(config: Config) -> str:
    """The complete configuration as YAML, every default written out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def read_yaml(path: Path) -> dict[str, Any]:
    """The `key: value` lines of a YAML file.

    Raises:
        UserError: it cannot be read, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); give a YAML file, e.g. configs/demo.yaml"
        ) from error
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {error}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(
            f"{path}: expected `key: value` lines, found {type(tree).__name__} {tree!r}"
        )
    return tree


def apply(tree: dict[str, Any], override: str) -> None:
    """Put one `key.path=value` into a tree of plain values.

    Raises:
        UserError: it is not written like that, or a parent of the key is no section.
    """
    key, separator, text = override.partition("=")
    if not separator or not key.strip():
        raise UserError(f"--set {override!r}: write it as key.path=value, e.g. edits.limit=16")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override!r}: the value is not YAML: {error}") from error
    *parents, last = key.strip().split(".")
    for parent in parents:
        if tree.get(parent) is None:
            tree[parent] = {}  # A section that is optional is written as null.
        node = tree[parent]
        if not isinstance(node, dict):
            raise UserError(f"--set {override!r}: {parent!r} has no keys below it")
        tree = node
    tree[last] = value


def _explain(source: str, error: dict[str, Any]) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        known = _keys_at(error["loc"][:-1])
        near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        value = "" if _may_hold_a_key(error) else f" (value {error['input']!r})"
        return f"{source}: unknown key {place!r}{value}; {hint}"
    if error["type"] == "value_error" and isinstance(error["input"], dict):
        # About keys that do not go together; a whole section is no value to quote.
        return f"{source}: {place + ': ' if place else ''}{error['msg']}"
    if _may_hold_a_key(error):
        return f"{source}: {place}: {error['msg']}"
    return f"{source}: {place} = {error['input']!r}: {reason(error)}"


def _may_hold_a_key(error: dict[str, Any]) -> bool:
    """Whether the refused value could be, or have in it, a secret that was put into a file."""
    if not {"endpoint", "judge", "server"} & set(error["loc"]):
        return False
    whole = error["type"] in ("extra_forbidden", "missing", "model_type")
    last, text = error["loc"][-1], str(error["input"])
    address = last == "base_url" and bool({"@", "?"} & set(text))
    return whole or last == "key_env" or address


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Config
    for part in location:
        annotation = model.model_fields[str(part)].annotation
        if isinstance(annotation, types.UnionType):
            annotation = get_args(annotation)[0]
        if not isinstance(annotation, type) or not issubclass(annotation, BaseModel):
            return []
        model = annotation
    return list(model.model_fields)
