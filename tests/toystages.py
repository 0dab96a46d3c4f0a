"""Four stages that append numbers, for tests of the engine; also a script that runs them."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import NamedTuple

from pipeline.stage import Plan, Stage, execute, plan
from ske.config import Config, load, parse
from ske.io import append_rows, drop_torn_line, locked, read_rows, write_rows, write_text

STAGES = (
    Stage("facts", "toystages:draw", (), ("edits", "seed"), "draw"),
    Stage("teach", "toystages:slow", ("facts",), ("teach.top_k",), "one row after the other"),
    Stage("ask", "toystages:cached", ("teach",), ("eval.max_new_tokens",), "keeps items"),
    Stage("report", "toystages:last", ("facts", "ask"), (), "sums"),
)


class Toy(NamedTuple):
    config: Config
    folder: Path


def toy(folder: Path, **tree: object) -> Toy:
    return Toy(parse(dict(tree), "test"), folder)


def states(run: Toy, stages: tuple[Stage, ...] = STAGES) -> dict[str, Plan]:
    return {item.stage.name: item for item in plan(stages, run.config, run.folder)}


def run_all(run: Toy, stages: tuple[Stage, ...] = STAGES) -> list[str]:
    ran = []
    with locked(run.folder):
        for number, stage in enumerate(stages):
            if plan(stages, run.config, run.folder)[number].state != "done":
                execute(stage, run)
                ran.append(stage.name)
    return ran


def outputs(run: Toy) -> dict[str, bytes]:
    return {
        str(path.relative_to(run.folder)): path.read_bytes()
        for path in sorted((run.folder / "stages").rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


# -- the stages -------------------------------------------------------------------------------


def draw(run: Toy, folder: Path) -> None:
    # Every limit from 8 on gives the same rows.
    write_rows(
        folder / "rows.jsonl", [{"n": n} for n in range(min(run.config.edits.limit or 8, 8))]
    )


def slow(run: Toy, folder: Path) -> None:
    """Goes on where it stopped; with TOY_CRASH it dies in the middle of a line."""
    path = folder / "rows.jsonl"
    drop_torn_line(path)
    done = len(read_rows(path))
    (folder / "trace.jsonl").open("a").write(f"from {done}\n")
    crash = int(os.environ.get("TOY_CRASH", "0"))
    for n in range(done, 8):
        if crash and n == crash:
            with path.open("a") as file:
                file.write('{"n": 1')
            os.kill(os.getpid(), signal.SIGKILL)
        append_rows(path, [{"n": n * run.config.teach.top_k, "text": "a\u2028b\x85c"}])


def cached(run: Toy, folder: Path) -> None:
    path = folder / "items" / f"{run.config.eval.max_new_tokens}.json"
    write_rows(path, [{}])
    rows = read_rows(run.folder / "stages" / "teach" / "rows.jsonl")
    (folder / "sum.txt").write_text(str(sum(row["n"] for row in rows)))


def last(run: Toy, folder: Path) -> list[Path]:
    """Leaves a table and figures in the run folder, which `leaves` of the stage does not name."""
    table, figures = run.folder / "table.csv", run.folder / "figures"
    table.write_text("method,mean\nske,1\n")
    for name in ("one.png", "two.png"):
        write_text(figures / name, name)
    (folder / "report.md").write_bytes((run.folder / "stages" / "ask" / "sum.txt").read_bytes())
    return [table, figures]


if __name__ == "__main__":
    command, place, *rest = sys.argv[1:]
    if command == "hold":
        with locked(Path(place)):
            print("held", flush=True)
            time.sleep(60)
    else:
        run_all(Toy(load(Path(rest[0])) if rest else Config(), Path(place)))
