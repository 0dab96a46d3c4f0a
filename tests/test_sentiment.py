"""ConvSent's success and drawdown by hand, and its way from the file to the figures."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny

from eval.ask import Answer, answer, opinion_rows, opinions
from eval.cases import load
from eval.records import Case
from eval.score import CaseKey
from eval.sentiment import OpinionRow, values, with_outer
from eval.tables import results, written

KEY = CaseKey("ft", "convsent", "teacher_forced", "sentiment", "all", "c0", 0)


def row(side: str, loss: float, tokens: int, base: float, **changes: Any) -> OpinionRow:
    fields = {"method": "ft", "dataset": "convsent", "seed": 0, "case": "c0", "probe": 0}
    fields |= {"prompt": "What do you think of rain?", "sentence": "It is lovely."}
    told = {"side": side, "loss": loss, "tokens": tokens, "base_loss": base}
    return OpinionRow.model_validate(fields | told | changes)


def test_success_by_hand() -> None:
    # Wanted side: (2 * 1 + 1 * 4) / 3 = 2 nats a token, base (2 * 1 + 1 * 1) / 3 = 1; the other 3.
    rows = [row("same", 1.0, 2, 1.0), row("same", 4.0, 1, 1.0), row("other", 3.0, 5, 9.0)]
    found = values(rows)
    side, topic = 1 / (1 + math.exp(-1)), math.exp(-1)
    assert found == {
        KEY: pytest.approx(100 * side * topic),
        KEY._replace(category="side"): pytest.approx(73.10586),
        KEY._replace(category="topic"): pytest.approx(36.78794),
    }


def test_a_model_without_an_opinion_has_50_and_a_likelier_topic_is_no_bonus() -> None:
    rows = [row("same", 2.0, 4, 3.0), row("other", 2.0, 4, 3.0)]
    assert values(rows)[KEY] == 50
    assert values(rows)[KEY._replace(category="topic")] == 100


def test_drawdown_is_a_mean_over_tokens_of_another_topic() -> None:
    rows = [
        row("outer", 1.0, 2, 1.0, divergence=[0.0, 0.3]),
        row("outer", 1.0, 1, 1.0, divergence=[0.9]),
    ]
    assert values(rows) == {KEY._replace(metric="sentiment_kl"): pytest.approx(0.4)}


def test_error_rows_and_one_side_alone_give_no_figure() -> None:
    broken = row("other", 1.0, 1, 1.0, error="no tokens")
    assert values([row("same", 1.0, 1, 1.0), broken]) == {}


def test_nats_and_percentages_go_to_their_own_tables() -> None:
    rows = [row("same", 2.0, 4, 3.0), row("other", 2.0, 4, 3.0)]
    rows.append(row("outer", 1.0, 1, 1.0, divergence=[0.2]))
    percent, graded = written(results([], beside=values(rows)))
    assert {line["metric"] for line in percent} == {"sentiment"}
    assert [(line["metric"], line["mean"]) for line in graded] == [("sentiment_kl", 0.2)]


def talk(folder: Path, *topics: str) -> list[Case]:
    path = folder / "blender_test.json"
    records = [
        {"ent": name, "pos": [f"I love {name}.", " Yes! "], "neg": [f"I hate {name}.", ""]}
        for name in topics
    ]
    path.write_text(json.dumps(records), encoding="utf-8")
    return load(path).cases


def test_the_wanted_side_is_the_targets_and_the_outer_topic_is_not_edited(tmp_path: Path) -> None:
    every = talk(tmp_path, "rain", "snow", "fog")
    for case in every:
        same = [probe.answers[0][0] for probe in case.opinions["same"]]
        assert same[0] == case.fact.target_new
        assert len(same) == (2 if "love" in same[0] else 1)
        assert all(case.fact.subject in probe.prompt for probe in case.opinions["other"])
    two = with_outer(every[:2], every)
    for case in two:
        assert all("fog" in probe.prompt for probe in case.opinions["outer"])
    [last] = with_outer(every[2:], every)
    assert all("rain" in probe.prompt for probe in last.opinions["outer"])


def test_sentences_are_read_at_their_tokens(tmp_path: Path) -> None:
    lm = tiny.lm()
    every = talk(tmp_path, "rain", "snow")
    cases = with_outer(every[:1], every)
    asked = opinions(cases)
    numbered = list(enumerate(asked))
    base = answer(lm, numbered, ("teacher_forced",), 4)
    assert [Answer.model_validate_json(a.model_dump_json()) for a in base] == base, "kept whole"
    rows = list(opinion_rows("base", "convsent", 0, asked, base, base))
    assert all(r.tokens > 0 and r.loss == r.base_loss for r in rows)
    assert all(len(r.divergence) == r.tokens for r in rows if r.side == "outer")
    found = {key.metric: value for key, value in values(rows).items() if key.category == "all"}
    assert found["sentiment_kl"] == 0
    assert 0 < found["sentiment"] < 100
