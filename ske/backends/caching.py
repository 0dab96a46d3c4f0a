"""What models call their key/value cache: `past_key_values`, or since transformers 5.24 `cache`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

NEW, OLD = "cache", "past_key_values"


def with_cache(forward: Callable[..., Any], cache: Any) -> dict[str, Any]:
    """The argument that hands a cache to a model's forward (or, through `generate`, to it)."""
    return {NEW if NEW in inspect.signature(forward).parameters else OLD: cache}


def cache_of(output: Any) -> Any:
    """The cache that a model, or `generate`, gives back."""
    # Not `hasattr`: the old name is still there, and warns.
    return output[NEW] if NEW in output else output[OLD]
