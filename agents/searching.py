"""Which search the Planner follows (`design.search`): one interface, imported when used."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Protocol

from agents import bisection
from agents.records import Plan, Trial
from ske.config import DesignConfig
from ske.types import MissingExtra


class Searcher(Protocol):
    """Proposes what to try next: a pure function, so that a killed design goes on as it would."""

    def __call__(self, trials: Sequence[Trial], sample: int, config: DesignConfig) -> Plan | None:
        """Propose.

        Args:
            trials: What was tried, by whatever purpose.
            sample: How many facts a trial of the search asks about.
            config: Layouts, the wanted recall and the most facts in a prompt.

        Returns:
            A plan of purpose "search" that was not tried yet; None when nothing is left.
        """
        ...


def searcher(config: DesignConfig) -> Searcher:
    """The search that the configuration names."""
    if config.search == "gepa":
        from agents.evolution import search  # It imports a package that not everybody has.

        return search
    return bisection.search


def parent(trials: Sequence[Trial], sample: int, config: DesignConfig) -> Trial | None:
    """The trial that the search changes next; None at its start, and if it changes none."""
    if config.search == "gepa":
        from agents.evolution import chosen

        return chosen(trials, sample, config.search_seed)
    return None


def ready(config: DesignConfig) -> None:
    """Check that the search can be run.

    Raises:
        MissingExtra: `gepa` is not installed.
    """
    if config.search == "gepa" and importlib.util.find_spec("gepa") is None:
        raise MissingExtra(
            "design.search = 'gepa' needs the package gepa; install it with: "
            "pip install -e '.[gepa]', or set design.search=bisect"
        )
