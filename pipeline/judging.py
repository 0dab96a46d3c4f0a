"""An optional judge for free replies: a chat model marks what a match by words may get wrong.

Writes `judged.jsonl` beside the rows of stage `ask`; verdicts are kept under `items/` by what was
asked, so that a killed run, or one with another method, asks only what is new.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from agents.chat import ChatModel, Refused
from agents.endpoint import ADVICE, Endpoint, ready
from agents.parsing import Unusable, parsed
from eval.judge import FILE, JudgedRow, to_judge
from eval.score import Row
from prompts.loader import Rendered, render, schema_text, template_hash
from ske.config import EndpointConfig
from ske.io import append_rows, drop_torn_line, read_rows, write_rows
from ske.types import Frozen, UserError, content_hash

T = TypeVar("T")
TEMPLATE = "judge/reply"


class Verdict(Frozen):
    """The judge's reply."""

    verdict: Literal["right", "wrong"]


class Heard(NamedTuple):
    """What the judge said to one question."""

    said: str
    error: str | None


def check(config: EndpointConfig) -> None:
    """Whether the judge can be asked at all; before any model is loaded.

    Raises:
        UserError: an extra or the key's variable is missing.
    """
    _under_own_name(lambda: ready(config))


def judge(
    rows: Sequence[Row],
    config: EndpointConfig,
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Ask about every free reply that has something to be marked by.

    Args:
        rows: The answers of all methods.
        config: The judge.
        folder: Of stage `ask`.
        progress: Told how many verdicts of how many are there.

    Raises:
        UserError: the judge cannot be reached; what it said before is kept.
    """
    model, wanted = Endpoint(config), to_judge(rows)
    asked = [_question(row) for row in wanted]
    keys = [content_hash([model.identity, model.sampling, one.text]) for one in asked]
    path = folder / "items" / "verdicts.jsonl"
    drop_torn_line(path)
    heard = {row["key"]: Heard(row["said"], row["error"]) for row in read_rows(path)}
    for number, (key, one) in enumerate(zip(keys, asked, strict=True), 1):
        if key not in heard:
            known = bool(heard)
            heard[key] = _under_own_name(lambda one=one, known=known: _ask(model, one, known))
            append_rows(path, [{"key": key, **heard[key]._asdict()}])
        progress(number, len(keys))
    name = f"{model.identity} {template_hash(TEMPLATE)}"
    marked = (_marked(row, heard[key], name) for row, key in zip(wanted, keys, strict=True))
    write_rows(folder / FILE, (row.model_dump(mode="json") for row in marked))


def _question(row: Row) -> Rendered:
    return render(
        TEMPLATE,
        question=row.prompt,
        accepted=[list(aliases) for aliases in row.answers],
        reply=row.text,
        schema=schema_text(Verdict),
    )


def _ask(model: ChatModel, question: Rendered, known: bool) -> Heard:
    try:
        said = model.say([{"role": "user", "content": question.text}], Verdict, known)
    except Refused as error:
        return Heard("", f"the judge refuses: {error}")
    return Heard(said.text, None)


def _marked(row: Row, heard: Heard, name: str) -> JudgedRow:
    right, error = None, heard.error
    if error is None:
        try:
            right = parsed(heard.said, Verdict).verdict == "right"
        except Unusable as problem:
            error = f"no verdict: {problem}"
    fields = row.model_dump(include={"method", "dataset", "seed", "case", "metric", "probe"})
    fields |= {"category": row.category, "right": right, "said": heard.said}
    return JudgedRow.model_validate(fields | {"judge": name, "error": error})


def _under_own_name(call: Callable[[], T]) -> T:
    """The endpoint speaks of the agents' own key of the configuration."""
    try:
        return call()
    except UserError as error:
        told = str(error).replace("design.endpoint", "eval.judge")
        raise type(error)(told.replace(ADVICE, "or go without: --set eval.judge=null")) from None
