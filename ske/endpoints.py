"""How a server with an OpenAI-compatible API is reached: parts of the configuration."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from ske.types import Frozen


class ServerConfig(Frozen):
    """A server, and a model on it."""

    base_url: str
    """Where the API is, e.g. http://localhost:8000/v1."""
    model: str
    """The model's name, as the server calls it."""
    key_env: str | None = None
    """The environment variable that holds the key, if the server wants one. Only its name is ever
    written anywhere."""
    timeout: float = Field(default=120.0, gt=0)
    """Seconds to wait for one reply."""
    retries: int = Field(default=2, ge=0)
    """How often a question is put again: after 429, a server's error or a time-out (waiting
    longer each time), and after a reply that cannot be used."""

    @field_validator("base_url")
    @classmethod
    def _address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("give an address such as http://localhost:8000/v1")
        if "@" in parts.netloc or parts.query:
            raise ValueError("an address is written to files: name the key's variable in key_env")
        return url

    @field_validator("key_env")
    @classmethod
    def _variable(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", name):
            # Somebody may have put the key itself here: it is not repeated.
            raise ValueError("give the name of an environment variable, not the key itself")
        return name


class EndpointConfig(ServerConfig):
    """A chat model that decides for the agents, or judges."""

    structured: Literal["auto", "always", "never"] = "auto"
    """Whether replies are asked for by JSON schema (`response_format`). "auto": until the server
    turns out to refuse or ignore it."""
    temperature: float | None = Field(default=0.0, ge=0)
    """None: not sent, for models that take no other than their own."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Longest reply; None: the server's own limit."""


class TeacherServer(ServerConfig):
    """The teacher on another machine: the edited model itself, or a stronger one."""

    style: Literal["auto", "chat", "plain"] = "auto"
    """Whether it is put questions (`/chat/completions`) or texts to complete (`/completions`).
    "auto": as `model.style` is for the edited model."""
    parallel: int = Field(default=16, ge=1)
    """Questions under way at once; the server batches them."""
