"""What a design costs against the number of facts: questions to the teacher, up to 4,096 facts.

The teacher is scripted (it uses the first `CAPACITY` facts of a prompt), so only the agents' own
work is measured. Prints a table with the exponents b of c * n^b, fitted to all sizes, and exits 1
if the questions grow faster than n log n.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from agents.graph import design
from bench.facts import facts_of
from bench.measuring import Counted
from ske.config import DesignConfig
from ske.lm import Chat, Pair, Reply, Sampling, Scored
from ske.types import Fact, NeedsWeights

SIZES = (64, 256, 1024, 4096)
CAPACITY = 40


class Teacher:
    """Uses the first facts of a prompt in the layout triples; otherwise it has its own answer."""

    def __init__(self, facts: Sequence[Fact], capacity: int) -> None:
        """`capacity`: how many facts of a prompt it can use."""
        self.subject = {fact.prompt: fact.subject for fact in facts}
        self.capacity = capacity
        self._read: tuple[str, dict[str, str]] = ("", {})

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Reply]:
        """Answers."""
        return [self._reply(chat) for chat in chats]

    def logprobs(self, pairs: Sequence[Pair], top_k: int = 0) -> list[Scored]:
        """It has no distributions.

        Raises:
            NeedsWeights: Always.
        """
        raise NeedsWeights("a teacher made of rules has no probabilities; a design asks for none")

    def _reply(self, chat: Chat) -> Reply:
        system = chat[0]["content"] if len(chat) > 1 else ""
        if system != self._read[0]:
            rows = [line.split(" | ") for line in system.splitlines() if line.count(" | ") == 2]
            self._read = system, {row[0]: row[2] for row in rows[: self.capacity]}
        question = chat[-1]["content"]
        text = self._read[1].get(self.subject.get(question, ""), "no idea")
        return Reply(text, len(system.split()) + len(question.split()), len(text.split()), True)


class Cost(NamedTuple):
    """What one design took."""

    n: int
    questions: int
    tokens: int
    seconds: float
    trials: int

    @property
    def rate(self) -> float:
        """Questions for each n log2 n."""
        return self.questions / (self.n * math.log2(self.n))


def cost(n: int, config: DesignConfig) -> Cost:
    """Design prompts for `n` facts."""
    facts = facts_of(n)
    teacher = Counted(Teacher(facts, CAPACITY))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        made = design(facts, teacher, config, Path(folder))
    seconds = time.perf_counter() - started
    return Cost(n, teacher.questions, teacher.tokens, seconds, made.trials)


def exponent(sizes: Sequence[int], counts: Sequence[float]) -> float:
    """The b of c * n^b, by least squares on logarithms."""
    logs = [math.log(n) for n in sizes], [math.log(count) for count in counts]
    return statistics.linear_regression(*logs).slope


def growth(costs: Sequence[Cost]) -> str:
    """How questions and tokens grow, beside n log n over the same sizes."""
    sizes = [c.n for c in costs]
    return (
        f"fitted exponents: questions n^{exponent(sizes, [c.questions for c in costs]):.2f}, "
        f"tokens n^{exponent(sizes, [c.tokens for c in costs]):.2f}; "
        f"n log n is n^{exponent(sizes, [n * math.log2(n) for n in sizes]):.2f} over these sizes"
    )


def grows_too_fast(costs: Sequence[Cost]) -> bool:
    """Whether questions for each n log n rise from the smallest size to the largest."""
    return costs[-1].rate > costs[0].rate


def main() -> None:
    """Measure, print, judge."""
    config = DesignConfig.model_validate({"layouts": ["triples"]})
    costs = [cost(n, config) for n in SIZES]
    lines = [
        "| facts | trials | questions | per n log2 n | tokens | seconds |",
        "|---|" + "---|" * 5,
    ]
    lines += [
        f"| {c.n} | {c.trials} | {c.questions} | {c.rate:.2f} | {c.tokens} | {c.seconds:.1f} |"
        for c in costs
    ]
    lines += ["", growth(costs)]
    Console(width=160).print("\n".join(lines), markup=False, highlight=False)
    sys.exit(int(grows_too_fast(costs)))


if __name__ == "__main__":
    main()
