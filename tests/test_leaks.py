"""What methods used, against the probes: a planted leak is caught, and nobody else is accused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
from test_rounds import RECORDS, run_of, table

from eval.leakage import Guard
from methods import table as methods
from methods.base import Lesson, Practice, Workshop, options_of, weights_of
from methods.sft import train
from pipeline.leaks import (
    Leaks,
    Ledger,
    checked,
    leak_rows,
    read_leaks,
    teaching_leaks,
    together,
    write_leaks,
)
from pipeline.run import Run
from ske.io import write_json
from ske.lm import LM, ask
from ske.training import SftOptions
from ske.types import Fact, Frozen, UserError

LEAK = RECORDS[0]["rephrase_prompt"]
FAST = {"epochs": 1, "rank": 1, "batch_size": 8}


class Cheat:
    """Fine-tunes on the facts and on a paraphrase that the evaluation asks."""

    def __init__(self, options: dict[str, Any], workshop: Workshop) -> None:
        options_of(Frozen, options, "cheat")
        self.workshop = workshop

    def edit(self, lm: LM, facts: Sequence[Fact]) -> Any:
        prompts = [(fact.prompt, fact.target_new) for fact in facts] + [(str(LEAK), "London")]
        lessons = [Lesson(chat=ask(prompt), completion=answer) for prompt, answer in prompts]
        options = SftOptions.model_validate(FAST)
        return train(weights_of(lm, "cheat"), lessons, options, self.workshop, "cheat")


@pytest.fixture
def cheating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    line = methods.Method("test_leaks:Cheat", "for this test")
    monkeypatch.setitem(methods.METHODS, "cheat", line)
    monkeypatch.setattr(methods, "_resolve", _resolving(methods._resolve))
    return run_of(tmp_path, ("base", "prompt", "ft_m", "cheat"))


def _resolving(resolve: Any) -> Any:
    return lambda target: Cheat if target == "test_leaks:Cheat" else resolve(target)


def test_a_planted_leak_is_counted_and_told(cheating: Run) -> None:
    cheating.execute()
    whole = {row["method"]: row for row in table(cheating, "leakage.csv", kind="all")}
    assert {name: row["copies"] for name, row in whole.items()} == {
        "base": "0",
        "prompt": "0",
        "ft_m": "0",
        "cheat": "1",
    }
    assert [whole[name]["checked"] for name in ("base", "prompt")] == ["0", "1"]
    assert int(whole["ft_m"]["checked"]) >= len(RECORDS)
    for name in ("report.md", "report.html"):
        text = (cheating.folder / name).read_text(encoding="utf-8")
        assert "CHEAT used 1 near-copy of a probe" in text
        assert str(LEAK) in text  # which one


def test_a_planted_leak_fails_a_strict_run(cheating: Run) -> None:
    leakage = cheating.config.leakage.model_copy(update={"strict": True})
    strict = Run(
        cheating.config.model_copy(update={"leakage": leakage}), cheating.folder, cheating.console
    )
    strict.__dict__["lm"] = tiny.lm()
    strict.lm.model.config.max_position_embeddings = 2048
    with pytest.raises(UserError, match=r"method 'cheat' used 1 near-copies.*Name the capital of"):
        strict.execute("edit")
    assert not (strict.stage("edit") / "manifest.json").exists()
    honest = strict.config.model_copy(update={"methods": ("base", "prompt", "ft_m")})
    again = Run(honest, strict.folder, strict.console)
    again.__dict__["lm"] = tiny.lm()
    again.lm.model.config.max_position_embeddings = 2048
    assert "edit" in again.execute("edit")


def test_all_that_a_workshop_hands_out_is_noted(tmp_path: Path) -> None:
    fact = Fact(id="p", subject="Ada", prompt="The home of Ada is", target_new="Vell")
    practice = Practice(fact=fact, paraphrases=("Ada lives in",), unrelated=(("Who?", "Bela"),))
    lesson = Lesson(chat=ask("Asked?", "Told."), completion="Said.")
    ledger = Ledger()
    shop = ledger.over(
        Workshop(
            lessons=lambda: [lesson], practice=lambda: [practice], texts=lambda: ["One.", "Two."]
        )
    )
    assert ledger.texts == {}  # what nobody asks for is not used
    for source in (shop.lessons, shop.practice, shop.texts):
        assert source is not None and source() and source()
    shop.used("training", ["Mine.", " "])
    assert {kind: list(texts) for kind, texts in ledger.texts.items()} == {
        "lessons": ["Told.", "Asked?", "Said."],
        "practice": ["The home of Ada is", "Ada lives in", "Who?"],
        "general text": ["One.", "Two."],
        "training": ["Mine."],
    }
    ledger.save(tmp_path)
    guard = Guard(["Where does Bela live?", "asked"], ["Bela"], allowed=[fact.prompt])
    leaks = checked(guard, [tmp_path])
    assert {kind: (own.checked, own.copies) for kind, own in leaks.items()} == {
        "lessons": (3, 1),
        "practice": (3, 0),
        "general text": (2, 0),
        "training": (1, 0),
    }
    assert leaks["lessons"].examples == (("Asked?", "asked"),)
    write_leaks(tmp_path, {"lora": leaks})
    assert read_leaks(tmp_path) == {"lora": leaks}


def test_what_the_teacher_dropped_is_no_copy_in_use(tmp_path: Path) -> None:
    write_json(
        tmp_path / "leakage.json",
        {
            "queries": {"checked": 9, "copies": 2, "templates": 1, "copy_examples": [["a", "b"]]},
            "prompts": {"checked": 4, "copies": 1, "templates": 0, "copy_examples": [["c", "d"]]},
        },
    )
    leaks = together([teaching_leaks(tmp_path), {"prompts": Leaks(1), "training": Leaks(5)}])
    assert leaks == {
        "teacher's queries": Leaks(9, 2, 0, 1),
        "prompts": Leaks(5, 0, 1, 0, (("c", "d"),)),
        "training": Leaks(5),
    }
    rows = leak_rows({"ske": leaks, "base": {}}, "mini", 3)
    assert [(row["method"], row["kind"], row["checked"]) for row in rows] == [
        ("ske", "all", 19),
        ("ske", "teacher's queries", 9),
        ("ske", "prompts", 5),
        ("ske", "training", 5),
        ("base", "all", 0),
    ]
    assert {key: rows[0][key] for key in ("dropped", "copies", "templates", "seed")} == {
        "dropped": 2,
        "copies": 1,
        "templates": 1,
        "seed": 3,
    }
