"""The update of a layer, solved in facts or in keys, whichever are fewer, against always in keys.

The reference is what the authors' codes do: one dense system of the width of the keys for every
batch of facts, in fp64 like ours.
"""

from __future__ import annotations

import torch

from bench.row import Row
from bench.timing import Work, paired
from methods.alphaedit import NullSpace
from methods.memit import LeastSquares, Solver
from methods.moments import Moment

WIDTH, FEW, MANY, WEIGHT, RIDGE, SAME = 1536, 64, 2048, 15000.0, 10.0, 1e-6


def measure(long: bool) -> list[Row]:
    """Seconds a batch of facts; random keys."""
    width = 2 * WIDTH if long else WIDTH
    moment = _moment(width)
    basis = torch.linalg.eigh(moment.mean())[1][:, : width // 2]
    keys = _keys(FEW, width, 1)
    first = lambda: LeastSquares(Moment(moment.total, moment.count), WEIGHT).lefts(keys)  # noqa: E731
    later = LeastSquares(moment, WEIGHT)
    dense = lambda: _least_squares(moment, keys)  # noqa: E731
    return [
        _row(f"MEMIT: {FEW} facts, keys of {width}, C new", first, dense, 1),
        _row(f"MEMIT: {FEW} facts, keys of {width}, C known", lambda: later.lefts(keys), dense, 4),
        _row(
            f"AlphaEdit: {FEW} facts, keys of {width}",
            lambda: NullSpace(basis, RIDGE).lefts(keys),
            lambda: _null_space(basis, keys),
            4,
        ),
        _many(),
    ]


def _many() -> Row:
    """More facts than keys are wide: here the keys' own system is the smaller one."""
    moment, keys = _moment(WIDTH // 4), _keys(MANY, WIDTH // 4, 2)
    solver = LeastSquares(moment, WEIGHT)
    what = f"MEMIT: {MANY} facts, keys of {WIDTH // 4}, not in facts"
    return _row(what, lambda: solver.lefts(keys), lambda: _by_facts(solver, keys), 4)


def _row(what: str, ours: object, reference: object, at_least: float) -> Row:
    assert callable(ours) and callable(reference)
    found = paired(Work(ours), Work(reference), 3)
    one, other = found.gave
    off = ((one - other).abs().max() / other.abs().max()).item()
    wrong = f"they differ by {off:.1g} of the largest" if off > SAME else ""
    return Row(f"solve, {what}", *found.seconds(), found.ratios, at_least=at_least, wrong=wrong)


def _moment(width: int) -> Moment:
    moment = Moment.empty(width, torch.device("cpu"))
    moment.add(_keys(2 * width, width, 0))
    return moment


def _keys(count: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def _least_squares(moment: Moment, keys: torch.Tensor) -> torch.Tensor:
    """(lambda C + K K^T)^-1 K as it stands."""
    wide = keys.double()
    return torch.linalg.solve(WEIGHT * moment.mean() + wide.T @ wide, wide.T).T


def _null_space(basis: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """(P K K^T + L2 1)^-1 P K as it stands."""
    wide, projector = keys.double(), basis @ basis.T
    system = projector @ (wide.T @ wide)
    system.diagonal().add_(RIDGE)
    return torch.linalg.solve(system, projector @ wide.T).T


def _by_facts(solver: Solver, keys: torch.Tensor) -> torch.Tensor:
    """The system of size facts x facts, whatever their number."""
    assert isinstance(solver, LeastSquares)
    wide = keys.double()
    solved = solver.moment.solve(wide.T) / solver.weight
    inner = torch.eye(len(wide), dtype=wide.dtype) + wide @ solved
    return torch.linalg.solve(inner, solved.T)
