"""Seconds, memory and tokens a second at the shapes of real models, with random weights.

    python -m bench.gpu --out runs/bench-gpu          # on a machine with a GPU, in bf16
    python -m bench.gpu --tiny --device cpu           # tries the command itself, in a minute

Nothing is downloaded. Trainings make one pass over the facts: more epochs take as many times
longer. Values of ROME and MEMIT take their usual twenty steps. A method is not tried with more
facts if that would take longer than `--most` seconds, judged by the number before.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from bench.facts import facts_of
from bench.growth import METHODS, ONCE, VALUES
from bench.memory import held
from bench.setting import machine, quiet
from bench.shapes import SHAPES, random_model
from bench.student import lessons_of, student
from bench.teacher import chats
from bench.timing import timed
from methods.base import Workshop
from methods.rows import row_of
from methods.table import METHODS as TABLE
from methods.table import build
from ske.backends.local import LocalLM
from ske.io import write_json, write_text
from ske.lm import Sampling

LARGE = ("Qwen2.5-0.5B", "Llama-3.2-1B", "Llama-3.1-8B")
FACTS, FEW = (1, 64, 1024), (1, 4)
QUESTIONS, REPLY = 256, 16
PEAKS = {"H200": 989, "H100": 989, "A100": 312, "L40S": 362, "L4": 121, "RTX 4090": 165}
"""TFLOP/s of dense bf16 products, from the makers' data sheets, by a part of the card's name."""
COLUMNS = ("shape", "what", "facts", "seconds", "peak MiB", "tokens/s", "% of the card's peak")


class Line(NamedTuple):
    """One thing measured; None is what does not apply."""

    shape: str
    what: str
    facts: int
    seconds: float
    peak: float
    """MiB beyond the model's weights."""
    rate: float | None = None
    """Tokens a second."""
    share: float | None = None
    """Of the card's floating-point operations, in percent."""

    def cells(self) -> list[str]:
        """As texts."""
        numbers = (self.seconds, self.peak, self.rate, self.share)
        return [self.shape, self.what, str(self.facts)] + [
            "-" if value is None else f"{value:,.4g}" for value in numbers
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    chosen = _options().parse_args(arguments)
    if chosen.device == "cuda" and not torch.cuda.is_available():
        Console(stderr=True).print(
            "no CUDA device here; try: python -m bench.gpu --tiny --device cpu"
        )
        return 2
    quiet()
    shapes = ["tiny"] if chosen.tiny else chosen.shapes.split(",")
    if unknown := set(shapes) - set(SHAPES):
        Console(stderr=True).print(f"--shapes {min(unknown)!r}: there are {', '.join(SHAPES)}")
        return 2
    dtype = torch.bfloat16 if chosen.device == "cuda" else torch.float32
    lines: list[Line] = []
    for shape in shapes:
        lm = random_model(shape, chosen.device, dtype)
        for line in measured(lm, FEW if chosen.tiny else FACTS, chosen.most, chosen.tiny):
            Console(stderr=True).print(" ".join(line.cells()), style="dim", highlight=False)
            lines.append(line)
        del lm
    title = f"{machine()}, {dtype}"
    shown = Table(*COLUMNS, title=title)
    for line in lines:
        shown.add_row(*line.cells())
    Console(width=None if sys.stdout.isatty() else 160).print(shown)
    if chosen.out:
        _write(chosen.out, shapes, lines, title)
    return 0


def _options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(
        "python -m bench.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument("--shapes", default=",".join(LARGE), help=f"of {', '.join(SHAPES)}")
    options.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    options.add_argument("--tiny", action="store_true", help="one tiny model and a few facts")
    options.add_argument("--most", type=float, default=600, help="seconds for one measurement")
    options.add_argument("--out", type=Path, help="a folder for gpu.json and gpu.md")
    return options


def measured(lm: LocalLM, counts: Sequence[int], most: float, tiny: bool) -> Iterator[Line]:
    """Teacher, student, then every method."""
    yield _teacher(lm, 8 if tiny else QUESTIONS)
    yield _student(lm, max(counts))
    options = {name: {**own, "rank": 64} if name == "svf" else own for name, own in METHODS.items()}
    for name, own in options.items():
        yield from _method(
            lm, name, own if own is not VALUES or tiny else _usual(own), counts, most
        )


def _usual(own: dict[str, Any]) -> dict[str, Any]:
    """Values as ROME and MEMIT find them, on the contexts that they write."""
    return {key: value for key, value in own.items() if key not in ("steps", "templates")}


def _teacher(lm: LocalLM, questions: int) -> Line:
    """Tokens of replies a second, under one prompt of 64 facts."""
    asked, sampling = chats(questions), Sampling(max_new_tokens=REPLY, min_new_tokens=REPLY)
    lm.generate(asked[:2], sampling)  # to warm up
    _, seconds = timed(lambda: lm.generate(asked, sampling))
    peak = held(lambda: lm.generate(asked, sampling), lm.device).peak
    what = f"teacher, {questions} questions"
    return Line(lm.name, what, 64, seconds, peak / 2**20, questions * REPLY / seconds)


def _student(lm: LocalLM, n: int) -> Line:
    """Tokens of lessons a second, the adapters' setting up included.

    A token takes 2 operations for each weight that it is multiplied with on its way forward, and as
    many on the way back: the base's own weights get no gradients.
    """
    lessons = lessons_of(lm, n)
    tokens = sum(len(row_of(lm, lesson)["input_ids"]) for lesson in lessons)
    train = lambda own: student(lm, own, **ONCE)  # noqa: E731
    train(lessons[:2])  # to warm up
    _, seconds = timed(lambda: train(lessons))
    peak = held(lambda: train(lessons), lm.device).peak
    done = 4 * multiplied(lm) * tokens / seconds / 1e12
    card = next((top for part, top in PEAKS.items() if part in machine()), None)
    share = 100 * done / card if card and lm.device.type == "cuda" else None
    what = f"student, {len(lessons)} lessons"
    return Line(lm.name, what, n, seconds, peak / 2**20, tokens / seconds, share)


def multiplied(lm: LocalLM) -> int:
    """How many weights a token is multiplied with: all matrices, looking up a token is none."""
    model = lm.model
    own = sum(parameter.numel() for parameter in model.parameters())
    tied = model.config.get_text_config().tie_word_embeddings
    return own - (0 if tied else model.get_input_embeddings().weight.numel())  # pyright: ignore


def _method(
    lm: LocalLM, name: str, options: dict[str, Any], counts: Sequence[int], most: float
) -> Iterator[Line]:
    """Seconds and peak memory of one edit, for rising numbers of facts."""
    before: tuple[int, float] | None = None
    for n in counts:
        if before and before[1] * n / before[0] > most and before[1] > 60:
            return
        editor = build(name, options, _workshop(lm, name, n))
        edit = lambda editor=editor, n=n: editor.edit(lm, facts_of(n))  # noqa: E731
        found, seconds = timed(lambda edit=edit: held(edit, lm.device))
        before = n, seconds
        yield Line(lm.name, name, n, seconds, found.peak / 2**20)


def _workshop(lm: LocalLM, name: str, n: int) -> Workshop:
    """With lessons for what learns from a teacher; making them is not timed."""
    if not TABLE[name].taught:
        return Workshop()
    lessons = lessons_of(lm, n)
    return Workshop(lessons=lambda: lessons)


def _write(out: Path, shapes: Sequence[str], lines: Sequence[Line], title: str) -> None:
    configurations = {
        shape: dict(SHAPES[shape][1], model_type=SHAPES[shape][0]) for shape in shapes
    }
    record = {"machine": title, "configurations": configurations}
    write_json(out / "gpu.json", {**record, "lines": [line._asdict() for line in lines]})
    rows = [list(COLUMNS), ["---"] * len(COLUMNS), *(line.cells() for line in lines)]
    text = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    write_text(out / "gpu.md", f"{title}.\n\n{text}\n")


if __name__ == "__main__":
    sys.exit(main())
