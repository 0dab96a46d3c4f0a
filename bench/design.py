"""What a design of prompts costs: the questions for each n log n at 4,096 facts against 64."""

from __future__ import annotations

from bench.agents_cost import SIZES, cost
from bench.row import Row
from ske.config import DesignConfig


def measure(long: bool) -> list[Row]:
    """Questions to a scripted teacher; see `bench.agents_cost`."""
    config = DesignConfig.model_validate({"layouts": ["triples"]})
    large, small = (cost(n, config) for n in (SIZES[-1], SIZES[0]))
    what = f"design: questions per n log2 n, {large.n} facts against {small.n}"
    shown = f"{large.rate:.2f}", f"{small.rate:.2f}"
    return [Row(what, *shown, [large.rate / small.rate], at_most=1)]
