"""Sharing a beginning, padding and batching change nothing that a model says."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from transformers import DynamicCache

from ske.backends import local, shared
from ske.backends.caching import cache_of, with_cache
from ske.backends.common import reply_of
from ske.backends.local import _ENDING, _LONG, LocalLM, _groups, load
from ske.backends.render import Renderer
from ske.backends.shared import repeated
from ske.config import ModelConfig
from ske.lm import LM, Chat, Pair, Sampling, ask
from ske.types import UserError

GREEDY = Sampling(max_new_tokens=12)
SYSTEM = "Answer the question. The capital of Ruria is London. The employer of Bela Cole is Vell."
OTHER = "Answer the question. I don't know who is the head of state of Ruria or Acme Works at all."
KINDS = [(name, chat) for name in tiny.ARCHITECTURES for chat in (False, True)]


@pytest.fixture(autouse=True)
def short_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handful of questions share their beginning, too."""
    monkeypatch.setattr(local, "_WORTH", 0)


def questions() -> list[Chat]:
    """Ragged, some alike, one empty, under two system messages and none, in no order."""
    texts = ["Who?", "The place of birth of Ada Byron is", "", "The capital of Ruria is", "Who is"]
    chats = [ask(text, SYSTEM) for text in texts]
    chats += [ask(text) for text in texts]
    chats += [ask(text, OTHER) for text in texts[:3]]
    return [chats[i] for i in (5, 0, 10, 1, 6, 2, 11, 3, 7, 4, 12, 8, 9, 1)]


def pairs() -> list[Pair]:
    answers = ["London", "Vell and Acme", "", "I don't know."]
    return [
        Pair(chat, answers[i % 4], end=i % 3 == 0 and i % 4 != 2)
        for i, chat in enumerate(questions())
    ]


@pytest.mark.parametrize(("name", "chat"), KINDS)
def test_generation_together_is_generation_one_by_one(name: str, chat: bool) -> None:
    lm = tiny.lm(name, chat)
    together = lm.generate(questions(), GREEDY)
    assert together == [lm.generate([question], GREEDY)[0] for question in questions()]
    assert len({reply.text for reply in together}) > 3


@pytest.mark.parametrize(("name", "chat"), KINDS)
def test_long_replies_are_those_of_transformers_alone(name: str, chat: bool) -> None:
    lm = tiny.lm(name, chat)
    model: Any = lm.model
    long = Sampling(max_new_tokens=2 * _LONG)
    replies = lm.generate(questions(), long)
    assert any(reply.reply_tokens > _LONG + _ENDING[0] for reply in replies)
    for question, reply in zip(questions(), replies, strict=True):
        ids = torch.tensor([lm.renderer.prompt_ids(question)])
        said = model.generate(ids, max_new_tokens=long.max_new_tokens, do_sample=False)
        said = said[0, ids.shape[1] :].tolist()
        assert reply == reply_of(lm.renderer, ids[0].tolist(), said, lm._end_ids(), long)


@pytest.mark.parametrize(("name", "chat"), KINDS)
def test_logprobs_together_are_logprobs_one_by_one(name: str, chat: bool) -> None:
    lm = tiny.lm(name, chat)
    for pair, found in zip(pairs(), lm.logprobs(pairs(), top_k=3), strict=True):
        prompt = lm.renderer.prompt_ids(pair.chat)
        answer = lm.renderer.answer_ids(*pair)
        with torch.no_grad():
            logits = lm.model(input_ids=torch.tensor([prompt + answer])).logits[0]
        expected = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1]
        own = expected.gather(1, torch.tensor(answer, dtype=torch.long)[:, None])[:, 0]
        assert found.tokens == answer
        assert torch.allclose(torch.tensor(found.logprobs), own, atol=1e-5)
        assert found.argmax == expected.argmax(-1).tolist()
        assert torch.allclose(
            torch.tensor(found.top_logprobs).reshape(-1, 3), expected.topk(3).values, atol=1e-5
        )


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_batch_size_changes_nothing(name: str) -> None:
    small, large = tiny.lm(name, batch_tokens=64), tiny.lm(name, batch_tokens=100_000)
    assert small.generate(questions(), GREEDY) == large.generate(questions(), GREEDY)
    for one, other in zip(small.logprobs(pairs()), large.logprobs(pairs()), strict=True):
        assert one.tokens == other.tokens
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_shared_beginnings_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    lm = tiny.lm()
    prefixes: list[int] = []
    read = lm._read
    monkeypatch.setattr(lm, "_read", lambda ids: prefixes.append(len(ids)) or read(ids))
    lm.generate(questions(), GREEDY)
    assert sorted(prefixes)[0] == 0
    assert len([n for n in prefixes if n > 16]) == 2


@pytest.mark.parametrize("room", [0, 2, 9])
def test_a_cache_with_room_holds_what_a_growing_one_does(room: int) -> None:
    draw = torch.Generator().manual_seed(0)
    grown, begun = DynamicCache(), DynamicCache()
    first = torch.randn(1, 2, 5, 4, generator=draw)
    begun.update(first, first + 1, 0)
    spacious = repeated(begun, 3, room)
    grown.update(first.repeat(3, 1, 1, 1), first.repeat(3, 1, 1, 1) + 1, 0)
    for width in (4, 1, 1):
        new = torch.randn(3, 2, width, 4, generator=draw)
        for one, other in zip(
            spacious.update(new, -new, 0), grown.update(new, -new, 0), strict=True
        ):
            assert torch.equal(one, other)
        assert spacious.get_seq_length() == grown.get_seq_length()
    assert begun.get_seq_length() == 5  # and can be used again


@pytest.fixture
def short_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beginnings of a few tokens are attended to apart, too."""
    monkeypatch.setattr(local, "_APART_AT_LEAST", 16)


@pytest.mark.usefixtures("short_apart")
@pytest.mark.parametrize(
    ("name", "fused"),
    [(name, True) for name in tiny.ARCHITECTURES + tiny.MORE_ARCHITECTURES]
    + [(name, False) for name in tiny.ARCHITECTURES],
)
def test_a_beginning_apart_is_read_like_a_copy(
    name: str, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not fused:  # as on a GPU
        monkeypatch.setattr("ske.backends.attention._fuses", lambda _: False)
    copies = []
    apart, copied = tiny.lm(name), tiny.lm(name)
    copied._apart = False
    replies = apart.generate(questions(), GREEDY)
    assert apart._apart is (name != "mistral")  # whose layers look back over a window
    monkeypatch.setattr(local, "repeated", lambda *a: copies.append(a) or shared.repeated(*a))
    scores = apart.logprobs(pairs(), top_k=3)
    assert bool(copies) is not apart._apart
    assert replies == copied.generate(questions(), GREEDY)
    for one, other in zip(scores, copied.logprobs(pairs(), top_k=3), strict=True):
        assert one.argmax == other.argmax
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
    assert apart.model.config._attn_implementation == copied.model.config._attn_implementation


@pytest.mark.usefixtures("short_apart")
def test_half_precision_is_read_apart_within_its_rounding() -> None:
    lm, copied = tiny.lm("llama"), tiny.lm("llama")
    for one in (lm, copied):
        one.model.to(torch.bfloat16)
    copied._apart = False
    for one, other in zip(lm.logprobs(pairs()), copied.logprobs(pairs()), strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=0.2)
    assert lm._apart


@pytest.mark.usefixtures("short_apart")
def test_a_model_that_reads_apart_wrongly_gets_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, right = tiny.lm(), tiny.lm().generate(questions(), GREEDY)
    monkeypatch.setattr("ske.backends.attention._together", lambda one, other: other.values)
    assert lm.generate(questions(), GREEDY) == right
    assert lm._apart is False


@pytest.mark.usefixtures("short_apart")
def test_a_model_that_trips_over_it_gets_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    lm, right = tiny.lm(), tiny.lm().generate(questions(), GREEDY)
    own = lm.model.config._attn_implementation
    monkeypatch.setattr("ske.backends.attention._to_own", lambda *parts: 1 / 0)
    assert lm.generate(questions(), GREEDY) == right
    assert (lm._apart, lm.model.config._attn_implementation) == (False, own)


def test_a_shared_beginning_leaves_a_token_of_every_row_outside() -> None:
    row = list(range(20))
    (group,) = _groups([row, row, [*row, 7]])
    assert group.prefix == row[:19]
    assert _groups([row]) == [([], [0])]
    assert _groups([]) == []


def test_many_groups_that_spare_little_are_read_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_WORTH", 40)
    one, two = [list(range(start, start + 20)) for start in (0, 100)]
    rows = [[*one, 1], [*one, 2], [*two, 1], [*two, 2], [*two, 3]]
    assert _groups(rows) == [(two, [2, 3, 4]), ([], [0, 1])]
    assert _groups(rows[:2]) == [(one, [0, 1])]  # nothing that it could be read together with


def test_nothing_asked_nothing_answered() -> None:
    lm = tiny.lm()
    assert lm.generate([], GREEDY) == []
    assert lm.logprobs([]) == []
    assert isinstance(lm, LM)


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_the_end_token_is_scored_only_if_asked_for(name: str) -> None:
    lm = tiny.lm(name)
    plain, ended = lm.logprobs(
        [Pair(ask("The capital of Ruria is"), "Vell", end) for end in (False, True)]
    )
    assert ended.tokens == [*plain.tokens, lm.renderer.end_id]
    assert ended.logprobs[:-1] == pytest.approx(plain.logprobs, abs=1e-5)


def test_an_empty_answer_has_no_tokens_but_its_end() -> None:
    for lm in (tiny.lm(), tiny.lm(chat=True)):
        empty, ended = lm.logprobs([Pair(ask("Who?"), "", end) for end in (False, True)])
        assert empty.tokens == []
        assert ended.tokens == [lm.renderer.end_id]


def test_top_k_rows_are_sorted_and_sum_to_one_at_most() -> None:
    lm = tiny.lm()
    for found in lm.logprobs(pairs(), top_k=5):
        for ids, row, best in zip(found.top_ids, found.top_logprobs, found.argmax, strict=True):
            assert len(set(ids)) == 5
            assert row == sorted(row, reverse=True)
            assert sum(torch.tensor(row).exp()) <= 1 + 1e-6
            assert ids[0] == best
    everything = lm.logprobs(pairs()[:1], top_k=10**6)[0]
    assert len(everything.top_ids[0]) == lm.model.config.vocab_size


# -- generation options -----------------------------------------------------------------------


def test_sampling_repeats_with_its_seed_and_leaves_the_global_generator_alone() -> None:
    lm = tiny.lm()
    state = torch.get_rng_state()
    sampling = Sampling(max_new_tokens=12, temperature=1.0, seed=3)
    first = lm.generate(questions(), sampling)
    assert lm.generate(questions(), sampling) == first
    assert lm.generate(questions(), sampling.model_copy(update={"seed": 4})) != first
    assert torch.equal(torch.get_rng_state(), state)


def test_a_stop_text_cuts_the_reply() -> None:
    lm = tiny.lm()
    chat = ask("The capital of Ruria is")
    whole = lm.generate([chat], GREEDY)[0].text
    stop = whole[len(whole) // 2 :][:3]
    reply = lm.generate([chat], GREEDY.model_copy(update={"stop": (stop,)}))[0]
    assert reply.text == whole.split(stop)[0].strip()
    assert reply.finished


def test_a_reply_that_ends_by_itself_is_finished() -> None:
    lm = tiny.lm()
    cut = lm.generate([ask("Who?")], GREEDY)[0]
    assert (cut.finished, cut.reply_tokens) == (False, 12)
    end = lm.renderer.end_id
    with torch.no_grad():
        lm.model.model.embed_tokens.weight[end] = 30 * last_state(lm, "Who?")
    ended = lm.generate([ask("Who?")], GREEDY)[0]
    assert (ended.text, ended.finished, ended.reply_tokens) == ("", True, 0)
    assert ended.prompt_tokens == len(lm.renderer.prompt_ids(ask("Who?")))


def last_state(lm: LocalLM, question: str) -> torch.Tensor:
    ids = torch.tensor([lm.renderer.prompt_ids(ask(question))])
    return lm.model.model(input_ids=ids).last_hidden_state[0, -1]


# -- renderer ---------------------------------------------------------------------------------


@pytest.mark.parametrize("begin", [False, True])
def test_a_plain_prompt_and_answer_are_the_tokens_of_the_whole_text(begin: bool) -> None:
    tokens = tiny.tokenizer(begin=begin)
    renderer = Renderer(tokens)
    for question in ("The capital of Ruria is", "Who?", "The employer of"):
        for answer in ("London", "Vell and Acme Works", "x"):
            chat = ask(question, SYSTEM)
            ids = renderer.prompt_ids(chat) + renderer.answer_ids(chat, answer)
            assert ids == tokens(f"{SYSTEM}\n\n{question} {answer}").input_ids
            assert renderer.decode(renderer.answer_ids(chat, answer)) == answer


def test_a_prompt_that_would_merge_with_the_answer_keeps_its_tokens() -> None:
    tokens = tiny.tokenizer()
    renderer = Renderer(tokens)
    renderer.joiner = ""
    chat = ask("The capital of Ruria is Lo")
    prompt = renderer.prompt_ids(chat)
    assert tokens("The capital of Ruria is London").input_ids[: len(prompt)] != prompt
    ids = prompt + renderer.answer_ids(chat, "ndon")
    assert tokens.decode(ids) == "The capital of Ruria is London"


@pytest.mark.parametrize("begin", [False, True])
def test_an_empty_prompt_starts_from_the_begin_or_end_token(begin: bool) -> None:
    tokens = tiny.tokenizer(begin=begin)
    renderer = Renderer(tokens)
    assert renderer.prompt_ids(ask("")) == [tokens.bos_token_id if begin else tokens.eos_token_id]
    assert renderer.decode(renderer.answer_ids(ask(""), "London")) == "London"


def test_a_chat_template_is_used_if_there_is_one() -> None:
    tokens = tiny.tokenizer(chat=True)
    renderer = Renderer(tokens)
    text = renderer.text(ask("Who?", "Answer."))
    assert text == (
        "<|im_start|>system\nAnswer.<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert renderer.joiner == ""
    assert Renderer(tokens, "plain").text(ask("Who?", "Answer.")) == "Answer.\n\nWho?"


def test_a_template_s_own_joiner_is_found() -> None:
    tokens = tiny.tokenizer(chat=True)
    tokens.chat_template = (
        "{% for m in messages %}"
        "{% if m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}"
        "{% else %}{{ m['content'] }}{% endif %}{% endfor %}"
    )
    renderer = Renderer(tokens)
    assert renderer.joiner == " "
    chat = ask("The capital of Ruria is")
    ids = renderer.prompt_ids(chat) + renderer.answer_ids(chat, "Vell")
    assert ids == tokens("The capital of Ruria is Vell").input_ids


GEMMA = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)


@pytest.mark.parametrize("refused", [True, False])
def test_a_template_without_a_place_for_system_messages_reads_them_in_the_question(refused) -> None:
    tokens = tiny.tokenizer(chat=True)
    tokens.chat_template = GEMMA if refused else GEMMA.replace("raise_exception('no system')", "''")
    if not refused:
        loop = "{% for m in messages %}{% if m['role'] != 'system' %}"
        dropped = tokens.chat_template.replace("{% for m in messages %}", loop)
        tokens.chat_template = dropped.replace("{% endfor %}", "{% endif %}{% endfor %}")
    renderer = Renderer(tokens)
    assert renderer.text(ask("Who?", "Answer.")) == (
        "<|im_start|>user\nAnswer.\n\nWho?<|im_end|>\n<|im_start|>model\n"
    )
    assert renderer.text(ask("Who?")) == "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>model\n"


def test_a_template_that_takes_no_answer_is_refused_in_words() -> None:
    tokens = tiny.tokenizer(chat=True)
    tokens.chat_template = "{{ raise_exception('never') }}"
    with pytest.raises(UserError, match=r"never.*model\.style=plain"):
        Renderer(tokens)
    with pytest.raises(UserError, match="no chat template"):
        Renderer(tiny.tokenizer(), "chat")


def test_a_reply_ends_with_the_template_s_end_of_turn() -> None:
    """Not with the end of a text, which a chat model does not write there."""
    tokens = tiny.tokenizer(chat=True)
    tokens.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    tokens.chat_template = tiny.CHATML.replace("<|im_end|>", "<|turn|>")
    turn = tokens.convert_tokens_to_ids("<|turn|>")
    renderer = Renderer(tokens)
    assert renderer.end_id == turn != tokens.eos_token_id
    assert renderer.answer_ids(ask("Who?"), "Vell", end=True)[-1] == turn
    assert Renderer(tokens, "plain").end_id == tokens.eos_token_id
    tokens.chat_template = tiny.CHATML.replace("<|im_end|>", "!")
    assert Renderer(tokens).end_id == tokens.eos_token_id


# -- loading ----------------------------------------------------------------------------------


def test_a_saved_model_answers_as_before(model_folder: Path) -> None:
    loaded = load(ModelConfig(path=str(model_folder), device="cpu"))
    assert loaded.model.dtype == torch.float32
    assert loaded.generate(questions(), GREEDY) == tiny.lm().generate(questions(), GREEDY)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        load(ModelConfig(path=str(tmp_path)))


def test_a_broken_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="cannot be loaded"):
        load(ModelConfig(path=str(tmp_path)))


def test_a_name_that_is_no_folder_is_refused_without_network() -> None:
    with pytest.raises(UserError, match="no-such/model"):
        load(ModelConfig(path="no-such/model"))


def test_pickled_weights_are_refused(model_folder: Path, tmp_path: Path) -> None:
    for path in model_folder.iterdir():
        if path.suffix == ".json":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    torch.save(tiny.lm().model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be loaded"):
        load(ModelConfig(path=str(tmp_path)))


def test_a_cache_is_handed_over_by_the_name_that_a_model_knows() -> None:
    def old(input_ids: object, past_key_values: object = None) -> None: ...
    def new(input_ids: object, cache: object = None) -> None: ...

    assert with_cache(old, 1) == {"past_key_values": 1}
    assert with_cache(new, 1) == {"cache": 1}
    assert cache_of({"past_key_values": 1}) == cache_of({"cache": 1, "past_key_values": 2}) == 1
