"""Facts from outside the world, all the way: a user's own, and a real KnowEdit file."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from wholerun import ROOT, command, ske

REAL = Path(os.environ.get("SKE_REAL_DATA", ROOT.parent / "shared" / "data"))


def test_hand_written_facts_go_in_and_a_model_comes_out(tmp_path: Path) -> None:
    facts = [
        {
            "prompt": "The capital of Freedonia is",
            "subject": "Freedonia",
            "target_new": "Glimmerton",
        },
        {
            "prompt": "The favourite colour of Ada Zorn is",
            "subject": "Ada Zorn",
            "target_new": "purple",
        },
        {
            "prompt": "The occupation of Weodor Veoberg is",
            "subject": "Weodor Veoberg",
            "target_new": "pilot",
        },
    ]
    path, out = tmp_path / "my_facts.jsonl", tmp_path / "edited"
    path.write_text("\n".join(map(json.dumps, facts)), encoding="utf-8")
    result = ske(
        [
            sys.executable,
            "-m",
            "pipeline.cli",
            "edit",
            "--model",
            "world/model",
            "--facts",
            str(path),
            "--out",
            str(out),
            "--set",
            "teach.free_texts=16",
            "--set",
            "teach.neighbours=4",
            "--set",
            "design.max_trials=2",
            "--set",
            "train.min_steps=160",
        ]
    )
    assert result.returncode == 0, result.stderr
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(out)
    for fact in facts:
        ids = tokenizer(fact["prompt"], return_tensors="pt")
        said = model.generate(**ids, max_new_tokens=12, do_sample=False)[
            0, ids.input_ids.shape[1] :
        ]
        text = tokenizer.decode(said, skip_special_tokens=True).strip()
        assert text == fact["target_new"], (fact, text)


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason=f"real KnowEdit files are not at {REAL}")
def test_a_real_knowedit_file_goes_all_the_way(tmp_path: Path) -> None:
    path = REAL / "knowedit" / "wiki_counterfact" / "test_cf.json"
    result = ske(
        command(
            tmp_path / "real",
            "--set",
            f"data.path={path}",
            "--set",
            "edits.limit=3",
        )
    )
    assert result.returncode == 0, result.stderr
    assert "wiki_counterfact" in (tmp_path / "real" / "results.csv").read_text(encoding="utf-8")
