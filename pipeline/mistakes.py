"""Mistakes in a configuration that can be found before anything heavy is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from ske.config import Config
from ske.types import UserError


def check_methods(names: Sequence[str]) -> None:
    """Raises UserError on a name that is no method's."""
    from methods.table import METHODS

    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise UserError(f"unknown method {unknown[0]!r}; there are: {', '.join(METHODS)}")


def check_options(config: Config) -> None:
    """Raises UserError on bad options, bad tasks, and a backend or search that is missing."""
    from agents.searching import ready as search_ready

    search_ready(config.design)  # What follows imports torch.
    from eval.harness import check
    from methods.base import Workshop
    from methods.table import build
    from pipeline.answering import ready
    from pipeline.places import options_for

    ready(config.model)
    check(config.eval.tasks)
    if "ske" in config.options:
        raise UserError("options.ske: the student's options are the keys of `train`")
    for name in config.methods:
        build(name, options_for(config, name), Workshop())
