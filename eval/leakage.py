"""The guard between what is trained on and what is asked afterwards. Reads and writes no file.

Two levels. `copy`: the query is a probe, or nearly (same subject, almost the same words); it is
dropped. `template`: the wording of a probe with another subject; it is counted, not dropped. A
query about a probe's subject in other words is neither: that is what training is for.
"""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from eval.words import spaced

_MARKS = re.compile(r"[\W_]+")
_SUBJECT = "\x00"
"""Stands before a subject's name: no normalised word holds it."""
_MAX_EXAMPLES = 10
_LEAST = 3
"""From so many words on a probe is looked for within longer texts: "Ada Byron" is everywhere."""
_Gram = tuple[str, ...]
_Frame = tuple[_Gram, _Gram]
"""A probe's words before and after its subject."""
_LONGEST_NAME = 6
"""Words between them where somebody else's name may stand."""
_LINKS = {"at", "by", "for", "from", "in", "of", "on", "that", "to", "which", "whose", "with"}
"""Words that make what follows them a part of another question."""


def normalise(text: str) -> str:
    """Casefolded words with one space between: punctuation, layout and case don't make a text."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return _MARKS.sub(" ", spaced(text)).strip()


class Example(NamedTuple):
    """A training query and the probe it is too near to."""

    query: str
    probe: str


@dataclass
class Report:
    """What the guard found; the examples are the first ten of each level."""

    checked: int = 0
    kept: int = 0
    copies: int = 0
    templates: int = 0
    copy_examples: list[Example] = field(default_factory=list)
    template_examples: list[Example] = field(default_factory=list)


class Filtered(NamedTuple):
    """The positions of the queries that may be trained on, and the report."""

    kept: list[int]
    report: Report


class _Text(NamedTuple):
    words: tuple[str, ...]
    """With every known subject as one word."""
    subjects: frozenset[str]

    @property
    def template(self) -> str:
        return " ".join(_SUBJECT if word in self.subjects else word for word in self.words)


class Guard:
    """Finds training queries that are, or nearly are, probes.

    A query is a copy of a probe if the normalised texts are equal, or if they have a subject in
    common and their word n-grams (a subject counts as one word) have a Jaccard similarity of at
    least `threshold`, or at least that share of the probe's n-grams lies in the query in place
    ("Complete this: <probe>"). A probe of fewer words than an n-gram is one itself, from three
    words on; a shorter one is only copied by its equals. Not so if the query composes: "The
    religion of <the mother of X is>" asks something else, as does a query that is part of a longer
    probe. Texts without a known subject are compared on their plain words; there, only a whole
    probe counts as contained, since what differs may be the entity.

    Probes are indexed by their rarest n-grams, so a check looks at few probes however many
    there are.
    """

    def __init__(
        self,
        probes: Iterable[str],
        subjects: Iterable[str],
        ngram: int = 5,
        threshold: float = 0.8,
        allowed: Iterable[str] = (),
    ) -> None:
        """Index the probes.

        Args:
            probes: The texts of all probes.
            subjects: The names of the edited entities, aliases included if known.
            ngram: Words per n-gram.
            threshold: From above 0 to 1.
            allowed: The edits' own prompts. They are given to every editor, so neither a query
                equal to one nor a probe equal to one is a leak.

        Raises:
            ValueError: If `ngram` or `threshold` is out of range.
        """
        if ngram < 1:
            raise ValueError(f"ngram must be at least 1, got {ngram!r}")
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold must be above 0 and at most 1, got {threshold!r}")
        self._ngram, self._threshold = ngram, threshold
        self._allowed = {normalise(text) for text in allowed}
        self._subjects = _by_first_word(subjects)
        self._probes: dict[str, str] = {}
        for probe in probes:
            key = normalise(probe)
            if key and key not in self._allowed:
                self._probes.setdefault(key, probe)
        self._templates: dict[str, str] = {}
        self._index()

    def check(self, query: str) -> str | None:
        """The probe that the query is a copy of, or None."""
        key = normalise(query)
        if not key or key in self._allowed:
            return None
        return self._probes.get(key) or self._near(self._parse(key))

    def check_template(self, query: str) -> str | None:
        """A probe whose wording the query has, with another subject, or None."""
        key = normalise(query)
        if key in self._allowed or key in self._probes:
            return None
        text = self._parse(key)
        return self._templates.get(text.template) if text.subjects else None

    def has_wording(self, text: str) -> bool:
        """Whether a text has the wording of a probe, in any place, whoever it is about.

        Stricter than `check_template`, which knows the edited subjects alone. The wordings of the
        edits' own prompts do not count.
        """
        words = self._parse(normalise(text)).words
        return any(
            _stands(words, start, frame)
            for start, word in enumerate(words)
            for frame in self._frames.get(word, ())
        )

    @functools.cached_property
    def _frames(self) -> dict[str, list[_Frame]]:
        """Probes around their subjects, by their first word."""
        own = {frame for key in self._allowed for frame in _frames(self._parse(key))}
        found: dict[str, list[_Frame]] = {}
        for frame in {frame for _, text in self._texts for frame in _frames(text)} - own:
            found.setdefault((frame[0] or frame[1])[0], []).append(frame)
        return found

    def filter(self, queries: Sequence[str]) -> Filtered:
        """Drop the copies, count the templates."""
        report, kept = Report(checked=len(queries)), []
        for position, query in enumerate(queries):
            if probe := self.check(query):
                report.copies += 1
                _note(report.copy_examples, query, probe)
                continue
            kept.append(position)
            if probe := self.check_template(query):
                report.templates += 1
                _note(report.template_examples, query, probe)
        report.kept = len(kept)
        return Filtered(kept, report)

    def _index(self) -> None:
        self._texts: list[tuple[str, _Text]] = []
        for key, probe in self._probes.items():
            text = self._parse(key)
            self._texts.append((probe, text))
            if text.subjects:
                self._templates.setdefault(text.template, probe)
        sizes = [min(self._ngram, len(text.words)) for _, text in self._texts]
        every = [
            set(_ngrams(text.words, size)) if size >= min(_LEAST, self._ngram) else set()
            for (_, text), size in zip(self._texts, sizes, strict=True)
        ]
        frequency = Counter(gram for grams in every for gram in grams)
        self._sizes = sorted({size for size, grams in zip(sizes, every, strict=True) if grams})
        self._postings: dict[_Gram, list[tuple[str, int]]] = {}
        for number, grams in enumerate(every):
            # A near-copy lacks at most this many of the probe's n-grams, so it has one of the
            # rarest `spare + 1`; the common ones ("the name of the country") need no index.
            spare = math.floor((1 - self._threshold) * len(grams) + 1e-9)
            rarest = sorted(grams, key=lambda gram: (frequency[gram], gram))[: spare + 1]
            for subject in self._texts[number][1].subjects or {""}:
                for gram in rarest:
                    self._postings.setdefault(gram, []).append((subject, number))

    def _near(self, text: _Text) -> str | None:
        subjects = text.subjects or {""}
        places = {size: _places(_ngrams(text.words, size)) for size in self._sizes}
        candidates = {
            number
            for grams in places.values()
            for gram in grams
            for subject, number in self._postings.get(gram, ())
            if subject in subjects
        }
        scored = [(self._likeness(text.words, places, number), -number) for number in candidates]
        likeness, number = max(scored, default=(0.0, 0))
        return self._texts[-number][0] if likeness >= self._threshold - 1e-9 else None

    def _likeness(
        self, words: tuple[str, ...], places: dict[int, dict[_Gram, list[int]]], number: int
    ) -> float:
        probe = self._texts[number][1]
        size = min(self._ngram, len(probe.words))
        of_query, of_probe = places[size], _ngrams(probe.words, size)
        contained = _contained(words, of_query, of_probe)
        if not probe.subjects and contained < 1:
            contained = 0.0
        common = sum(gram in of_query for gram in set(of_probe))
        return max(contained, common / (len(of_query) + len(set(of_probe)) - common))

    def _parse(self, key: str) -> _Text:
        """Join each known subject in a normalised text to one word, the longest name first."""
        words, joined, subjects, start = key.split(), [], set(), 0
        while start < len(words):
            for name in self._subjects.get(words[start], ()):
                if tuple(words[start : start + len(name)]) == name:
                    joined.append(_SUBJECT + " ".join(name))
                    subjects.add(joined[-1])
                    start += len(name)
                    break
            else:
                joined.append(words[start])
                start += 1
        return _Text(tuple(joined), frozenset(subjects))


def _frames(text: _Text) -> list[_Frame]:
    """With the name they have three words or more; fewer are everywhere."""
    if len(text.words) < _LEAST:
        return []
    places = [place for place, word in enumerate(text.words) if word in text.subjects]
    return [(text.words[:place], text.words[place + 1 :]) for place in places]


def _stands(words: _Gram, start: int, frame: _Frame) -> bool:
    """Whether a frame's first word is there, and the rest of it, around a name."""
    before, after = frame
    if not before:
        return start > 0 and words[start : start + len(after)] == after
    name = start + len(before)
    ends = range(name + 1, min(name + _LONGEST_NAME, len(words)) + 1)
    return words[start:name] == before and any(
        words[end : end + len(after)] == after for end in ends
    )


def _by_first_word(subjects: Iterable[str]) -> dict[str, list[tuple[str, ...]]]:
    names: dict[str, list[tuple[str, ...]]] = {}
    for name in sorted({tuple(normalise(subject).split()) for subject in subjects} - {()}):
        names.setdefault(name[0], []).append(name)
    for same_start in names.values():
        same_start.sort(key=len, reverse=True)
    return names


def _ngrams(words: tuple[str, ...], n: int) -> list[tuple[str, ...]]:
    """All runs of n words, in order; of a shorter text, the text itself."""
    if len(words) <= n:
        return [words]
    return [words[start : start + n] for start in range(len(words) - n + 1)]


def _places(grams: Sequence[_Gram]) -> dict[_Gram, list[int]]:
    """Where each n-gram stands."""
    places: dict[_Gram, list[int]] = {}
    for position, gram in enumerate(grams):
        places.setdefault(gram, []).append(position)
    return places


def _contained(
    words: tuple[str, ...], of_query: dict[_Gram, list[int]], of_probe: list[_Gram]
) -> float:
    """The share of the probe's n-grams that stand in the query at one offset, unless composed."""
    own = {gram: position for position, gram in enumerate(of_probe)}
    offsets = Counter(
        position - place for gram, place in own.items() for position in of_query.get(gram, ())
    )
    counts = [
        count for offset, count in offsets.items() if offset <= 0 or words[offset - 1] not in _LINKS
    ]
    return max(counts, default=0) / len(of_probe)


def _note(examples: list[Example], query: str, probe: str) -> None:
    if len(examples) < _MAX_EXAMPLES:
        examples.append(Example(query, probe))
