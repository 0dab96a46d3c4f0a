"""The cross-entropy method: a search for good weights that needs no gradient.

Draws a population of weights in [0, 1] from a Gaussian, and moves the Gaussian to its best. With
32 draws and a fifth of them elite it is what Transformer-squared mixes experts with (Sun, Cetin and
Tang 2025, arXiv 2501.06252, section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

Score = tuple[float, float]
"""What counts, and what breaks its ties; more is better."""

SETTLED = 1e-3
"""A deviation below which new draws are the old ones."""


class Found(NamedTuple):
    """The best weights and how good they are."""

    weights: torch.Tensor
    """[size], each in [0, 1]."""
    score: Score


def search(
    score: Callable[[torch.Tensor], Score],
    size: int,
    population: int,
    elite: float,
    generations: int,
    draw: torch.Generator,
) -> Found:
    """Search `size` weights that `score` likes best.

    As the authors' code: mean 1 / size and deviation 1/2 at the start, draws cut to [0, 1], the
    best so far always among them. Different: ties are broken among the elite, too, and the search
    ends when it has settled.
    """
    mean, deviation = torch.full((size,), 1 / size), torch.full((size,), 0.5)
    best = Found(mean, score(mean))
    count = max(2, int(elite * population))
    for _ in range(generations):
        drawn = torch.randn(population, size, generator=draw) * deviation + mean
        drawn = drawn.clamp(0, 1)
        drawn[0] = best.weights
        found = [best, *(Found(one, score(one)) for one in drawn[1:])]
        found.sort(key=lambda one: one.score, reverse=True)
        best = found[0]
        top = torch.stack([one.weights for one in found[:count]])
        mean, deviation = top.mean(0), top.std(0)
        if deviation.max() < SETTLED:
            break
    return best
