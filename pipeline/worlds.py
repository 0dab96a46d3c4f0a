"""`ske world build | card`: glue between the world, its model and the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ske.config import ModelConfig


def build(seed: int, out: Path, console: Console) -> None:
    """Build a world with a progress bar; what an earlier attempt finished is kept."""
    from world.build import build_world

    columns = (
        TextColumn("base model"),
        BarColumn(),
        TextColumn("{task.percentage:.1f} %"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("train", total=None, note="")

        def progress(step: int, total: int, seen: dict[str, float]) -> None:
            known, used = seen.get("plain direct", 0), seen.get("context direct", 0)
            note = f"facts {known:.0f} %, in context {used:.0f} %"
            bar.update(task, completed=step, total=total, note=note)

        build_world(seed, out, progress=progress)
    console.print(
        f"World {seed} is in {out}; measure its model with: ske world card --path {out}",
        highlight=False,
    )


def card(folder: Path, console: Console) -> str:
    """Measure a world's base model; returns the card's text."""
    from ske.backends.local import load
    from world.build import load_world
    from world.card import card as measure
    from world.card import markdown, write

    world = load_world(folder)
    lm = load(ModelConfig(path=str(folder / "model")))
    with console.status("measuring") as status:
        result = measure(world, lm, folder, note=lambda text: status.update(text))
    write(result, folder)
    return markdown(result)
