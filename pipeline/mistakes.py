"""Mistakes in a configuration that can be found before anything heavy is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from ske.config import Config, ModelConfig, found
from ske.types import UserError


def check_methods(names: Sequence[str]) -> None:
    """Raises UserError on a name that is no method's."""
    from methods.table import METHODS

    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise UserError(f"unknown method {unknown[0]!r}; there are: {', '.join(METHODS)}")


def runnable(console: Console) -> list[str]:
    """Every method whose optional packages are installed; the others are named."""
    from methods.table import METHODS

    for name, method in METHODS.items():
        if not method.runs_here():
            console.print(
                f"Left out: {name}, which needs {method.needs}; see `ske doctor`.", highlight=False
            )
    return [name for name, method in METHODS.items() if method.runs_here()]


def check_options(config: Config) -> None:
    """Raises UserError on bad options, bad tasks, and a backend or search that is missing."""
    from agents.searching import ready as search_ready

    search_ready(config.design)  # What follows imports torch.
    from eval.harness import check
    from methods.base import Workshop
    from methods.table import METHODS, TAUGHT, build
    from pipeline.answering import ready
    from pipeline.fitting import check_fit, check_practice
    from pipeline.places import options_for
    from prompts.layouts import layouts

    ready(config.model)
    check_files(config)
    check_model(config.model)
    check_teacher(config)
    if unknown := set(config.design.layouts) - set(layouts()):
        raise UserError(
            f"design.layouts: no layout {min(unknown)!r}; there are {', '.join(layouts())}"
        )
    if config.tuned is not None and not found(config.tuned).is_dir():
        raise UserError(
            f"tuned = {config.tuned!r}: no such folder; methods' options for a model are in one, "
            "such as configs/world"
        )
    check(config.eval.tasks)
    if TAUGHT in config.options:
        raise UserError(f"options.{TAUGHT}: the student's options are the keys of `train`")
    told = {name: options_for(config, name) for name in config.methods}
    told |= {name: config.train.model_dump() for name in told if METHODS[name].taught}
    if config.train.start is not None:
        told[TAUGHT] = config.train.model_dump()
    editors = {name: build(name, options, Workshop()) for name, options in told.items()}
    check_fit(config.model, editors)
    check_practice(config, [editors[name] for name in config.methods])


def check_files(config: Config) -> None:
    """Raises UserError on a file that a key names and that is not there."""
    for key, path, instead in (
        ("data.path", config.data.path, "or leave it out and set data.name"),
        ("practice.path", config.practice.path, "or leave it out for other cases of the data"),
        ("texts.path", config.texts.path, "or leave it out and texts are sampled from the model"),
    ):
        if path is None or (found(path).exists() and not found(path).is_dir()):
            continue
        what = "a folder" if found(path).is_dir() else "no such file"
        raise UserError(f"{key} = {path!r}: {what}; give a file, {instead}")


def check_teacher(config: Config) -> None:
    """Raises UserError on another teacher that is not there, or speaks in other tokens if asked to.

    What a teacher tells, and its distribution, are learned token by token.
    """
    from pipeline.answering import other_teacher, tells

    if (teacher := other_teacher(config)) is None:
        return
    try:
        check_model(teacher)
    except UserError as error:
        raise UserError(str(error).replace("model.path", "teach.model")) from None
    if (config.teach.soft or config.teach.told) and not tells(config):
        key = "teach.soft" if config.teach.soft else "teach.told"
        raise UserError(
            f"{key}: the teacher {teacher.path!r} has other tokens than the edited model, which "
            "cannot learn its distribution; set teach.soft=false and teach.told=0"
        )


def check_model(model: ModelConfig) -> None:
    """Raises UserError on a model that is not there, or a device that this machine has not."""
    import torch
    from transformers import AutoConfig

    from ske.backends.common import see_folder, unloadable

    see_folder(model)
    try:
        AutoConfig.from_pretrained(found(model.path))
    except (OSError, ValueError) as error:
        raise UserError(unloadable(model, error)) from error
    if model.device == "auto":
        return
    try:
        torch.empty(0, device=model.device)
    except (AssertionError, RuntimeError) as error:
        raise UserError(
            f"model.device = {model.device!r}: not on this machine "
            f"({str(error).splitlines()[0]}); use auto, or cpu"
        ) from error
