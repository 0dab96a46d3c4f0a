"""An OpenAI-compatible server in a thread, with scripted answers; and one that answers well.

What it answers well with, it has only from the message, as a model would.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from agents.front import pareto, winner
from agents.records import Plan, Scores, Trial
from eval.score import matches, normalise
from prompts.loader import render
from ske.config import DesignConfig

HELLO = render("agents/hello").text


class Answer(NamedTuple):
    """What goes back."""

    text: str = ""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    finish: str = "stop"
    delay: float = 0.0
    raw: bytes = b""
    """Instead of a chat completion."""


class ChatServer:
    """`answer` gets the request's body; `asked`, `paths` and `keys` keep what came."""

    def __init__(self, answer: Callable[[dict[str, Any]], Answer | str]) -> None:
        self.answer = answer
        self.asked: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.keys: list[str | None] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> ChatServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(server: ChatServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.asked.append(body)
            server.paths.append(self.path)
            server.keys.append(self.headers["Authorization"])
            answer = server.answer(body)
            answer = Answer(answer) if isinstance(answer, str) else answer
            time.sleep(answer.delay)
            data = answer.raw or json.dumps(_body(body, answer)).encode()
            self.send_response(answer.status)
            for name, value in (("Content-Type", "application/json"), *answer.headers):
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


def _body(request: dict[str, Any], answer: Answer) -> dict[str, Any]:
    if answer.status != 200:
        return {"error": {"message": answer.text, "type": "scripted"}}
    message = {"role": "assistant", "content": answer.text}
    return {
        "id": "scripted",
        "object": "chat.completion",
        "created": 0,
        "model": request["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": answer.finish}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
    }


# -- a good model -----------------------------------------------------------------------------


def message_of(request: dict[str, Any]) -> str:
    """The question of a request."""
    return request["messages"][-1]["content"]


def role_of(message: str) -> str:
    """Who is asked."""
    found = re.match(r"You are the (\w+) of a team", message)
    assert found, message[:200]
    return found.group(1).lower()


def data(message: str) -> list[Any]:
    """What a message quotes as data."""
    return [json.loads(text) for text in re.findall(r"<data>\n(.*?)\n</data>", message, re.DOTALL)]


def good(request: dict[str, Any]) -> str:
    """A sensible decision of any role, and a word to whoever says hello."""
    message = message_of(request)
    if message == HELLO:
        return "yes"
    decisions: dict[str, Callable[[str], dict[str, Any]]] = {
        "planner": _plan,
        "packer": _packs,
        "writer": _system,
        "questioner": _queries,
        "examiner": _marks,
        "critic": _reasons,
        "judge": _verdict,
    }
    return json.dumps(decisions[role_of(message)](message))


def _plan(message: str) -> dict[str, Any]:
    n = int(re.findall(r"Facts to place: (\d+)", message)[0])
    plan = {"purpose": "search", "layout": "prose", "header": "use", "footer": "none"}
    plan |= {"capacity": n, "packer": "designer", "sample": n, "reason": "prose, says the model"}
    if "(prose, designer" in message or "- prose, designer packer" in message:
        plan |= {"purpose": "naive", "packer": "naive", "header": "none"}
    return plan


def _packs(message: str) -> dict[str, Any]:
    ids = [row["id"] for row in data(message)[0]]
    size = int(re.findall(r"at most (\d+) facts", message)[0])
    if "Be naive on purpose" not in message:
        ids.reverse()
    return {"packs": [{"fact_ids": ids[i : i + size]} for i in range(0, len(ids), size)]}


def _system(message: str) -> dict[str, Any]:
    lines = data(message)[1]
    header = "Use the following facts to answer.\n" if "header `use`" in message else ""
    return {"system": header + "\n".join(lines)}


def _queries(message: str) -> dict[str, Any]:
    fact = data(message)[0]["fact"]
    row = {"prompt": fact["prompt"], "kind": "fact", "fact_id": fact["id"]}
    return {"queries": [{**row, "expected": fact["target_new"]}]}


def _marks(message: str) -> dict[str, Any]:
    rows = data(message)[1]
    for row in rows:
        if row["kind"] == "neighbour":
            row["ok"] = normalise(row["answer"]) == normalise(row["expected"])
        else:
            row["ok"] = matches(row["answer"], row["expected"])
    return {"rows": rows}


def _reasons(message: str) -> dict[str, Any]:
    rows = data(message)[0]
    return {"reasons": [{"fact": r["fact"], "why": "it was", "change": "none"} for r in rows]}


TRIAL = re.compile(
    r"- trial (\d+) \((\w+)\): (\w+), (\w+) packer, header (\w+), footer (\w+), (\d+) facts per "
    r"prompt, (\d+) facts: recall ([^,]+), .* drift ([^,]+), tokens per fact (\S+)"
)


def _verdict(message: str) -> dict[str, Any]:
    trials = [_trial(found) for found in TRIAL.findall(message)]
    best = winner(trials, DesignConfig())
    assert best is not None
    over = any(t.plan.packer == "naive" for t in trials)
    return {
        "winner": best.index,
        "passed": best.passed,
        "front": [t.index for t in pareto(trials)],
        "phase": "done" if over else "search",
        "reason": "the model has seen enough",
    }


def _trial(found: tuple[str, ...]) -> Trial:
    index, purpose, layout, packer, header, footer, size, n, recall, drift, tokens = found
    plan = {"purpose": purpose, "layout": layout, "packer": packer, "header": header}
    return Trial(
        index=int(index),
        plan=Plan.model_validate({**plan, "footer": footer, "capacity": size, "sample": n}),
        n=int(n),
        prompts=1,
        scores=Scores(
            recall=float(recall),
            drift=None if drift == "None" else float(drift),
            tokens_per_fact=float(tokens),
        ),
        passed=float(recall) >= 0.95,
    )
