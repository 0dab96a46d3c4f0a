"""The list of stages: what runs, in which order, and which part of the configuration each reads."""

from __future__ import annotations

from pipeline.stage import Stage

STAGES = (
    Stage(
        "facts",
        "pipeline.facts:run",
        (),
        ("data", "edits", "world"),
        "draw the corrections and their probes",
        version=2,
    ),
    Stage(
        "design",
        "pipeline.design:run",
        ("facts",),
        ("model", "design", "seed", "teach.free_tokens"),
        "agents pack the facts into dense prompts",
        apart=("design.approve",),
    ),
    Stage(
        "teach",
        "pipeline.teacher:run",
        ("facts", "design"),
        ("model", "teach", "leakage", "seed"),
        "the teacher answers queries under the prompts",
    ),
    Stage(
        "train",
        "pipeline.edits:train",
        ("facts", "teach"),
        ("model", "train", "seed"),
        "the student learns the answers",
    ),
    Stage(
        "edit",
        "pipeline.edits:run",
        ("facts",),
        ("model", "methods", "options", "tuned", "practice", "texts", "seed"),
        "the other methods make the same edits",
    ),
    Stage(
        "ask",
        "pipeline.asking:run",
        ("facts", "train", "edit"),
        ("model", "methods", "eval", "seed"),
        "every method is asked every probe",
        version=2,
    ),
    Stage(
        "score",
        "pipeline.scoring:run",
        ("ask",),
        ("eval", "seed"),
        "saved rows become results with intervals",
        version=2,
    ),
    Stage(
        "report",
        "pipeline.report:run",
        ("score",),
        (),
        "tables, figures and a page",
        version=2,
    ),
)
