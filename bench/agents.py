"""The agents against nothing: naive packing, chance at the same budget, roles switched off.

Every cell (a way of packing, a seed) is one small JSON under `--out`; run again, it goes on where
it stopped. Prints the table and writes it into `docs/agents.md` (`--write`).

    python -m bench.agents --quick            # a minute or two on one core
    python -m bench.agents --write            # 256 edits, five seeds: hours
    python -m bench.agents --seeds 3 4        # some of the cells, e.g. in a process of their own
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from agents.revise import balanced
from bench.document import filled
from bench.measuring import Counted, measured
from bench.variants import VARIANTS, Prompt, Task, naive_of
from eval.stats import PERCENT, Interval, bootstrap_seeds
from ske.config import Config, DesignConfig, parse
from ske.io import write_json, write_text
from ske.lm import LM
from ske.types import Fact

DOCS = Path(__file__).parent.parent / "docs" / "agents.md"
NAMES = 256
"""Texts sampled to find subjects that are not edited."""


def cell(name: str, task: Task) -> dict[str, Any]:
    """One way of packing under one seed, measured."""
    counted = Counted(task.lm)
    own = task._replace(lm=counted)
    started = time.perf_counter()
    pack = VARIANTS[name][1]
    prompts = _largest_naive(own) if pack is None else pack(own)
    seconds = round(time.perf_counter() - started, 2)
    spent = {"questions": counted.questions, "tokens": counted.tokens, "seconds": seconds}
    return {"variant": name, "seed": task.seed, **spent, **measured(task, prompts)}


def _largest_naive(task: Task) -> list[Prompt]:
    """The naive packer at the largest fixed size that reaches the wanted recall.

    Prompts are equally full, as the designer's are. If no size does, the one with the best recall.
    """
    n, tried = len(task.facts), []
    sizes = {balanced(n, size) for size in range(1, task.config.max_facts + 1)}
    for size in sorted(sizes, reverse=True):
        prompts = naive_of(task, size)
        recall = measured(task, prompts, f"naive-{size}")["recall"]
        if recall >= task.config.recall:
            return prompts
        tried.append((recall, prompts))
    return max(tried, key=lambda pair: pair[0])[1]


def grid(
    out: Path, names: Sequence[str], seeds: Sequence[int], task_of: Callable[[int, Path], Task]
) -> list[dict[str, Any]]:
    """Every cell; those that are on disk are read."""
    cells = []
    for seed in seeds:
        for name in names:
            path = out / f"{name.replace(' ', '-')}-s{seed}.json"
            if not path.exists():
                with tempfile.TemporaryDirectory() as folder:
                    write_json(path, cell(name, task_of(seed, Path(folder))))
            cells.append(json.loads(path.read_text(encoding="utf-8")))
    return cells


COLUMNS = ("way", "what", "facts per prompt", "x naive", "seeds that reach recall",
           "tokens per fact", "x naive", "recall %", "drift %", "questions", "seconds")  # fmt: skip


def table(cells: Sequence[dict[str, Any]]) -> str:
    """Markdown: means over seeds [95 % interval over seeds and, for shares, facts]."""
    by_name: dict[str, dict[int, dict[str, Any]]] = {}
    for one in cells:
        by_name.setdefault(one["variant"], {})[one["seed"]] = one
    base = by_name.get("naive", {})
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for name, own in by_name.items():
        row = [
            name,
            VARIANTS[name][0],
            _number({s: c["facts_per_prompt"] for s, c in own.items()}),
            _number(_ratio(own, base, "facts_per_prompt"), 2),
            f"{sum(c['reached'] for c in own.values())} of {len(own)}",
            _number({s: c["tokens_per_fact"] for s, c in own.items()}),
            _number(_ratio(own, base, "tokens_per_fact"), 2),
            _shown(_share(own, lambda fact: [fact["recall"]])),
            _shown(_share(own, lambda fact: fact["drift"])),
            _number({s: c["questions"] for s, c in own.items()}, 0),
            _number({s: c["seconds"] for s, c in own.items()}),
        ]
        lines.append("| " + " | ".join(row) + " |")
    n, seeds = cells[0]["n"], len({one["seed"] for one in cells})
    return f"n = {n} facts, {seeds} seeds.\n\n" + "\n".join(lines) + "\n"


def _ratio(
    own: dict[int, dict[str, Any]], base: dict[int, dict[str, Any]], key: str
) -> dict[int, float]:
    """To the naive packer under the same seed."""
    return {s: own[s][key] / base[s][key] for s in own if s in base and base[s][key]}


def _number(by_seed: dict[int, float], digits: int = 1) -> str:
    """A quantity that a seed has one of: its interval is over seeds alone."""
    if not by_seed:
        return "-"
    found = bootstrap_seeds({(s, 0): v for s, v in by_seed.items()}, bounds=None)
    return _shown(found._replace(low=max(0.0, found.low)), digits)  # None of them is below 0.


def _share(own: dict[int, dict[str, Any]], of: Callable[[Any], list[bool]]) -> Interval | None:
    values = {
        (fact, seed): 100 * sum(hits) / len(hits)
        for seed, one in own.items()
        for fact, row in one["facts"].items()
        if (hits := of(row))
    }
    return bootstrap_seeds(values, bounds=PERCENT) if values else None


def _shown(found: Interval | None, digits: int = 1) -> str:
    if found is None:
        return "-"
    mean, low, high = (f"{x:.{digits}f}" for x in (found.mean, found.low, found.high))
    return f"{mean} [{low}, {high}]"


def _tasks(n: int, design: DesignConfig) -> Callable[[int, Path], Task]:
    """Facts of the embedded world's test people, drawn by the seed, and its base model."""
    from pipeline.facts import choose, load_cases, without_conflicts
    from pipeline.freetext import subjects
    from ske.backends.local import load
    from ske.texts import free_texts

    lm: LM = load(Config().model)
    names = set(subjects(free_texts(lm, NAMES, 32, 0)))

    def task(seed: int, folder: Path) -> Task:
        config = parse({"edits": {"limit": n, "seed": seed}}, "bench.agents")
        cases, _ = without_conflicts(
            load_cases(config.data, config.world.path, config.edits, folder).cases
        )
        facts: list[Fact] = [case.fact for case in choose(cases, config.edits, shuffled=False)]
        others = sorted(names - {fact.subject for fact in facts})
        return Task(facts, lm, others, design, folder, seed)

    return task


def main() -> None:
    """Run what is missing, print, and write if asked to."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="10 facts, two seeds, a short search")
    options.add_argument("--write", action="store_true", help="put the table into docs/agents.md")
    options.add_argument("--out", type=Path, help="where the cells go")
    options.add_argument("--ways", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    options.add_argument("--seeds", nargs="+", type=int)
    chosen = options.parse_args()
    n, most = (10, 2) if chosen.quick else (256, 5)
    short = {"max_trials": 4, "max_facts": 16, "layouts": ["triples", "prose"]}
    # All facts in one prompt are allowed: how many the teacher can use is for the agents to find.
    design = DesignConfig.model_validate(short if chosen.quick else {"max_facts": n})
    out = chosen.out or Path("runs") / ("bench-agents-quick" if chosen.quick else "bench-agents")
    cells = grid(out, chosen.ways, chosen.seeds or range(most), _tasks(n, design))
    figures = table(cells)
    Console(width=240).print(figures, markup=False, highlight=False)
    if chosen.write:
        write_text(DOCS, filled(DOCS.read_text(encoding="utf-8"), figures))


if __name__ == "__main__":
    main()
