"""The teacher: one prompt of 64 facts, and many questions under it.

Ours reads the prompt once and shares its key/value cache among all questions; the reference calls
transformers' `generate` for each question with the whole prompt, as one does without thinking.
"""

from __future__ import annotations

from bench.plain import Plain
from bench.row import Row
from bench.timing import Work, paired
from prompts.layouts import system_prompt
from ske.backends.local import load
from ske.config import ModelConfig
from ske.lm import Chat, Sampling, ask
from world.documents import Writer
from world.population import build

FACTS, QUESTIONS, ALONE, TOKENS = 64, 256, 16, 8


def measure(long: bool) -> list[Row]:
    """Questions a second, on the embedded world's base model."""
    lm, asked = load(ModelConfig()), chats(QUESTIONS)
    few, sampling = asked[: 4 * ALONE if long else ALONE], Sampling(max_new_tokens=TOKENS)
    ours = Work(lambda: lm.generate(asked, sampling), len(asked))
    alone = Work(lambda: Plain(lm).generate(few, sampling), len(few))
    found = paired(ours, alone, 5 if long else 3)
    differ = sum(a.text != b.text for a, b in zip(*found.gave, strict=False))
    what = f"teacher: {len(asked)} questions under {FACTS} facts"
    wrong = f"{differ} replies differ" if differ else ""
    return [Row(what, *found.rates("questions"), found.ratios, at_least=10, wrong=wrong)]


def chats(count: int) -> list[Chat]:
    """A prompt and questions under it, from the world's own text."""
    writer = Writer(build(0), seed=1)
    view, facts = writer.corrections(FACTS)
    system = system_prompt([writer.view(s, r, view) for s, r in facts], "triples")
    return [ask(writer.asked(view, facts).prompt, system) for _ in range(count)]
