"""What runs of several seeds found, as Markdown: tables by protocol, differences, goals met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.chains import KINDS, by_kind
from eval.answers import Answers, read_answers
from eval.further import further
from eval.ratios import CEILINGS, SHARE, share_over_seeds
from eval.retention import scored
from eval.score import ALL, BASE, CaseKey, ErrorKey, per_case
from eval.seeds import gather
from eval.stats import Interval, bootstrap_seeds, holm, paired
from pipeline.labels import PROTOCOLS, in_order, method_label
from ske.config import load

OURS, RETAINED = "ske", "retained"
CHANGE = "capability_change"
"""The capability suite against the base model's, in points, question by question."""
LOCALITY = ("Forgetfulness", "Neighborhood", "Relation_Specificity")

Place = tuple[str, str]
"""A metric and its category."""
SHARES: dict[Place, Place] = {
    (SHARE, ALL): ("portability", ALL),
    (SHARE, "Beyond"): ("hard", "Beyond"),
}
"""What is told as a share of what the facts can do in a prompt, and of what."""
Cases = dict[tuple[str, int], float]
"""(case, seed) -> percent."""


class Must(NamedTuple):
    """A goal for our method."""

    metric: str
    category: str = ALL
    least: float | None = None
    most: float | None = None
    above: float | None = None
    """What the whole interval lies above."""

    def __str__(self) -> str:
        """In words."""
        told = {"at least": self.least, "at most": self.most, "interval above": self.above}
        return ", ".join(f"{word} {value:g}" for word, value in told.items() if value is not None)

    def met(self, got: Interval) -> bool:
        """Whether the mean reaches it (and the interval, where it must)."""
        return (
            (self.least is None or got.mean >= self.least)
            and (self.most is None or got.mean <= self.most)
            and (self.above is None or got.low > self.above)
        )


class Column(NamedTuple):
    """A column of the table."""

    title: str
    place: Place


MADE = (
    Column("edit success", ("edit_success", ALL)),
    Column("paraphrase", ("paraphrase", ALL)),
    Column("portability", ("portability", ALL)),
    Column("share of {ceiling}'s", (SHARE, ALL)),
    Column("unseen kinds", ("hard", "Beyond")),
    Column("unseen kinds, share of {ceiling}'s", (SHARE, "Beyond")),
    Column("strongest old beliefs", ("edit_success_by_belief", "strength_4")),
    Column("argues for the old", ("self_refutation", ALL)),
    Column("first round, at the end", (RETAINED, ALL)),
)
"""Of the edits; as in the next, columns are shown that some method has a value in."""
STAYED = (
    Column("locality", ("locality", ALL)),
    Column("apart from the new value", ("locality", LOCALITY[0])),
    Column("other subjects", ("locality", LOCALITY[1])),
    Column("other relations", ("locality", LOCALITY[2])),
    Column("capability", ("capability", ALL)),
    Column("capability against the base", (CHANGE, ALL)),
)
"""Of what should have stayed as it was."""
UNSEEN = tuple(Column(kind, ("hard", kind)) for kind in KINDS)
"""Of the unseen kinds, which."""
HARD = (
    Column("behind a sentence about somebody else", ("hard", "Distracted")),
    Column("behind the old value", ("hard", "Contradicted")),
    Column("yes and no", ("hard", "Claims")),
    Column("from the new value's side", ("hard", "Reversal")),
)
"""What else an edit should survive (docs/evaluation.md); the unseen kinds are asked as well."""
FOLLOWS = (
    Column("chains", ("portability", "Reasoning")),
    Column("other names of the subject", ("portability", "Subject_Aliasing")),
    Column("inverses", ("portability", "Logical_Generalization")),
)
"""Portability by category."""
DETAILS = {"What follows": FOLLOWS, "Unseen kinds": UNSEEN, "Hard probes": HARD}
"""Tables of single categories, under the protocol that users see."""
COLUMNS = (*MADE, *STAYED)


class Found(NamedTuple):
    """Values by protocol, method and place."""

    values: dict[tuple[str, str, Place], Cases]
    errors: Mapping[ErrorKey, int]
    """How many questions could not be asked; they are in no mean."""

    def of(self, protocol: str, method: str, place: Place) -> Interval | None:
        """The mean with its interval over cases and seeds."""
        if place in SHARES:
            return self._share(protocol, method, SHARES[place])
        if place == (CHANGE, ALL):
            return self._change(protocol, method, ("capability", ALL))
        cases = self.cases(protocol, method, place)
        return bootstrap_seeds(cases) if cases else None

    def _share(self, protocol: str, method: str, place: Place) -> Interval | None:
        own, there = (self.cases(protocol, m, place) for m in (method, self.ceiling))
        return share_over_seeds(own, there) if method != self.ceiling else None

    def _change(self, protocol: str, method: str, place: Place) -> Interval | None:
        own, there = (self.cases(protocol, m, place) for m in (method, BASE))
        if method == BASE or not own.keys() & there.keys():
            return None
        test = paired(own, there)
        return Interval(test.diff, test.low, test.high, test.n)

    def cases(self, protocol: str, method: str, place: Place) -> Cases:
        """Values of all cases; empty if there are none."""
        return self.values.get((protocol, method, place), {})

    @property
    def methods(self) -> list[str]:
        """In the order of the runs."""
        return list(dict.fromkeys(method for _, method, _ in self.values))

    def has(self, columns: Sequence[Column]) -> bool:
        """Whether there is anything to show in some columns."""
        wanted = {column.place for column in columns}
        return any(place in wanted for _, _, place in self.values)

    @property
    def ceiling(self) -> str:
        """What shares are of: PROMPT, or what has the facts in a prompt where PROMPT has not."""
        return next((name for name in CEILINGS if name in self.methods), CEILINGS[0])

    def title(self, column: Column) -> str:
        """A column's title in these tables."""
        return column.title.format(ceiling=method_label(self.ceiling))

    @property
    def protocols(self) -> list[str]:
        """What users see first."""
        return in_order(list(dict.fromkeys(protocol for protocol, _, _ in self.values)))


def section(name: str, folders: Sequence[Path], planned: int, musts: Sequence[Must]) -> str:
    """One group of runs: which there are, what they found, and our goals."""
    told = f"### {name}\n\n{len(folders)} of {planned} seeds"
    if not folders:
        return f"{told}: not run yet."
    found = read(folders)
    made = found.cases(found.protocols[0], OURS, ("edit_success", ALL))
    n = len({case for case, _ in made})
    parts = [f"{told}, {n} different edits. In brackets: 95 % intervals."]
    for protocol in found.protocols:
        name = PROTOCOLS[protocol]
        parts += [f"**The edits, {name}**", _table(found, protocol, MADE)]
        parts += [f"**What should have stayed, {name}**", _table(found, protocol, STAYED)]
    protocol = found.protocols[0]
    for told, columns in DETAILS.items():
        if found.has(columns):
            parts += [f"**{told}, {PROTOCOLS[protocol]}**", _table(found, protocol, columns)]
    parts += [_unasked(found, protocol), _differences(found), _goals(found, musts)]
    return "\n\n".join(part for part in parts if part)


def read(folders: Sequence[Path]) -> Found:
    """The scores of runs that differ only in their seeds."""
    answers = answers_of(folders)
    values: dict[tuple[str, str, Place], Cases] = {}

    def put(key: CaseKey, place: Place, value: float) -> None:
        cases = values.setdefault((key.protocol, key.method, place), {})
        cases[key.case, key.seed] = value

    every: Mapping[CaseKey, float] = (
        per_case([*answers.rows, *by_kind(answers.rows)])
        | further(answers.rows)
        | answers.beside.values
    )
    for key, value in every.items():
        put(key, (key.metric, key.category), value)
    kept = scored(answers.retention)
    last = max((one.after for one in kept), default=0)
    for one in kept:
        if (one.round, one.after, one.key.metric) == (1, last, "edit_success"):
            put(one.key, (RETAINED, ALL), one.value)
    return Found(values, answers.errors)


def answers_of(folders: Sequence[Path]) -> Answers:
    """All answers of one run, or of several that differ only in their seeds."""
    return gather(folders).answers if len(folders) > 1 else _alone(folders[0])


def _alone(folder: Path) -> Answers:
    return read_answers(folder, load(folder / "config.yaml"), "make results")


def _table(found: Found, protocol: str, columns: Sequence[Column]) -> str:
    values = {
        method: [found.of(protocol, method, column.place) for column in columns]
        for method in found.methods
    }
    kept = [n for n in range(len(columns)) if any(own[n] for own in values.values())]
    if not kept:
        return "-"
    lines = [
        "| | " + " | ".join(found.title(columns[n]) for n in kept) + " |",
        "|---" * (len(kept) + 1) + "|",
    ]
    for method, own in values.items():
        cells = [shown(own[n]) for n in kept]
        lines.append(f"| {method_label(method)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _unasked(found: Found, protocol: str) -> str:
    """How many questions are in no mean, by method and metric."""
    methods: dict[str, list[str]] = {}
    for key, count in found.errors.items():
        if key.protocol == protocol:
            methods.setdefault(key.method, []).append(f"{count:,} of {key.metric}")
    told = "; ".join(f"{method_label(m)} {', '.join(each)}" for m, each in methods.items())
    return told and f"Error rows, in no mean, {PROTOCOLS[protocol]}: {told}."


def _differences(found: Found) -> str:
    """How far our locality is above each method's, by category, paired over cases and seeds."""
    rivals = [m for m in found.methods if m not in (BASE, OURS)]
    protocol = found.protocols[0]
    places = [("locality", name) for name in (ALL, *LOCALITY)]
    places = [place for place in places if found.cases(protocol, OURS, place)]
    if not rivals or not places:
        return ""
    rows = {place: _against(found, protocol, place, rivals) for place in places}
    lines = [
        f"**Locality: SKE minus the others**, points, {PROTOCOLS[protocol]}; p by Holm's method",
        "",
        "| | " + " | ".join(name for _, name in places) + " |",
        "|---" * (len(places) + 1) + "|",
    ]
    for method in rivals:
        cells = [rows[place].get(method, "-") for place in places]
        lines.append(f"| {method_label(method)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _against(found: Found, protocol: str, place: Place, rivals: Sequence[str]) -> dict[str, str]:
    own = found.cases(protocol, OURS, place)
    all_cases = {m: found.cases(protocol, m, place) for m in rivals}
    tests = {m: paired(own, there) for m, there in all_cases.items() if own.keys() & there.keys()}
    corrected = holm([test.p for test in tests.values()])
    return {
        method: f"{t.diff:+.1f} [{t.low:.1f}, {t.high:.1f}], p {p:.2g}"
        for (method, t), p in zip(tests.items(), corrected, strict=True)
    }


def _goals(found: Found, musts: Sequence[Must]) -> str:
    """Each goal, and whether the mean reaches it under each protocol."""
    if not musts:
        return ""
    lines = ["| SKE | must be | " + " | ".join(found.protocols) + " |"]
    lines.append("|---" * (len(found.protocols) + 2) + "|")
    for must in musts:
        cells = []
        for protocol in found.protocols:
            got = found.of(protocol, OURS, (must.metric, must.category))
            met = "met" if got and must.met(got) else "**missed**"
            cells.append(f"{shown(got)} {met}" if got else "-")
        column = next(c for c in COLUMNS if c.place == (must.metric, must.category))
        lines.append(f"| {found.title(column)} | {must} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def shown(found: Interval | None) -> str:
    """A mean with its interval."""
    return "-" if found is None else f"{found.mean:.1f} [{found.low:.1f}, {found.high:.1f}]"
