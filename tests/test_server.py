"""A model behind an OpenAI-compatible server answers as it does here, or it is said why not."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny
from chatserver import Answer, ChatServer

from pipeline.behind import BEHIND
from pipeline.run import Run
from ske.backends.local import LocalLM
from ske.backends.local import load as load_local
from ske.backends.server import ServerLM, load
from ske.config import ModelConfig, parse
from ske.endpoints import TeacherServer
from ske.io import read_json, read_rows
from ske.lm import LM, Pair, Sampling, ask
from ske.types import UserError

GREEDY = Sampling(max_new_tokens=12)
SYSTEM = "Answer the question. The capital of Ruria is London."
CHATS = [
    ask(text, system)
    for text in ("Who?", "The place of birth of Ada Byron is", "")
    for system in (SYSTEM, None)
]


def body_of(lm: LocalLM, request: dict[str, Any]) -> dict[str, Any]:
    """What vLLM's server would answer, from a model in this process."""
    if "messages" in request:
        prompt = lm.renderer.prompt_ids(request["messages"])
    elif isinstance(request["prompt"], str):
        prompt = lm.tokenizer(request["prompt"]).input_ids
    else:
        prompt = request["prompt"]
    choice: dict[str, Any] = {"index": 0}
    if request.get("prompt_logprobs"):
        (scored,) = lm.score([prompt[:1]], [prompt[1:]], request["prompt_logprobs"])
        choice |= {"text": "", "prompt_logprobs": [None, *rows_of(lm, scored)]}
        return {"choices": [choice], "usage": {}}
    sampling = Sampling(max_new_tokens=request["max_tokens"])
    ids = lm._continue([], None, [prompt], sampling)[0]
    end = lm.renderer.end_id
    said = ids[: ids.index(end)] if end in ids else ids
    text, ended = lm.tokenizer.decode(said), "stop" if len(said) < len(ids) else "length"
    message = {"message": {"role": "assistant", "content": text}}
    choice |= {**(message if "messages" in request else {"text": text}), "finish_reason": ended}
    usage = {"prompt_tokens": len(prompt), "completion_tokens": len(said)}
    return {"choices": [choice], "usage": usage}


def rows_of(lm: LocalLM, scored: Any) -> Iterator[dict[str, Any]]:
    for token, own, ids, values in zip(
        scored.tokens, scored.logprobs, scored.top_ids, scored.top_logprobs, strict=True
    ):
        row = dict(zip(ids, values, strict=True)) | {token: own}
        yield {
            str(i): {"logprob": value, "decoded_token": lm.tokenizer.decode([i])}
            for i, value in row.items()
        }


@contextmanager
def served(lm: LocalLM, **options: Any) -> Iterator[tuple[ServerLM, ChatServer]]:
    with ChatServer(lambda request: Answer(raw=json.dumps(body_of(lm, request)).encode())) as there:
        yield at(there.url, lm, **options), there


def at(url: str, lm: LocalLM | None = None, **options: Any) -> ServerLM:
    config = TeacherServer(base_url=url, model="tiny", **{"retries": 0, "parallel": 1, **options})
    return ServerLM(config, (lm or tiny.lm(chat=True)).renderer)


@pytest.mark.parametrize("chat", [False, True])
def test_a_served_model_says_what_it_says_here(chat: bool) -> None:
    lm = tiny.lm(chat=chat)
    with served(lm) as (remote, there):
        assert remote.generate(CHATS, GREEDY) == [lm.generate([c], GREEDY)[0] for c in CHATS]
    assert isinstance(remote, LM)
    path = "chat/completions" if chat else "completions"
    assert there.paths == [f"/v1/{path}"] * len(CHATS)


@pytest.mark.parametrize("chat", [False, True])
def test_answers_are_scored_by_the_server(chat: bool) -> None:
    lm = tiny.lm(chat=chat)
    texts = ("London", "", "I don't know.")
    pairs = [Pair(c, texts[i % 3], end=i % 2 == 0) for i, c in enumerate(CHATS)]
    with served(lm) as (remote, _):
        for top_k in (0, 4):
            found = remote.logprobs(pairs, top_k)
            for own, scored in zip(lm.logprobs(pairs, top_k), found, strict=True):
                assert (scored.tokens, scored.argmax) == (own.tokens, own.argmax)
                assert scored.top_ids == own.top_ids
                assert scored.logprobs == pytest.approx(own.logprobs, abs=1e-5)
                for one, other in zip(scored.top_logprobs, own.top_logprobs, strict=True):
                    assert one == pytest.approx(other, abs=1e-5)


def test_answers_come_in_order_however_many_are_under_way() -> None:
    def echo(request: dict[str, Any]) -> Answer:
        text = request["messages"][-1]["content"]
        return Answer(text, delay=0.02 * (5 - int(text)))

    with ChatServer(echo) as there:
        said = at(there.url, parallel=5).generate([ask(str(i)) for i in range(5)], GREEDY)
    assert [reply.text for reply in said] == list("01234")


def test_sampling_is_asked_for_in_the_api_s_words() -> None:
    sampling = Sampling(
        max_new_tokens=9, temperature=0.7, top_k=5, min_new_tokens=2, seed=3, stop=("#",)
    )
    with ChatServer(lambda _: "a word # and more") as there:
        one, _ = at(there.url).generate([ask("x"), ask("x")], sampling)
    first, second = there.asked
    assert (one.text, one.finished) == ("a word", True)
    assert first["model"] == "tiny"
    assert (first["max_tokens"], first["temperature"], first["top_k"]) == (9, 0.7, 5)
    assert (first["min_tokens"], first["stop"]) == (2, ["#"])
    assert first["seed"] != second["seed"]  # the same question twice is two draws


def test_a_reply_that_is_cut_is_not_finished() -> None:
    with ChatServer(lambda _: Answer("half", finish="length")) as there:
        assert not at(there.url).generate([ask("x")], GREEDY)[0].finished


# -- what can go wrong ------------------------------------------------------------------------


def refused(lm: ServerLM, *parts: str) -> str:
    """The message of a refusal, which has all these parts."""
    with pytest.raises(UserError) as caught:
        lm.generate([ask("x")], GREEDY)
    for part in parts:
        assert part in str(caught.value)
    return str(caught.value)


def test_a_server_that_is_not_there_is_named_with_what_was_tried() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    told = refused(at(url, retries=1), "2 times", "'tiny'", "model.backend=transform")
    assert url in told and "cannot be reached" in told


def test_what_passes_is_tried_again() -> None:
    answers = [Answer("busy", 503), Answer("busy", 429, (("Retry-After", "0"),)), Answer("fine")]
    with ChatServer(lambda _: answers.pop(0)) as there:
        (reply,) = at(there.url, retries=2).generate([ask("x")], GREEDY)
    assert (reply.text, len(there.asked)) == ("fine", 3)


def test_what_does_not_pass_is_asked_once() -> None:
    with ChatServer(lambda _: Answer("no such model", 404)) as there:
        refused(at(there.url, retries=5), there.url, "HTTP 404", "no such model", "/v1")
    assert len(there.asked) == 1


def test_a_slow_server_is_not_waited_for() -> None:
    with ChatServer(lambda _: Answer("late", delay=0.5)) as there:
        refused(at(there.url, timeout=0.1), "did not answer in time", "0.1 s")
        assert there.asked


def test_what_is_no_completion_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer(lambda _: Answer(raw=b"<html>")) as there:
        assert "no JSON" in refused(at(there.url))
    with ChatServer(lambda _: Answer(raw=b'{"choices": []}')) as there:
        assert "no completion" in refused(at(there.url), "/v1")
    with ChatServer(lambda _: Answer(raw=b'["choices"]')) as there:
        assert "no completion" in refused(at(there.url))


def test_the_key_goes_to_the_server_and_into_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", "s3cret")
    wrong = ChatServer(lambda _: Answer("bad key s3cret", 401))
    with wrong as there, pytest.raises(UserError) as caught:
        at(there.url, key_env="TEACHER_KEY").generate([ask("x")], GREEDY)
    assert there.keys == ["Bearer s3cret"]
    assert "s3cret" not in str(caught.value)
    assert "$TEACHER_KEY" in str(caught.value)


def test_the_key_follows_no_redirection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", "s3cret")
    with ChatServer(lambda _: "mine now") as thief:
        with ChatServer(lambda _: Answer("", 302, (("Location", thief.url),))) as there:
            refused(at(there.url, key_env="TEACHER_KEY"), "HTTP 302")
        assert thief.asked == []


def test_a_server_without_logprobs_is_told_from_one_with() -> None:
    without = ChatServer(lambda _: Answer(raw=b'{"choices": [{"text": "x"}]}'))
    with without as there, pytest.raises(UserError, match="gives no log-probabilities"):
        at(there.url).logprobs([Pair(ask("x"), "y")])


def test_a_server_with_other_tokens_is_refused() -> None:
    lm = tiny.lm()

    def shifted(request: dict[str, Any]) -> Answer:
        body = body_of(lm, request)
        for row in body["choices"][0]["prompt_logprobs"][1:]:
            for entry in row.values():
                entry["decoded_token"] = "other"
        return Answer(raw=json.dumps(body).encode())

    with ChatServer(shifted) as there, pytest.raises(UserError, match="reads token"):
        at(there.url, lm).logprobs([Pair(ask("The capital of Ruria is"), "London")])


def test_loading_asks_for_the_key_and_the_tokenizer(model_folder: Path, tmp_path: Path) -> None:
    server = TeacherServer(base_url="http://localhost:1/v1", model="m", key_env="NO_SUCH_KEY")
    config = ModelConfig(path=str(model_folder), backend="openai", server=server)
    with pytest.raises(UserError, match="NO_SUCH_KEY"):
        load(config)
    open_server = server.model_copy(update={"key_env": None, "style": "chat"})
    remote = load(config.model_copy(update={"server": open_server}))
    # A teacher that chats may teach a model that completes texts.
    assert (remote.chat, remote.renderer.chat) == (True, False)
    with pytest.raises(UserError, match=r"model\.path"):
        load(config.model_copy(update={"server": open_server, "path": str(tmp_path)}))


# -- a run ------------------------------------------------------------------------------------


def test_a_run_is_taught_by_a_server_as_by_its_own_model(tmp_path: Path) -> None:
    lm = load_local(ModelConfig(device="cpu"))
    tree: dict[str, Any] = {
        "edits": {"limit": 2},
        "design": {"max_trials": 1},
        "teach": {"free_texts": 4, "free_tokens": 4, "neighbours": 2},
        "methods": ["ske"],
    }
    own = Run(parse(tree, "test"), tmp_path / "own")
    own.execute("teach")
    with ChatServer(lambda request: Answer(raw=json.dumps(body_of(lm, request)).encode())) as there:
        server = {"base_url": there.url, "model": "world", "parallel": 1}
        tree["model"] = {"backend": "openai", "server": server}
        taught = Run(parse(tree, "test"), tmp_path / "taught")
        taught.execute("teach")
    assert len(there.asked) > 10
    prompted = [body for body in there.asked if "system" in {m["role"] for m in said(body)}]
    assert prompted  # the teacher reads facts in a prompt
    for name in ("lessons.jsonl", "queries.jsonl"):
        texts = [(run.stage("teach") / name).read_text() for run in (own, taught)]
        assert texts[0] == texts[1]
    asked = read_rows(own.stage("teach") / "queries.jsonl")
    behind = [row["kind"] for row in asked if row["note"] == BEHIND]
    assert sorted(behind) == ["neighbour"] * 8 + ["paraphrase"] * 8, "four sentences a fact"
    assert read_json(own.stage("teach") / "leakage.json")[BEHIND]["checked"] == 16


def said(request: dict[str, Any]) -> list[dict[str, str]]:
    return request.get("messages", [])
