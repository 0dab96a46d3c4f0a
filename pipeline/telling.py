"""What is told about a trial or a fact, as plain texts: for the terminal and for the page alike.

Pure: reads what `pipeline.stories` put together, writes nothing.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence

from agents.records import Turns
from pipeline.labels import counted, in_order
from pipeline.pages import shortened
from pipeline.sheets import share
from pipeline.stories import Heard, Story
from pipeline.trials import Tried

ROLES = (
    "planner",
    "packer",
    "writer",
    "questioner",
    "examiner",
    "critic",
    "judge",
    "approval",
)
"""The nodes of the agents' graph, in the order in which a trial visits them."""
GRAPH_COLUMNS = ("node ", "visits", "turns", "and then ")
TRIAL_COLUMNS = (
    "",
    "purpose ",
    "layout ",
    "packer ",
    "facts/prompt",
    "tried",
    "recall %",
    "conseq. %",
    "drift %",
    "tokens/fact",
    "verdict ",
)


def trial_cells(number: int, trial: Tried) -> list[str]:
    """A trial as texts."""
    row = trial.row
    verdict = "chosen" if trial.chosen else ("enough" if trial.passed else "too little")
    if row["n"] == 0:
        verdict = "nothing to try"
    return [
        str(number),
        row["purpose"],
        row["layout"],
        row["packer"],
        str(row["facts_per_prompt"]),
        str(row["n"]),
        *(share(row[key]) for key in ("recall", "consequences", "drift")),
        f"{row['tokens_per_fact']:.1f}",
        verdict,
    ]


def graph_rows(
    visits: Mapping[str, int], trials: Sequence[Tried], noes: int
) -> list[tuple[str, ...]]:
    """Each node of the graph: how often it was visited, its turns, and where it went from there."""
    times = {role: len(trials) for role in ROLES}
    times["examiner"] = sum(len(trial.prompts) for trial in trials)
    times["approval"] = 1 + noes if trials else 0
    back = max(0, len(trials) - times["approval"])
    after = {
        "examiner": "critic (once a prompt, side by side)",
        "judge": f"planner {counted(back, 'time')}, approval {counted(times['approval'], 'time')}",
        "approval": f"planner after a no: {counted(noes, 'time')}",
    }
    following = dict(itertools.pairwise(ROLES))
    return [
        (role, str(times[role]), str(visits.get(role, 0)), after.get(role, following.get(role, "")))
        for role in ROLES
    ]


PLACE_COLUMNS = ("facts/prompt", "first third %", "middle third %", "last third %", "asked")
SHORTEST = 6
"""Prompts with fewer facts have no middle to speak of."""


def place_rows(trials: Sequence[Tried]) -> list[tuple[str, ...]]:
    """Recall by place in the prompt, over all trials of a size: is the middle lost?"""
    hits: dict[int, list[list[bool]]] = {}
    for trial in trials:
        for prompt in trial.prompts:
            size = len(prompt.fact_ids)
            if size < SHORTEST or not prompt.recalled:
                continue
            thirds = hits.setdefault(int(trial.row["facts_per_prompt"]), [[], [], []])
            for place, fact in enumerate(prompt.fact_ids):
                thirds[3 * place // size].append(prompt.recalled.get(fact, False))
    return [
        (
            str(size),
            *(share(sum(third) / len(third)) for third in thirds),
            str(sum(map(len, thirds))),
        )
        for size, thirds in sorted(hits.items())
    ]


def told_turns(turns: Turns) -> str:
    """Who decided, and how often the rules had to."""
    if not turns.asked:
        return f"decided by {turns.brain}"
    left = sum(turns.by_rules.values())
    by_role = ", ".join(f"{role} {count}" for role, count in turns.by_rules.items())
    fallen = f"{left} of them left to the rules ({by_role})" if left else "none left to the rules"
    return f"{turns.asked} decisions asked of {turns.brain}, {fallen}"


def where(story: Story) -> str:
    """Which prompt, and which place in it."""
    pack = story.pack
    if pack is None:
        return "In no prompt."
    place = pack.fact_ids.index(story.fact.id) + 1
    again = ", stated a second time at the end" if story.fact.id in pack.repeated else ""
    return (
        f"{pack.id}, fact {place} of {len(pack.fact_ids)}{again}; layout {pack.layout}, "
        f"header {pack.header}, footer {pack.footer}; recall {share(pack.recall)} %, "
        f"{pack.tokens} tokens"
    )


def lesson_counts(story: Story) -> str:
    """3 paraphrase, 1 fact, ..."""
    counts = Counter(row["kind"] for row in story.lessons)
    return ", ".join(f"{n} {kind}" for kind, n in counts.most_common()) or "none"


def lesson_rows(story: Story) -> list[tuple[str, str, str, str]]:
    """Kind, question, what the student learns to say, and how."""
    return [
        (
            row["kind"],
            row["chat"][-1]["content"],
            row["completion"],
            "the distribution" if row.get("ids") else "the text",
        )
        for row in story.lessons
    ]


def protocols_of(told: Sequence[Story]) -> list[str]:
    """Those that any probe was asked under."""
    return in_order(list({p for s in told for probe in s.probes for _, p in probe.answers}))


def methods_of(told: Sequence[Story]) -> list[str]:
    """Those that answered, in the order of the rows."""
    return list(dict.fromkeys(m for s in told for probe in s.probes for m, _ in probe.answers))


def heard_text(heard: Heard) -> str:
    """What was said; under teacher forcing, the share of right tokens."""
    if heard.text:
        return shortened(" ".join(heard.text.split()), 120)
    return "error" if heard.score is None else f"{100 * heard.score:.0f} %"


def failing(story: Story, protocols: Sequence[str]) -> list[str]:
    """Methods whose edit of this fact did not take; the base has none."""
    own = [probe for probe in story.probes if probe.metric == "edit_success"]
    return [
        method
        for probe in own
        for (method, protocol), heard in probe.answers.items()
        if protocol in protocols and method != "base" and heard.score != 1
    ]
