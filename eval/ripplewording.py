"""How RippleEdits words its relations: cuts an edit's sentence into prompt, subject and target.

The files name entities by Wikidata identifiers; their labels stand in the sentences alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

AROUND = {
    "AWARD_RECEIVED": ("The name of the award ", " won is "),
    "CAPITAL": ("The name of the capital city of ", " is "),
    "CAPITAL_OF": ("The name of the country which ", " is the capital of is "),
    "CONTINENT": ("The name of the continent which ", " is part of is "),
    "COUNTRY": ("The name of the country which ", " is associated with is "),
    "CURRENCY": ("The name of the currency in ", " is "),
    "ETHNIC_GROUP": ("The name of the ethnic group which ", " is associated with is "),
    "FOLLOWED_BY": ("", " is followed by "),
    "FOLLOWS": ("", " follows "),
    "LEAGUE": ("The name of the league which ", " plays in is "),
    "LIKELY_ANTHEM": (
        "The name of the anthem that is most likely to be performed in ",
        " is ",
    ),
    "MEMBER_OF_SPORTS_TEAM": ("The name of the sports team which ", " is a member of is "),
    "NATIVE_LANGUAGE": ("The mother tongue of ", " is "),
    "NUMBER_OF_CHILDREN": ("The number of children ", " has is "),
    "POSITION_HELD": ("The name of the position held by ", " is "),
    "RELIGION": ("The name of the religion which ", " is associated with is "),
    "SEX_OR_GENDER": ("The gender of ", " is "),
}
"""Relation -> what stands before and behind its subject; the others are "The [name of the] author
of ... is", with the words of their own names."""


class Cut(NamedTuple):
    """An edit's sentence in its parts: "The author of Vell is" + "Odo"."""

    prompt: str
    subject: str
    target: str


def cuts(sentence: str, relation: str) -> Iterator[Cut]:
    """Every way to cut a relation's sentence: more than one if a name holds " is " or " are "."""
    words = re.escape(relation.lower().replace("_", " "))
    if relation in AROUND:
        before, behind = map(re.escape, AROUND[relation])
    else:
        before, behind = rf"The (?:names? of the )?{words}s? of ", " (?:is|are) "
    opening = re.match(before, sentence)
    if opening is None:
        return
    # A lookahead, because the ends of two cuts may share a blank.
    for seam in re.finditer(f"(?=({behind}))", sentence):
        if seam.start() >= opening.end():
            subject, end = sentence[opening.end() : seam.start()], seam.end(1)
            yield Cut(sentence[: end - 1], subject, sentence[end:].removesuffix("."))
