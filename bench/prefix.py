"""How much the shared key/value prefix saves: one prompt of 64 facts, 128 questions under it.

Answers each question once with the prefix read once for all, once with every question read whole,
and prints both times and their ratio. Reads the embedded world's base model.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from rich.console import Console

from prompts.layouts import system_prompt
from ske.backends.local import LocalLM, load
from ske.config import ModelConfig
from ske.lm import Chat, Sampling, ask
from world.documents import Writer
from world.population import build

ROUNDS, FACTS, QUESTIONS = 5, 64, 128


def chats() -> list[Chat]:
    """A prompt and its questions, from the world's own text."""
    writer = Writer(build(0), seed=1)
    view, facts = writer.corrections(FACTS)
    system = system_prompt([writer.view(s, r, view) for s, r in facts], "triples")
    return [ask(writer.asked(view, facts).prompt, system) for _ in range(QUESTIONS)]


def seconds(work: Callable[[], object]) -> float:
    """The median time of a few rounds, after one to warm up."""
    work()
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def unshared(lm: LocalLM, asked: list[Chat], sampling: Sampling) -> list[str]:
    """The same questions, each read with its whole prompt, 16 at a time."""
    replies = []
    for start in range(0, len(asked), 16):
        prompts = [lm.renderer.prompt_ids(chat) for chat in asked[start : start + 16]]
        replies += lm._continue([], None, prompts, sampling)
    return [lm.renderer.decode(ids) for ids in replies]


def main() -> None:
    """Measure and print."""
    lm, asked, sampling = load(ModelConfig()), chats(), Sampling(max_new_tokens=8)
    shared = seconds(lambda: lm.generate(asked, sampling))
    whole = seconds(lambda: unshared(lm, asked, sampling))
    Console().print(
        f"{QUESTIONS} questions under a prompt of {FACTS} facts: shared prefix {shared:.2f} s, "
        f"whole prompts {whole:.2f} s, ratio {whole / shared:.1f}"
    )


if __name__ == "__main__":
    main()
