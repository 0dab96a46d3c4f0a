"""The list of stages: what runs, in which order, and which part of the configuration each reads."""

from __future__ import annotations

from pipeline.stage import Stage

HOW = tuple(f"model.server.{key}" for key in ("key_env", "timeout", "retries", "parallel"))
"""How a server is reached, which changes no answer."""

WHERE = tuple(f"design.endpoint.{key}" for key in ("base_url", "key_env", "timeout", "structured"))
"""How the agents' model is reached: its replies are kept by what it is, not by where it is."""

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
        apart=("design.approve", *WHERE, *HOW),
    ),
    Stage(
        "teach",
        "pipeline.teacher:run",
        ("facts", "design"),
        ("model", "teach", "leakage", "seed"),
        "the teacher answers queries under the prompts",
        apart=HOW,
        version=7,
    ),
    Stage(
        "train",
        "pipeline.edits:train",
        ("facts", "teach"),
        ("model", "train", "leakage", "seed"),
        "the student learns the answers",
        apart=HOW,
        version=2,
        leaves=("student",),
    ),
    Stage(
        "edit",
        "pipeline.edits:run",
        ("facts",),
        ("model", "methods", "options", "tuned", "practice", "texts", "leakage", "seed"),
        "the other methods make the same edits",
        apart=HOW,
    ),
    Stage(
        "ask",
        "pipeline.asking:run",
        ("facts", "train", "edit"),
        ("model", "methods", "eval", "seed"),
        "every method is asked every probe",
        apart=HOW,
        version=2,
    ),
    Stage(
        "score",
        "pipeline.scoring:run",
        ("teach", "train", "edit", "ask"),
        ("eval", "seed"),
        "saved rows become results with intervals",
        version=3,
        leaves=("results.csv", "graded.csv", "comparisons.csv"),
    ),
    Stage(
        "report",
        "pipeline.report:run",
        ("score",),
        (),
        "tables, figures and a page",
        version=3,
        leaves=("report.md", "report.html"),
    ),
)

TRAIN_IN_ROUNDS = Stage(
    "train",
    "pipeline.teaching:run",
    ("facts",),
    ("model", "design", "teach", "leakage", "train", "seed"),
    "the student learns round after round, each designed and taught anew",
    apart=("design.approve", *WHERE, *HOW),
    version=6,
)
"""Instead of `design`, `teach` and `train` where facts are edited in several rounds: the agents of
one round look at the model that the round before has trained."""


def stages_for(taught: bool, mode: str) -> tuple[Stage, ...]:
    """The stages of a run; without a taught method there is nothing to design, teach or train."""
    teaching = ("design", "teach", "train")
    if taught and mode == "batch":
        return STAGES
    kept = [stage for stage in STAGES if stage.name not in teaching]
    if taught:
        kept.insert(1, TRAIN_IN_ROUNDS)
    names = {stage.name for stage in kept}
    return tuple(
        stage._replace(needs=tuple(need for need in stage.needs if need in names)) for stage in kept
    )
