"""What one call of `ske inspect` shows: one of its views, or what a person says about prompts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from rich.console import RenderableType

from pipeline import inspection
from pipeline.run import Run
from ske.types import UserError


class Wish(NamedTuple):
    """The options of the command line."""

    fact: str | None = None
    html: bool = False
    approve: bool = False
    reject: str | None = None
    turn: int | None = None
    diff: tuple[str, str] | None = None
    follow: bool = False


def look(run: Run, wish: Wish) -> Iterator[RenderableType]:
    """What to print, piece by piece.

    Raises:
        UserError: two views at once, or what a view needs is not there.
    """
    _check(wish)
    if wish.approve or wish.reject is not None:
        from pipeline.approving import answer

        yield answer(run, wish.approve, wish.reject)
    elif wish.follow:
        from pipeline.following import follow

        yield from follow(run)
    elif wish.turn is not None:
        from pipeline.turns import one_turn

        yield one_turn(run, wish.turn)
    elif wish.diff is not None:
        from pipeline.turns import compared

        yield compared(run, *wish.diff)
    elif wish.html:
        yield f"Wrote {inspection.page(run)}"
    elif wish.fact is not None:
        yield inspection.fact(run, wish.fact)
    else:
        yield inspection.overview(run)


def _check(wish: Wish) -> None:
    wanted = {
        "--fact": wish.fact is not None,
        "--html": wish.html,
        "--approve": wish.approve,
        "--reject": wish.reject is not None,
        "--turn": wish.turn is not None,
        "--diff": wish.diff is not None,
        "--follow": wish.follow,
    }
    named = [name for name, is_wanted in wanted.items() if is_wanted]
    if len(named) > 1:
        raise UserError(f"{' and '.join(named)}: say one of them")
