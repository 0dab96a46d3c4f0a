"""What is wrong with a value of a configuration, in the words of somebody who writes YAML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel


def reason(error: Mapping[str, Any]) -> str:
    """Of one of pydantic's errors: what was wanted; a list, which has another name in Python."""
    if error["type"] == "tuple_type":
        shown = "" if isinstance(error["input"], dict) else f": [{error['input']}]"
        return f"Input should be a list{shown}"
    return error["msg"]


def booleans(schema: type[BaseModel], tree: Any) -> Iterator[tuple[str, bool]]:
    """Values that are true or false where a number is wanted, by key; pydantic takes them for 1, 0.

    YAML reads `on` and `yes` so, too.
    """
    for name, value in tree.items() if isinstance(tree, dict) else ():
        field = schema.model_fields.get(str(name))
        kinds = _kinds(field.annotation) if field is not None else []
        if isinstance(value, bool) and {int, float} & set(kinds) and bool not in kinds:
            yield str(name), value
        for inner in kinds:
            if issubclass(inner, BaseModel):
                yield from ((f"{name}.{key}", one) for key, one in booleans(inner, value))


def _kinds(annotation: Any) -> list[type]:
    """The plain types that an annotation is made of."""
    parts = get_args(annotation)
    if not parts:
        return [annotation] if isinstance(annotation, type) else []
    return [kind for part in parts for kind in _kinds(part)]
