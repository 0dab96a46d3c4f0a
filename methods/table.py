"""The one table of methods: name -> where it is and what it does; imported when used."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from ske.types import UserError

if TYPE_CHECKING:
    # Imports torch: the names of the methods are to be had without.
    from methods.base import Edit, Editor, Workshop

CONFIGS = Path(__file__).parent.parent / "configs" / "methods"


class Method(NamedTuple):
    """A line of the table."""

    target: str
    about: str
    taught: bool = False
    """Whether it learns from a teacher: such a method has stages of its own."""
    needs: str = ""
    """A module of an extra that must be installed."""
    saved: bool = True
    """Whether its edit is a difference of weights, which can be saved as an ordinary checkpoint."""

    def runs_here(self) -> bool:
        """Whether what it needs is installed."""
        return not self.needs or importlib.util.find_spec(self.needs) is not None


METHODS = {
    "base": Method("methods.unedited:Unedited", "the model as it is", saved=False),
    "prompt": Method(
        "methods.prompt:Prompt", "all facts in one prompt, weights untouched", saved=False
    ),
    "prompt_packed": Method(
        "methods.packed:Packed",
        "facts in packs, a question gets the pack it is nearest to",
        saved=False,
    ),
    "ike": Method(
        "methods.ike:Ike",
        "demonstrations of how new facts are used before a question",
        saved=False,
    ),
    "retrieval": Method(
        "methods.retrieval:Scr",
        "facts retrieved and confirmed, for questions about them only",
        saved=False,
    ),
    "lora": Method("methods.lora:Lora", "low-rank adapters trained on the bare facts"),
    "mend": Method("methods.mend:Mend", "a trained network turns gradients into edits"),
    "svf": Method(
        "methods.svf:Svf", "singular values of the MLPs scaled by trained factors", saved=False
    ),
    "adalora": Method(
        "methods.adalora:AdaLora", "low-rank adapters whose ranks are shared out by importance"
    ),
    "ft_l": Method("methods.ft:FtL", "one MLP projection, trained on the target's bag of tokens"),
    "ft_m": Method("methods.ft:FtM", "one MLP projection, trained on the target"),
    "locft": Method("methods.locft:LocFt", "one MLP projection, large batches, breadth first"),
    "qlora": Method(
        "methods.qlora:QLora",
        "low-rank adapters on a base of 4 bits a weight",
        needs="bitsandbytes",
    ),
    "mixsd": Method("methods.mixsd:MixSd", "trained on mixtures of informed and naive answers"),
    "sdft": Method("methods.sdft:Sdft", "its own answers, drawn to the prompted model's"),
    "rome": Method("methods.rome:Rome", "a rank-1 update a fact of one layer, one after the other"),
    "r_rome": Method("methods.rome:RRome", "ROME with the same key on both sides of its update"),
    "memit": Method("methods.memit:Memit", "all facts at once, spread over several layers"),
    "alphaedit": Method("methods.alphaedit:AlphaEdit", "MEMIT in the null space of what is stored"),
    "ske": Method(
        "methods.student:Student",
        "a student trained on a prompted teacher's verified answers",
        taught=True,
    ),
}

TAUGHT = next(name for name, method in METHODS.items() if method.taught)
"""The one that stage `train` makes; its options are the keys of `train`."""

FORMS = {
    "none": "methods.unedited:NoEdit",
    "prompt": "methods.prompt:PromptEdit",
    "prompt_packed": "methods.packed:PackedEdit",
    "ike": "methods.ike:IkeEdit",
    "retrieval": "methods.retrieval:ScrEdit",
    "delta": "methods.delta:DeltaEdit",
    "svf": "methods.svf_edit:SvfEdit",
    "svf_experts": "methods.experts:ExpertsEdit",
}
"""How a saved edit says what it is -> what reads it."""


def build(name: str, options: dict[str, Any], workshop: Workshop) -> Editor:
    """An editor with its defaults from configs/methods/NAME.yaml, under `options`.

    Raises:
        UserError: no such method, or an option it does not know.
    """
    if name not in METHODS:
        raise UserError(f"unknown method {name!r}; there are: {', '.join(METHODS)}")
    return _resolve(METHODS[name].target)({**defaults(name), **options}, workshop)


def defaults(name: str) -> dict[str, Any]:
    """The tuned options of a method, from configs/methods/NAME.yaml if there is one."""
    path = CONFIGS / f"{name}.yaml"
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.exists() else {}


def load_edit(folder: Path) -> Edit:
    """Read any saved edit.

    Raises:
        UserError: the folder holds none.
    """
    path = folder / "edit.json"
    if not path.exists():
        raise UserError(f"{folder}: no edit.json, so no saved edit")
    form = json.loads(path.read_text(encoding="utf-8")).get("form")
    if form not in FORMS:
        raise UserError(f"{path}: form {form!r} is unknown; known: {', '.join(FORMS)}")
    return _resolve(FORMS[form]).load(folder)


def _resolve(target: str) -> Any:
    module, name = target.split(":")
    return getattr(importlib.import_module(module), name)
