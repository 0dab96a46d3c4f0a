"""Stages `train` and `edit`: make every method's edit, each in a folder of its own.

Writes `edit/` (the student's) and `student/` in the run folder for `train`; `items/METHOD/`, or
`items/rounds/METHOD/NUMBER/` where facts are edited in several rounds, and `edits.json` (hashes)
for `edit`; seconds, bytes, peak memory and tokens go into `costs.json`, the texts an edit is made
of into `used.jsonl`, what the guard finds in them into `leakage.json`. `pipeline.teaching` is
`train` in several rounds.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from methods.base import Edit, Editor, EditsAlone, Lesson, Workshop
from methods.table import TAUGHT, build, defaults, load_edit
from pipeline.costs import measured, size_of
from pipeline.facts import read_facts
from pipeline.leaks import USED, Leaks, Ledger, checked, refuse, write_leaks
from pipeline.meanwhile import meanwhile
from pipeline.places import edit_folder, edit_folders, is_taught, options_for
from pipeline.practice import workshop
from pipeline.rounds import read_rounds
from pipeline.run import Run
from pipeline.sizes import sizes_of, unlike
from pipeline.stage import files_of, weights_key
from pipeline.teacher import guard_of
from ske import processes
from ske.io import file_hash, read_json, read_records, write_json, write_text
from ske.lm import LM
from ske.types import Fact, content_hash

MARK = "key"
"""In an edit's folder, written last: what it was made from, and how large its files are."""
WORK = "work"
"""Where a method keeps the checkpoints of an edit that is not finished."""
AT_ONCE = 64
"""Single facts whose edits are made together: no more is lost if the run is killed."""


def train(run: Run, folder: Path) -> list[Path]:
    """Train the student on the teacher's lessons and save it as an ordinary checkpoint.

    Several processes (torchrun) train together; the first writes. Gives back what lies outside the
    stage's folder: the checkpoint.
    """
    with meanwhile(run) as shared:
        train_edit(run, folder)
    if not processes.first():
        return []
    if processes.count() > 1:
        run.reload()  # FSDP leaves each process a part of the model.
    save_student(run, [folder / "edit"], run.folder / "student")
    if shared:
        costs = read_json(folder / "costs.json")
        write_json(folder / "costs.json", costs | {"meanwhile": True})
    return [run.folder / "student"]


def train_edit(run: Run, folder: Path) -> None:
    """Train the student and save what was learned, as an edit alone."""
    lessons = read_records(run.stage("teach") / "lessons.jsonl", Lesson)
    options = run.config.train.model_dump(mode="json")
    lm, ledger = run.lm, Ledger()  # Loading the model is nobody's cost.
    with measured() as costs:
        edit = _make(run, lm, TAUGHT, options, read_facts(run), folder / WORK, ledger, lessons)
        if not processes.first():
            return
        edit.save(folder / "edit")
    ledger.save(folder)
    leaks = checked(guard_of(run), [folder])
    write_leaks(folder, {TAUGHT: leaks})
    refuse(run.config.leakage.strict, f"method {TAUGHT!r}", leaks)
    costs |= {"bytes": size_of(folder / "edit"), "tokens": ledger.tokens(lm.tokenizer)}
    write_json(folder / "costs.json", costs)
    shutil.rmtree(folder / WORK, ignore_errors=True)


def save_student(run: Run, edits: Sequence[Path], target: Path) -> None:
    """Merge edits into the base model's weights and save a folder that transformers loads."""
    fresh = target.with_name(f".{target.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    with edited(run.lm, edits):
        run.lm.model.save_pretrained(fresh, safe_serialization=True)
    run.lm.tokenizer.save_pretrained(fresh)
    shutil.rmtree(target, ignore_errors=True)
    fresh.replace(target)


def run(run: Run, folder: Path) -> list[Path]:
    """Make the edits of all methods but the student; what is there with the same key stays.

    Gives back the edits' folders, which are no outputs: later stages take them by content.
    """
    facts = {fact.id: fact for fact in read_facts(run)}
    rounds = read_rounds(run)
    summary: dict[str, Any] = {}
    guard, leaks = guard_of(run), dict[str, dict[str, Leaks]]()
    places: list[Path] = []
    for method in run.config.methods:
        if is_taught(method):
            continue
        tasks = [
            _Task(
                [facts[i] for i in each.ids],
                edit_folders(run, method, rounds, each.before),
                edit_folder(run, method, rounds.mode, each.number),
            )
            for each in rounds.rounds
        ]
        if rounds.mode == "single":
            _make_alone(run, method, tasks)
        for task in tasks:
            _make_once(run, method, task)
        made = edit_folders(run, method, rounds, [each.number for each in rounds.rounds])
        leaks[method] = checked(guard, made)
        refuse(run.config.leakage.strict, f"method {method!r}", leaks[method])
        hashes = [hash_of(place) for place in made]
        summary[method] = hashes[0] if rounds.mode == "batch" else hashes
        places += made
    write_json(folder / "edits.json", summary)
    write_leaks(folder, leaks)
    _forget_student(run)
    return places


def _forget_student(run: Run) -> None:
    """Remove the checkpoint that an earlier configuration trained, if this one trains none."""
    student = run.folder / "student"
    if student.exists() and not any(map(is_taught, run.config.methods)):
        shutil.rmtree(student)
        run.console.print(
            "  student/ removed: an earlier configuration of this folder trained it, and none of "
            f"{', '.join(run.config.methods)} is trained so; stages/train, which it came from, "
            "stays, and is no part of this run",
            highlight=False,
        )


class _Task(NamedTuple):
    """An edit to be made."""

    facts: list[Fact]
    before: Sequence[Path]
    """The edits it stands on."""
    place: Path

    def key(self, run: Run, method: str) -> str:
        """All that it depends on."""
        return content_hash(
            [
                method,
                {**defaults(method), **options_for(run.config, method)},
                run.config.seed,
                [fact.model_dump() for fact in self.facts],
                run.config.practice.model_dump(),
                {name: file_hash(path) for name, path in sorted(self._read(run).items())},
                weights_key(run.config.model),
                [hash_of(earlier) for earlier in self.before],
                USED,
            ]
        )

    def _read(self, run: Run) -> dict[str, Path]:
        files = files_of(("practice", "texts"), run.config)
        return {name: path for name, path in files.items() if path.is_file()}

    def cleared(self, key: str) -> Path:
        """Remove what an edit of another key left here; where one with this key may go on."""
        self.place.mkdir(parents=True, exist_ok=True)
        (self.place / WORK).mkdir(exist_ok=True)
        other = [path for path in self.place.iterdir() if path.name != WORK]
        other += [path for path in (self.place / WORK).iterdir() if path.name != key]
        for path in other:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return self.place / WORK / key

    def done(self, key: str) -> bool:
        """Whether it is there already, with all its files as they were saved."""
        mark = self.place / MARK
        if not mark.exists() or not (self.place / "edit.json").exists():
            return False
        same, _, sizes = mark.read_text(encoding="utf-8").partition("\n")
        if same != key:
            return False
        if not sizes:  # It was made before they were written down, and counts as it is found.
            self.mark(key)
        return not any(unlike(self.place, json.loads(sizes or "{}")))

    def mark(self, key: str) -> None:
        """Write down what it was made from and how large its files are; the last thing done."""
        mark = self.place / MARK
        mark.unlink(missing_ok=True)
        write_text(mark, f"{key}\n{json.dumps(sizes_of(self.place, [self.place]))}")


def _make_alone(run: Run, method: str, tasks: Sequence[_Task]) -> None:
    """Make what is missing of the edits of single facts, many at a time if the method can."""
    if not isinstance(build(method, options_for(run.config, method), Workshop()), EditsAlone):
        return
    keys = [task.key(run, method) for task in tasks]
    left = [(task, key) for task, key in zip(tasks, keys, strict=True) if not task.done(key)]
    for start in range(0, len(left), AT_ONCE):
        some = left[start : start + AT_ONCE]
        lm, shared, ledgers = run.lm, Ledger(), [Ledger() for _ in some]
        facts = [fact for task, _ in some for fact in task.facts]
        with measured() as costs, _editor(run, method, some[0][0].place / WORK, shared) as editor:
            assert isinstance(editor, EditsAlone)
            edits = editor.alone(lm, facts, [ledger.used for ledger in ledgers])
        for (task, key), ledger, edit in zip(some, ledgers, edits, strict=True):
            shutil.rmtree(task.place, ignore_errors=True)
            edit.save(task.place)
            for kind, texts in shared.texts.items():
                ledger.used(kind, texts)
            own = {**costs, "seconds": round(costs["seconds"] / len(some), 3)}
            _finish(run, task, key, ledger, own)


def _make_once(run: Run, method: str, task: _Task) -> None:
    """Make an edit on top of others, unless it is there already."""
    key = task.key(run, method)
    if task.done(key):
        return
    work = task.cleared(key)
    # Loading the model, and the edits below, is nobody's cost.
    ledger, options = Ledger(), options_for(run.config, method)
    with edited(run.lm, task.before) as lm, measured() as costs:
        made = _make(run, lm, method, options, task.facts, work, ledger)
        made.save(task.place)
    _finish(run, task, key, ledger, costs)


def _finish(run: Run, task: _Task, key: str, ledger: Ledger, costs: dict[str, Any]) -> None:
    """What lies beside a saved edit; the key comes last."""
    ledger.save(task.place)
    shutil.rmtree(task.place / WORK, ignore_errors=True)
    costs |= {"bytes": size_of(task.place), "tokens": ledger.tokens(run.lm.tokenizer)}
    write_json(task.place / "costs.json", costs)
    task.mark(key)


def hash_of(place: Path) -> str:
    """A saved edit's content."""
    files = sorted(path for path in place.iterdir() if path.name.startswith("edit"))
    return content_hash({path.name: file_hash(path) for path in files})


@contextmanager
def edited(lm: LM, folders: Sequence[Path]) -> Iterator[Any]:
    """The model with saved edits on it, one on top of the other; afterwards it is as before."""
    with ExitStack() as stack:
        for folder in folders:
            lm = stack.enter_context(load_edit(folder).applied(lm))
        yield lm


def _make(
    run: Run,
    lm: LM,
    method: str,
    options: dict[str, Any],
    facts: list[Fact],
    work: Path,
    ledger: Ledger,
    lessons: list[Lesson] | None = None,
) -> Edit:
    with _editor(run, method, work, ledger, options, lessons) as editor:
        return editor.edit(lm, facts)


@contextmanager
def _editor(
    run: Run,
    method: str,
    work: Path,
    ledger: Ledger,
    options: dict[str, Any] | None = None,
    lessons: list[Lesson] | None = None,
) -> Iterator[Editor]:
    """A method with all that it may use, noted in a ledger; its progress is shown."""
    with run.progress(f"{method}") as update:
        given = replace(
            workshop(run, work),
            lessons=None if lessons is None else lambda: lessons,
            progress=lambda step, steps, loss: update(step, steps, f"loss {loss:.3f}"),
        )
        own = options_for(run.config, method) if options is None else options
        yield build(method, own, ledger.over(given))
