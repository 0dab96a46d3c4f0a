"""A miniature run folder, written with the real records and scored by the real stage."""

import json
from collections.abc import Sequence
from pathlib import Path

from agents.records import CurveRow, Design, Pack
from eval.records import Case, Probe
from eval.score import Row
from pipeline import scoring
from pipeline.run import Run
from ske.config import parse, resolved
from ske.io import write_json, write_rows, write_text
from ske.trace import Event, Trace
from ske.types import Fact

EVIL = "<script>alert('x')</script> | **bold** [a](http://evil.example)"
"""What a model may say: it must come out as it is, as text."""
LAYOUTS = ("triples", "prose")
COSTS = {"seconds": 1.5, "bytes": 2048, "peak_mb": 900, "tokens": 6200}


def fact(number: int) -> Fact:
    return Fact(
        id=f"world-{number:04d}",
        subject=f"Ada {number}",
        prompt=f"The employer of Ada {number} is",
        target_new=f"Mill {number}",
        ground_truth="Old Mill",
    )


def minirun(folder: Path, methods: Sequence[str] = ("base", "prompt", "ske"), n: int = 4) -> Run:
    """A run that is done up to `score`; the student fails on the first fact and says EVIL."""
    tree = {"methods": list(methods), "model": {"path": "a-model"}, "edits": {"limit": n}}
    run = Run(parse(tree, "test"), folder)
    write_text(folder / "config.yaml", resolved(run.config))
    facts = [fact(i) for i in range(n)]
    _facts(run, facts)
    if "ske" in methods:
        _design(run, facts)
        _teach(run, facts)
    rows = [row for i, f in enumerate(facts) for m in methods for row in _asked(m, f, i)]
    write_rows(run.stage("ask") / "rows.jsonl", [row.model_dump(mode="json") for row in rows])
    write_rows(run.stage("ask") / "capability.jsonl", [_skill(m) for m in methods])
    for method in methods:
        place = run.stage("train") if method == "ske" else run.stage("edit") / "items" / method
        write_json(place / "costs.json", COSTS)
    asking = {method: {"seconds": 2.5, "answers": 8, "tokens": 31.6} for method in methods}
    write_json(run.stage("ask") / "costs.json", asking)
    run.stage("score").mkdir(parents=True)
    scoring.run(run, run.stage("score"))
    return run


def _facts(run: Run, facts: list[Fact]) -> None:
    probe = Probe(prompt="Who?", answers=(("x",),))
    write_rows(run.stage("facts") / "facts.jsonl", [f.model_dump(mode="json") for f in facts])
    cases = [Case(fact=f, paraphrase=(probe,), data="mini") for f in facts]
    write_rows(run.stage("facts") / "cases.jsonl", [c.model_dump(mode="json") for c in cases])
    skipped = {"file": "f.json", "where": "record 3", "reason": EVIL, "kind": "probe", "count": 2}
    write_json(
        run.stage("facts") / "summary.json",
        {
            "dataset": "mini",
            "cases": len(facts),
            "available": 9,
            "conflicting": [],
            "skipped": [skipped],
        },
    )


def _design(run: Run, facts: list[Fact]) -> None:
    lines = "\n".join(f"{f.subject} | employer | {f.target_new}" for f in facts)
    system = f"These are true:\n{lines}\n{EVIL}"
    pack = Pack(
        id="pack-00",
        fact_ids=tuple(f.id for f in facts),
        system=system,
        layout="triples",
        header="correct",
        footer="rest",
        capacity=len(facts),
        recall=0.75,
        tokens=30,
    )
    curve = tuple(
        CurveRow(
            layout=layout,
            packer="naive" if layout == "prose" else "designer",
            header="none",
            footer="none",
            facts_per_prompt=size,
            n=len(facts),
            recall=1 / size,
            paraphrase=None,
            consequences=0.5,
            drift=None,
            tokens_per_fact=7.5,
        )
        for layout in LAYOUTS
        for size in (1, 2, 4)
    )
    design = Design(
        packs=(pack,),
        curve=curve,
        front=(),
        lost={facts[0].id: f"too hard {EVIL}"},
        trials=1,
        passed=False,
        verdict="plateau",
    )
    write_text(run.stage("design") / "design.json", design.model_dump_json())
    write_json(run.stage("design") / "curve.json", [r.model_dump(mode="json") for r in curve])
    _trace(run, facts, system)


def _trace(run: Run, facts: list[Fact], system: str) -> None:
    trace = Trace(run.stage("design") / "trace.jsonl")
    marks = [
        {
            "fact": f.id,
            "kind": "fact",
            "question": f.prompt,
            "expected": f.target_new,
            "answer": EVIL,
            "ok": False,
        }
        for f in facts
    ]
    scores = {"recall": 0.75, "consequences": None, "drift": 0.1, "tokens_per_fact": 7.5}
    plan = {"purpose": "search", "layout": "triples", "packer": "designer", "capacity": 4}
    ids = [f.id for f in facts]

    def add(role: str, **fields: object) -> None:
        event = {"stage": "design", "role": role, "brain": "rules", "template_hash": "0"}
        trace.add(Event.model_validate({**event, "template": f"agents/{role}", **fields}))

    add("planner", parsed={**plan, "reason": "as many as fit"}, reply=EVIL)
    shown = {"system": system}
    add("examiner", variables=shown, parsed={"rows": marks}, reply=EVIL, facts=ids)
    add("judge", scores=scores, parsed={"winner": 0, "reason": "plateau"})


def _teach(run: Run, facts: list[Fact]) -> None:
    queries = [
        {
            "prompt": f.prompt,
            "kind": "fact",
            "fact_id": f.id,
            "expected": f.target_new,
            "reply": EVIL,
            "status": "repaired",
        }
        for f in facts
    ]
    lessons = [
        {
            "chat": [{"role": "user", "content": f.prompt}],
            "completion": f.target_new,
            "kind": "fact",
            "fact": f.id,
            "ids": [],
            "top_ids": [],
            "top_logprobs": [],
        }
        for f in facts
    ]
    write_rows(run.stage("teach") / "queries.jsonl", queries)
    write_rows(run.stage("teach") / "lessons.jsonl", lessons)
    write_json(run.stage("teach") / "summary.json", {"fact kept": 3, "fact repaired": 1})
    write_json(run.stage("teach") / "leakage.json", {"queries": {"checked": 9, "copies": 2}})


def _asked(method: str, own: Fact, number: int) -> list[Row]:
    right = method == "ske" and number > 0
    said = own.target_new if right else EVIL
    common = {"method": method, "dataset": "mini", "case": own.id, "probe": 0, "seed": 0}
    probes = [
        ("edit_success", "all", {"prompt": own.prompt, "text": said}),
        ("locality", "Same | subject", {"prompt": "Near?", "text": said, "base_text": EVIL}),
    ]
    rows = []
    for metric, category, fields in probes:
        shared = {**common, "metric": metric, "category": category, "answers": ((own.target_new,),)}
        rows.append(Row.model_validate({**shared, **fields, "protocol": "generate"}))
        forced = {"prompt": fields["prompt"], "hits": (1, int(right)), "protocol": "teacher_forced"}
        rows.append(Row.model_validate({**shared, **forced}))
    return rows


def _skill(method: str) -> dict[str, object]:
    skill = {"skill": "sums", "prompt": "1 + 1 =", "answer": "2", "text": "2"}
    return {"method": method, "dataset": "mini", "seed": 0, **skill}


def rows_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
