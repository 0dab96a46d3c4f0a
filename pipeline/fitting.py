"""Do a configuration's options fit its model, and the practice its methods? Told without weights.

What cannot be told for certain is left to the methods, which look again when they edit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.configuration_utils import PretrainedConfig
from transformers.modeling_utils import PreTrainedModel

from eval.cases import load
from methods.arch import check_layers
from methods.base import Editor, Practises
from methods.table import METHODS
from pipeline.practice import practice_of
from ske.config import Config, ModelConfig, found
from ske.training import LowRankOptions
from ske.types import UserError

ADAPTER = "adapter_config.json"
"""In a model's folder: what is loaded has adapters in the place of some linear maps."""


def check_fit(model: ModelConfig, editors: Mapping[str, Editor]) -> None:
    """Compare the layers and modules that editors, by their methods' names, are to change.

    Raises:
        UserError: the model has no such layer or linear map; names the key.
    """
    told = AutoConfig.from_pretrained(found(model.path))
    skeleton = None
    for key, options in _placed(editors):
        try:
            if (depth := _depth(told)) is not None:
                check_layers(getattr(options, "layers", None) or (), depth)
            modules = getattr(options, "target_modules", "all-linear")
            if modules != "all-linear":
                skeleton = skeleton or _skeleton(model, told)
                if skeleton is not None:
                    _check_modules(modules, skeleton)
        except UserError as error:
            raise UserError(f"{key}.{error}") from error


def _placed(editors: Mapping[str, Editor]) -> Iterator[tuple[str, Any]]:
    """The keys whose options say where a model is changed, and those options."""
    for name, editor in editors.items():
        key, options = f"options.{name}", getattr(editor, "options", None)
        if METHODS[name].taught:
            key, start = "train", getattr(editor, "start", None)
            if _says_where(below := getattr(start, "options", None)):
                yield "train.start_options", below
        if _says_where(options):
            yield key, options


def _says_where(options: Any) -> bool:
    """Whether layers are named by number, or modules; full fine-tuning asks for neither."""
    if getattr(options, "tuning", "lora") == "full":
        return False
    return isinstance(options, LowRankOptions) or isinstance(
        getattr(options, "layers", None), tuple
    )


def _depth(told: PretrainedConfig) -> int | None:
    """How many layers the text part of a model has; None if its config does not say."""
    try:
        depth = getattr(told.get_text_config(), "num_hidden_layers", None)
    except ValueError:  # Several parts that read text.
        return None
    return depth if isinstance(depth, int) else None


def _skeleton(model: ModelConfig, told: PretrainedConfig) -> PreTrainedModel | None:
    """The model without its weights; None where what is loaded may be built in another way."""
    quantised = getattr(told, "quantization_config", None) is not None
    if quantised or (found(model.path) / ADAPTER).exists():
        return None
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(told)
    except Exception:  # Whatever a foreign architecture raises: loading it will tell.
        return None


def _check_modules(wanted: Sequence[str], skeleton: PreTrainedModel) -> None:
    from methods.adapters import check_modules  # peft, which takes seconds: only when needed

    check_modules(wanted, skeleton)


def check_practice(config: Config, editors: Sequence[Editor]) -> None:
    """Read the file that solved examples come from, if a method needs some.

    Raises:
        UserError: it cannot be read, or nothing in it is of use to a method.
    """
    practising = [editor for editor in editors if isinstance(editor, Practises)]
    key = "practice.path" if config.practice.path is not None else "data.path"
    path = config.practice.path or config.data.path
    if not practising or path is None:
        return
    try:
        cases = load(found(path)).cases
    except UserError as error:
        raise UserError(f"{key}: {error}") from error
    for editor in practising:
        editor.check_practice([practice_of(case) for case in cases])
