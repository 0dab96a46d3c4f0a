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
from pipeline.adopting import adopt
from pipeline.answering import other_teacher
from pipeline.stage import Plan, Stage, execute, follow, plan
from pipeline.stages import stages_for
from ske import interrupt, processes
from ske.config import Config, ModelConfig, resolved
from ske.io import locked, write_text
from ske.paths import placed
from ske.types import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ske.backends.local import LocalLM
    from ske.lm import LM


class Run:
    """What every stage gets."""

    earlier: tuple[Path, ...] = ()
    """The run folders of the rounds that this one stands on; it rehearses their lessons."""
    others: tuple[Path, ...] = ()
    """Run folders whose finished stages are taken over where they are the same."""

    def __init__(self, config: Config, folder: Path, console: Console | None = None) -> None:
        """Nothing is read or written yet; relative paths are taken from the current folder."""
        self.config = placed(config)
        self.folder = folder
        self.console = console or Console(stderr=True, quiet=not processes.first())
        self.watchers: list[Callable[[], None]] = []
        """Called whenever there is progress, where the work is done."""

    @functools.cached_property
    def lm(self) -> LocalLM:
        """The base model's weights, in transformers."""
        from ske.backends.local import load  # torch takes seconds to import: only when needed

        processes.spare_libraries()
        return load(self.config.model)

    @functools.cached_property
    def base(self) -> LM:
        """The base model as it is asked, by vLLM if the configuration says so."""
        return self._engine() if self.config.model.backend == "vllm" else self.lm

    @functools.cached_property
    def teacher(self) -> LM:
        """Who answers under prompts: the base model, another one, or a server."""
        if (other := other_teacher(self.config)) is not None:
            return self._other(other)
        if self.config.model.backend != "openai":
            return self.base
        from ske.backends.server import load

        return load(self.config.model)

    def _other(self, model: ModelConfig) -> LM:
        from ske.backends.local import load

        return load(model)

    def dismiss(self) -> None:
        """Forget a teacher who has taught; one that is not the base has memory of its own."""
        self.__dict__.pop("teacher", None)

    def _engine(self) -> LM:
        from ske.backends.vllm import load

        return load(self.config.model)

    def reload(self) -> None:
        """Forget the loaded weights; whoever wants them next gets them fresh from their files."""
        self.__dict__.pop("lm", None)

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
                for watcher in self.watchers:
                    watcher()
                interrupt.obey()

            yield update

    def execute(self, only: str | None = None) -> list[str]:
        """Run what is not done, up to `only` (and what that needs); returns the names that ran.

        Raises:
            UserError: no such stage, another process works in this folder, or several processes
                were started for what only one can do.
        """
        chosen = self.wanted(only)
        if processes.count() > 1:
            return self._train_together(only)
        ran: list[str] = []
        with locked(self.folder):
            write_text(self.folder / "config.yaml", resolved(self.config))
            for number, stage in enumerate(self.stages):
                interrupt.obey()
                state = self.plan()[number]
                if stage.name not in chosen or state.state == "done":
                    continue
                for reason in state.reasons[:4]:
                    self.console.print(
                        f"  [dim]{stage.name} again: {escape(reason)}[/dim]", highlight=False
                    )
                self.console.print(f"[bold]{stage.name}[/bold]  {stage.about}", highlight=False)
                if (other := adopt(stage, self, self.others)) is not None:
                    self.console.print(f"  taken over from {escape(str(other))}", highlight=False)
                else:
                    execute(stage, self)
                ran.append(stage.name)
        interrupt.obey()
        return ran

    def _train_together(self, only: str | None) -> list[str]:
        """Stage `train` by all processes that torchrun has started; the first one writes."""
        states = {item.stage.name: item for item in self.plan()}
        before = self.wanted("train") - {"train"}
        owed = any(states[name].state != "done" for name in before)
        if only != "train" or owed or self.config.edits.mode != "batch":
            raise UserError(
                f"{processes.count()} processes were started, and only the training of one batch "
                "is shared: run `ske run ... --stage teach` in one process, then `torchrun "
                "--nproc-per-node N -m pipeline.cli run ... --stage train`, then `ske run ...` in "
                "one process"
            )
        training = states["train"]
        if training.state == "done":
            return []
        if not processes.first():
            follow(training.stage, self)
            return ["train"]
        with locked(self.folder):
            write_text(self.folder / "config.yaml", resolved(self.config))
            execute(training.stage, self)
        return ["train"]

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
