"""A chat model behind an OpenAI-compatible API, by `langchain-openai` (the `agents-llm` extra).

The key is read from the environment when it is needed and goes nowhere but to the server.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from langchain_core.exceptions import ContextOverflowError
from langchain_core.utils.function_calling import convert_to_openai_function
from pydantic import BaseModel, SecretStr

from agents.chat import Refused, Said
from prompts.loader import render
from ske.config import EndpointConfig
from ske.lm import Message
from ske.types import MissingExtra, UserError

if TYPE_CHECKING:
    import openai
    from langchain_openai import ChatOpenAI

NO_KEY = "none"
"""What is sent to servers that want no key; without it the library would look for OpenAI's own."""
NOT_THIS_QUESTION = (400, 413, 422)
"""Statuses by which a server refuses a question; others refuse whoever asks."""
ADVICE = "or let the rules decide: --set design.brain=rules"
LONGEST_MESSAGE = 300


class _NoCompletion(Exception):
    """A success by its status, but not a chat completion."""


class Endpoint:
    """A server, and what was found out about it."""

    def __init__(self, config: EndpointConfig) -> None:
        """Nothing is sent yet."""
        self.config = config
        self.name = config.model
        self.identity = config.model
        self.retries = config.retries
        self.sampling = {"temperature": config.temperature, "max_tokens": config.max_tokens}
        self.structured = config.structured != "never"
        self._client: ChatOpenAI | None = None

    def say(self, messages: list[Message], schema: type[BaseModel], known: bool) -> Said:
        """Ask the server; the library repeats the request after 429, 5xx, and time-outs."""
        alive = lambda: known or self._greeted()  # noqa: E731
        return self._heard(lambda client: self._ask(client, messages, schema), alive)

    def reach(self) -> None:
        """Put one question whose reply is a word: is the server there, with this key and model?

        Raises:
            MissingExtra: `langchain-openai` is not installed.
            UserError: It cannot be reached, refuses, or is no chat model.
        """
        hello: list[Message] = [{"role": "user", "content": render("agents/hello").text}]
        self._heard(lambda client: self._invoke(client, hello), lambda: False)

    def _greeted(self) -> bool:
        """Whether it answers at all: only then can a refusal be about the question."""
        try:
            self.reach()
        except UserError:
            return False
        return True

    def _heard(self, ask: Callable[[ChatOpenAI], Said], alive: Callable[[], bool]) -> Said:
        """A reply, or what went wrong, in words for the user; `alive`: to other questions."""
        if self._client is None:
            self._client = self._connect()
        import openai

        try:
            return self._until_read(self._client, ask)
        except ContextOverflowError as error:
            raise Refused(self._clean(error)) from None
        except openai.APIStatusError as error:
            if error.status_code in NOT_THIS_QUESTION and alive():
                raise Refused(f"HTTP {error.status_code}: {self._clean(error)}") from None
            raise UserError(self._status_advice(error)) from None
        except openai.APIConnectionError as error:
            raise UserError(self._down(error)) from None

    def _until_read(self, client: ChatOpenAI, ask: Callable[[ChatOpenAI], Said]) -> Said:
        """Ask again if what comes back is no chat completion at all, e.g. JSON that is cut short.

        The library repeats requests whose status is an error; this one is called a success.
        """
        problem = ""
        for _ in range(self.config.retries + 1):
            try:
                return ask(client)
            except _NoCompletion as error:
                problem = self._clean(error)
        raise UserError(
            f"{self.config.base_url} answered {self.config.retries + 1} times with something that "
            f"is no chat completion ({problem}); check design.endpoint.base_url, which usually "
            f"ends in /v1, {ADVICE}"
        )

    def _ask(self, client: ChatOpenAI, messages: list[Message], schema: type[BaseModel]) -> Said:
        import openai

        if not self.structured:
            return self._invoke(client, messages)
        try:
            said = self._invoke(client, messages, **_response_format(schema))
        except openai.APIStatusError as error:
            if error.status_code not in NOT_THIS_QUESTION or self.config.structured == "always":
                raise
            said = self._invoke(client, messages)
            self.structured = False  # Only now is it clear that the schema was what it refused.
            return said
        if said.finished and not said.text.lstrip().startswith("{"):
            self.structured = self.config.structured == "always"  # It was ignored.
        return said

    def _invoke(self, client: ChatOpenAI, messages: list[Message], **body: Any) -> Said:
        # Both as extra body: under langchain's own names, the limit is sent in a spelling that few
        # servers know, and with a schema a reply that is cut short is an error without the reply.
        if self.config.max_tokens is not None:
            body["max_tokens"] = self.config.max_tokens
        try:
            message = client.invoke([dict(m) for m in messages], extra_body=body or None)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            # What the libraries raise, one or the other, on bodies of another shape.
            raise _NoCompletion(f"{type(error).__name__}: {error}") from error
        usage = message.usage_metadata
        return Said(
            self._without_key(str(message.text)),
            usage["total_tokens"] if usage else 0,
            message.response_metadata.get("finish_reason") != "length",
        )

    def _connect(self) -> ChatOpenAI:
        ready(self.config)
        from langchain_openai import ChatOpenAI

        options: dict[str, Any] = {}
        if self.config.temperature is not None:
            options["temperature"] = self.config.temperature
        return ChatOpenAI(
            base_url=self.config.base_url,
            model=self.config.model,
            api_key=SecretStr(self._key() or NO_KEY),
            timeout=self.config.timeout,
            max_retries=self.config.retries,
            use_responses_api=False,
            **options,
        )

    # -- what went wrong ------------------------------------------------------------------------

    def _status_advice(self, error: openai.APIStatusError) -> str:
        status = error.status_code
        retried = status in (408, 409, 429) or status >= 500
        tried = f" {self.config.retries + 1} times" if retried else ""
        said = f"{self.config.base_url} answered{tried} HTTP {status}: {self._clean(error)}"
        if status in (401, 403):
            name = self.config.key_env
            return (
                f"{said}; check the key in ${name}"
                if name
                else f"{said}; name the \
environment variable with the key in design.endpoint.key_env"
            )
        if retried:
            return f"{said}; wait and run the same command again (nothing is lost), {ADVICE}"
        return f"{said}; check design.endpoint.base_url and model = {self.name!r}, {ADVICE}"

    def _down(self, error: openai.APIConnectionError) -> str:
        import openai

        slow = isinstance(error, openai.APITimeoutError)
        what = "did not answer in time" if slow else f"cannot be reached ({self._clean(error)})"
        config = self.config
        return (
            f"design.endpoint.base_url = {config.base_url!r} {what}: tried {config.retries + 1} "
            f"times, {config.timeout:g} s each, model {config.model!r}; start the server and run "
            f"the same command again (nothing is lost), {ADVICE}"
        )

    def _clean(self, error: Exception) -> str:
        """The error's text on one line, without the key, which some servers repeat."""
        import openai

        cause: BaseException = error
        while isinstance(cause, openai.APIConnectionError) and cause.__cause__:
            cause = cause.__cause__  # It says no more than "Connection error."
        text = " ".join(self._without_key(str(cause)).split())
        return text if len(text) <= LONGEST_MESSAGE else text[:LONGEST_MESSAGE] + "..."

    def _without_key(self, text: str) -> str:
        key = self._key()
        # Half a surrogate pair, which JSON can spell, is no text that a file can hold.
        whole = text.encode("utf-8", "replace").decode()
        return whole.replace(key, "***") if key else whole

    def _key(self) -> str:
        return os.environ.get(self.config.key_env, "") if self.config.key_env else ""


def _response_format(schema: type[BaseModel]) -> dict[str, Any]:
    """The schema as the API wants it: every key required, and no defaults."""
    parameters = _without_defaults(convert_to_openai_function(schema, strict=True)["parameters"])
    shape = {"name": schema.__name__, "schema": parameters, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": shape}}


def _without_defaults(node: Any) -> Any:
    if isinstance(node, list):
        return [_without_defaults(item) for item in node]
    if isinstance(node, dict):
        return {key: _without_defaults(item) for key, item in node.items() if key != "default"}
    return node


def ready(config: EndpointConfig) -> None:
    """Check what can be checked without asking the server.

    Raises:
        MissingExtra: `langchain-openai` is not installed.
        UserError: The environment variable with the key is not set.
    """
    if importlib.util.find_spec("langchain_openai") is None:
        raise MissingExtra(
            "design.endpoint needs langchain-openai; install it with: "
            f"pip install -e '.[agents-llm]', {ADVICE}"
        )
    if config.key_env and not os.environ.get(config.key_env):
        raise UserError(
            f"design.endpoint.key_env = {config.key_env!r}: this environment variable is not set; "
            f"put the key for {config.base_url} into it, {ADVICE}"
        )
