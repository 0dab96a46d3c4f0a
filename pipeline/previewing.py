"""`ske prompt`: a role's or the teacher's message about one fact, rendered without a model.

Reads a facts file or the embedded world's benchmarks; writes nothing.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from agents.preview import EXAMPLES, preview
from eval.cases import load
from prompts.loader import Rendered, names
from ske.config import WorldConfig, found
from ske.facts import read_facts
from ske.types import Fact, UserError

FIRST = "world_counterfact-test.json"
"""The benchmark whose first fact is taken if none is named."""
MOST_NEAR = 5


def render_for(template: str, fact_id: str | None, facts_path: Path | None) -> Rendered:
    """Render a template for a fact.

    Args:
        template: e.g. "agents/designer" or "teacher/triples".
        fact_id: Of `facts_path`, or of the embedded world; None is the first fact there.
        facts_path: A facts file, None for the embedded world.

    Raises:
        UserError: no such template, fact or file; near names are told.
    """
    _check_template(template)
    return preview(template, _fact(fact_id, facts_path))


def _check_template(template: str) -> None:
    known = [*EXAMPLES, *(name for name in names() if name.startswith("teacher/"))]
    if template in known:
        return
    # "designer" alone, or a slip of the pen.
    near = [name for name in known if name.split("/")[-1] == template]
    near = near or difflib.get_close_matches(template, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known)}"
    raise UserError(f"no prompt template {template!r} to preview; {hint}")


def _fact(fact_id: str | None, path: Path | None) -> Fact:
    if path is not None:
        return _chosen(read_facts(path), fact_id, str(path))
    folder = found(WorldConfig().path) / "benchmarks"
    files = sorted(folder.glob("*.json"), key=lambda p: (p.name != FIRST, p.name))
    if not files:
        raise UserError(f"{folder} holds no benchmarks; give a fact of your own with --facts FILE")
    if fact_id is None:
        return load(files[0], 1).cases[0].fact
    facts = [case.fact for file in files for case in load(file).cases]
    return _chosen(facts, fact_id, f"the embedded world ({folder})")


def _chosen(facts: list[Fact], fact_id: str | None, place: str) -> Fact:
    by_id = {fact.id: fact for fact in facts}
    if fact_id is None:
        return facts[0]
    if fact_id not in by_id:
        near = difflib.get_close_matches(fact_id, by_id, n=MOST_NEAR, cutoff=0.6)
        shown = near or list(by_id)[:MOST_NEAR]
        hint = "did you mean" if near else "there are, for instance,"
        raise UserError(f"--fact {fact_id!r}: no such fact in {place}; {hint} {', '.join(shown)}")
    return by_id[fact_id]
