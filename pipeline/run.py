"""A run: a configuration, a folder, a model that loads when first needed, and a console."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from methods.table import METHODS
from pipeline.stage import Plan, Stage, execute, plan
from pipeline.stages import stages_for
from ske.config import Config, resolved
from ske.io import locked, write_text
from ske.types import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ske.backends.local import LocalLM


class Run:
    """What every stage gets."""

    def __init__(self, config: Config, folder: Path, console: Console | None = None) -> None:
        """Nothing is read or written yet."""
        self.config = config
        self.folder = folder
        self.console = console or Console(stderr=True)

    @functools.cached_property
    def lm(self) -> LocalLM:
        """The base model."""
        from ske.backends.local import load  # torch takes seconds to import: only when needed

        return load(self.config.model)

    def stage(self, name: str) -> Path:
        """The folder of another stage's output."""
        return self.folder / "stages" / name

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages this configuration has."""
        taught = any(METHODS[m].taught for m in self.config.methods if m in METHODS)
        return stages_for(taught, self.config.edits.mode)

    def plan(self) -> list[Plan]:
        """Where every stage stands."""
        return plan(self.stages, self.config, self.folder)

    @contextmanager
    def progress(self, label: str, total: int | None = None) -> Iterator[Callable[..., None]]:
        """A progress bar; the callback takes (done, total=None, note=""). Silent off a terminal."""
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(
            *columns, console=self.console, transient=True, disable=not self.console.is_terminal
        ) as bar:
            task = bar.add_task(label, total=total, note="")

            def update(done: int, total: int | None = None, note: str = "") -> None:
                bar.update(task, completed=done, total=total, note=note)

            yield update

    def execute(self, only: str | None = None) -> list[str]:
        """Run what is not done, up to `only` (and what that needs); returns the names that ran.

        Raises:
            UserError: no such stage, or another process works in this folder.
        """
        chosen = self.wanted(only)
        ran: list[str] = []
        with locked(self.folder):
            write_text(self.folder / "config.yaml", resolved(self.config))
            for number, stage in enumerate(self.stages):
                state = self.plan()[number]
                if stage.name not in chosen or state.state == "done":
                    continue
                for reason in state.reasons[:4]:
                    self.console.print(
                        f"  [dim]{stage.name} again: {escape(reason)}[/dim]", highlight=False
                    )
                self.console.print(f"[bold]{stage.name}[/bold]  {stage.about}", highlight=False)
                execute(stage, self)
                ran.append(stage.name)
        return ran

    def wanted(self, only: str | None) -> set[str]:
        """The names of the stages up to `only`, or of all; raises UserError on an unknown name."""
        by_name = {stage.name: stage for stage in self.stages}
        if only is None:
            return set(by_name)
        if only not in by_name:
            raise UserError(f"--stage {only!r}: no such stage; there are: {', '.join(by_name)}")
        wanted, todo = set(), [only]
        while todo:
            name = todo.pop()
            wanted.add(name)
            todo += by_name[name].needs
        return wanted
