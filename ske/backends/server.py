"""A model behind an OpenAI-compatible API, as an `LM`: a teacher that runs on other machines.

Questions go to `/chat/completions`, where the server's own chat template is used, or, for models
that complete texts, to `/completions`. The log-probabilities of given answers come from
`/completions` with `prompt_logprobs`, which vLLM's server understands and few others do.
The key is read from the environment when it is needed and goes nowhere but to that server.
"""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

from ske.backends.common import before_stop, load_tokenizer, scored_of, seed_of
from ske.backends.render import Renderer
from ske.config import ModelConfig
from ske.endpoints import TeacherServer
from ske.lm import Chat, Pair, Reply, Sampling, Scored
from ske.types import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

AGAIN = (408, 409, 429)
"""Statuses that pass, beside those from 500: the question is put again."""
LONGEST_WAIT = 30.0
"""Seconds between two tries, at most."""
LONGEST_MESSAGE = 300
ADVICE = "or let this process answer: --set model.backend=transformers"


class _Answer(NamedTuple):
    """What one try brought: a parsed body, or a problem and whether it may pass."""

    body: Any
    problem: str = ""
    status: int = 0
    """Of HTTP, if that was the problem."""
    wait: float = 0.0
    """Seconds that the server wants us to wait."""

    def passes(self) -> bool:
        """Whether another try may go better."""
        return self.status in AGAIN or self.status >= 500 or self.status == 0


class _StayHere(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: it would carry the key to another server."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """No request is made."""


class ServerLM:
    """`LM` over a server. Has no weights, and holds no edit."""

    def __init__(self, config: TeacherServer, renderer: Renderer) -> None:
        """`renderer` is the edited model's: in its tokens answers are scored."""
        self.config = config
        self.renderer = renderer
        self.chat = renderer.chat if config.style == "auto" else config.style == "chat"
        self._texts = Renderer(renderer.tokenizer, "plain")
        self._open = urllib.request.build_opener(_StayHere).open

    def generate(self, chats: Sequence[Chat], sampling: Sampling) -> list[Reply]:
        """Continue each chat; tokens are counted by the server, an end token included.

        Raises:
            UserError: the server cannot be reached, or refuses.
        """
        questions = [self._question(chat, sampling, i) for i, chat in enumerate(chats)]
        return self._each(lambda question: self._reply(*question, sampling), questions)

    def _question(self, chat: Chat, sampling: Sampling, number: int) -> tuple[str, dict[str, Any]]:
        """Where a chat goes, and as what."""
        body = _sampling(sampling, number)
        if self.chat:
            return "chat/completions", {"messages": chat, **body}
        # An empty text is no prompt to most servers; its one token is.
        return "completions", {
            "prompt": self._texts.text(chat) or self._texts.prompt_ids(chat),
            **body,
        }

    def logprobs(self, pairs: Sequence[Pair], top_k: int = 0) -> list[Scored]:
        """Score each answer, as tokens of the edited model.

        Raises:
            UserError: the server cannot be reached, gives no log-probabilities of given texts, or
                its model reads tokens as something else.
        """
        prompts = [self.renderer.prompt_ids(pair.chat) for pair in pairs]
        answers = [self.renderer.answer_ids(*pair) for pair in pairs]
        items = list(zip(prompts, answers, strict=True))
        # Only the waiting is done side by side: a tokenizer is not made for threads.
        found = self._each(lambda item: self._rows(*item, max(top_k, 1)), items)
        for answer, rows in zip(answers, found, strict=True):
            self._check_tokens(answer, rows)
        values = [[{t: e["logprob"] for t, e in row.items()} for row in rows] for rows in found]
        return [scored_of(a, rows, top_k) for a, rows in zip(answers, values, strict=True)]

    def _reply(self, path: str, body: dict[str, Any], sampling: Sampling) -> Reply:
        answer = self._post(path, body)
        try:
            (choice,) = answer["choices"]
            said = choice["message"]["content"] if "message" in choice else choice["text"]
            usage = answer.get("usage") or {}
            text, cut = before_stop((said or "").strip(), sampling.stop)
            counts = (usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0)
            return Reply(text, *counts, cut or choice.get("finish_reason") == "stop")
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise UserError(self._no_completion(path, error)) from error

    def _rows(self, prompt: list[int], answer: list[int], k: int) -> list[dict[int, Any]]:
        """What the server says of each token of the answer: {token: {logprob, decoded_token}}."""
        if not answer:
            return []
        read = {"prompt": prompt + answer, "max_tokens": 1, "temperature": 0.0}
        body = self._post("completions", {**read, "prompt_logprobs": k})
        try:
            rows = body["choices"][0].get("prompt_logprobs")
            if rows is None:
                raise UserError(self._no_logprobs())
            found = [{int(t): entry for t, entry in row.items()} for row in rows[len(prompt) :]]
            _ = [row[token]["logprob"] for token, row in zip(answer, found, strict=True)]
            return found
        except (KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
            raise UserError(self._no_completion("completions", error)) from error

    def _check_tokens(self, answer: Sequence[int], rows: Sequence[dict[int, Any]]) -> None:
        """Raises UserError if the server's model has other tokens than the edited one."""
        for token, row in zip(answer, rows, strict=True):
            theirs = (row[token].get("decoded_token") or "").strip()
            ours = str(self.renderer.tokenizer.decode([token])).strip()
            # Pieces of a letter and special tokens are shown in different ways.
            if ours.isalnum() and theirs.isalnum() and ours != theirs:
                raise UserError(
                    f"{self._name()} reads token {token} as {theirs!r}, model.path as {ours!r}: "
                    f"serve the model of model.path, {ADVICE}"
                )

    def _each(self, call: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Call for every item, `parallel` at a time; after the first error nothing new starts."""
        with ThreadPoolExecutor(self.config.parallel) as pool:
            return list(pool.map(call, items))

    # -- HTTP -----------------------------------------------------------------------------------

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        """The parsed answer, after as many tries as it takes and `retries` allows."""
        tries = 0
        while True:
            answer = self._try(path, {"model": self.config.model, **body})
            if not answer.problem:
                return answer.body
            tries += 1
            if tries > self.config.retries or not answer.passes():
                raise UserError(self._failed(path, answer, tries))
            time.sleep(min(LONGEST_WAIT, max(answer.wait, 0.25 * 2**tries)))

    def _try(self, path: str, body: dict[str, Any]) -> _Answer:
        key = self._key()
        request = urllib.request.Request(
            f"{self.config.base_url.rstrip('/')}/{path}",
            data=json.dumps(body).encode(),
            headers={
                "Content-Type": "application/json",
                **({"Authorization": f"Bearer {key}"} if key else {}),
            },
        )
        try:
            with self._open(request, timeout=self.config.timeout) as answer:
                return _Answer(json.loads(answer.read()))
        except urllib.error.HTTPError as error:
            said = self._clean(error.read().decode("utf-8", "replace"))
            wait = _seconds(error.headers.get("Retry-After"))
            return _Answer(None, f"answered HTTP {error.code}: {said}", error.code, wait)
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(reason, TimeoutError):
                return _Answer(None, "did not answer in time")
            said = self._clean(str(reason) or type(reason).__name__)
            return _Answer(None, f"cannot be reached ({said})")
        except ValueError as error:
            return _Answer(None, f"answered with something that is no JSON ({error})")

    # -- what went wrong ------------------------------------------------------------------------

    def _name(self) -> str:
        return f"model.server: {self.config.model!r} at {self.config.base_url!r}"

    def _failed(self, path: str, last: _Answer, tries: int) -> str:
        config = self.config
        return (
            f"model.server.base_url = {config.base_url!r} {last.problem}; tried POST /{path} "
            f"{tries} time{'s' if tries > 1 else ''}, up to {config.timeout:g} s each, model "
            f"{config.model!r}; {self._remedy(last)}, {ADVICE}"
        )

    def _remedy(self, last: _Answer) -> str:
        if last.status in (401, 403):
            name = self.config.key_env
            known = f"check the key in ${name}"
            return known if name else "name the key's variable in model.server.key_env"
        if last.status == 404 or 300 <= last.status < 400:
            return "check base_url, which usually ends in /v1, and the model's name"
        if not last.passes():
            return "see what the server says"
        return "start the server and run the same command again (nothing is lost)"

    def _no_completion(self, path: str, error: Exception) -> str:
        return (
            f"{self._name()} answered POST /{path} with something that is no completion "
            f"({type(error).__name__}: {self._clean(str(error))}); check base_url, which usually "
            f"ends in /v1, {ADVICE}"
        )

    def _no_logprobs(self) -> str:
        return (
            f"{self._name()} gives no log-probabilities of a given text (POST /completions with "
            f"prompt_logprobs was answered without them); serve the model with vLLM, {ADVICE}"
        )

    def _clean(self, text: str) -> str:
        """A text on one line, without the key, which some servers repeat."""
        key = self._key()
        line = " ".join((text.replace(key, "***") if key else text).split())
        return line if len(line) <= LONGEST_MESSAGE else line[:LONGEST_MESSAGE] + "..."

    def _key(self) -> str:
        return os.environ.get(self.config.key_env, "") if self.config.key_env else ""


def _sampling(sampling: Sampling, number: int) -> dict[str, Any]:
    """How to generate, in the API's words; what is at its default is not sent."""
    body: dict[str, Any] = {
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
    }
    if sampling.temperature > 0:
        body["seed"] = seed_of(sampling.seed, number)
    if sampling.top_k:
        body["top_k"] = sampling.top_k
    if sampling.min_new_tokens:
        body["min_tokens"] = sampling.min_new_tokens
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    return body


def _seconds(header: str | None) -> float:
    """What `Retry-After` asks for; a date there is as good as nothing."""
    return float(header) if header and header.strip().isdigit() else 0.0


def ready(server: TeacherServer) -> None:
    """Check what can be checked without asking the server.

    Raises:
        UserError: the environment variable with the key is not set.
    """
    if server.key_env and not os.environ.get(server.key_env):
        raise UserError(
            f"model.server.key_env = {server.key_env!r}: this environment variable is not set; "
            f"put the key for {server.base_url} into it, {ADVICE}"
        )


def load(config: ModelConfig) -> ServerLM:
    """The teacher that `model.server` names; nothing is sent yet.

    Raises:
        UserError: the environment variable with the key is not set, or `model.path` has no
            tokenizer.
    """
    server = config.server
    assert server is not None  # which the configuration has checked
    ready(server)
    return ServerLM(server, Renderer(load_tokenizer(config), config.style))
