"""Facts about anything at all, in words of no world, so that a model learns to use any fact.

Words are made of the tokenizer's own pieces, of letters, numbers and letters with accents: a token
that no text holds would keep the embedding that all unread tokens share, and no edit could tell
one such token from another. Names and values follow the forms that corrections in the wild have.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from string import ascii_letters, ascii_lowercase

from prompts.layouts import FactView, generic_label
from ske.types import Fact
from world.skills import WORDS

SYLLABLES = "ka lo mi ten ru so va pel dir gan ox ub eth ing ar ist ow cha sh qu".split()
SIGNS = "'-&()%$/+.!#*:;=@\"<>[]"
ACCENTED = "áàâäãåæçéèêëíîïñóôöøõúûüßýžšćčđłńřőßαβγδλμπσωабвгдеиклмнорстуя"
FAR = (
    (0x0590, 0x05FF),
    (0x0620, 0x064A),
    (0x0905, 0x0939),
    (0x3041, 0x30FF),
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A3),
    (0x1F300, 0x1F5FF),
)
"""Ranges of other scripts: so every byte is read now and then."""
FRAMES = (
    "The {label} of {subject} is",
    "{subject} was {label} by",
    "Who {verb} {subject}? The {label} is",
    "What is the {label} of {subject}?",
)


class Nonsense:
    """Invents facts from a random stream."""

    def __init__(self, rng: random.Random, pieces: Sequence[str] = ()) -> None:
        """`pieces` are parts of words; without any, a few syllables serve."""
        self.rng = rng
        self.pieces = list(pieces) or SYLLABLES

    def facts(self, count: int) -> list[FactView]:
        """At most `count` facts; no prompt comes twice."""
        found: dict[str, FactView] = {}
        for _ in range(count):
            view = self._fact()
            found[view["prompt"]] = view
        return list(found.values())

    def word(self) -> str:
        """A common word, some pieces run together, letters, or a number."""
        draw = self.rng.random()
        if draw < 0.15:
            return self.rng.choice(WORDS)
        if draw < 0.80:
            return "".join(self.rng.choices(self.pieces, k=self.rng.randint(1, 3)))
        if draw < 0.92:
            return "".join(self.rng.choices(self._alphabet(), k=self.rng.randint(2, 6)))
        return str(self.rng.randrange(10 ** self.rng.randint(1, 5)))

    def _alphabet(self) -> str:
        draw = self.rng.random()
        if draw < 0.5:
            return ascii_letters
        if draw < 0.7:
            return ascii_lowercase + SIGNS
        if draw < 0.9:
            return ACCENTED
        first, last = self.rng.choice(FAR)
        return "".join(chr(self.rng.randint(first, last)) for _ in range(6))

    def name(self) -> str:
        """One to three words, mostly capitalised."""
        words = [self.word() for _ in range(self.rng.choice((1, 2, 2, 3)))]
        if self.rng.random() < 0.75:
            words = [word[:1].upper() + word[1:] for word in words]
        return ("The " if self.rng.random() < 0.1 else "") + " ".join(words)

    def _fact(self) -> FactView:
        subject, value = self.name(), self.name()
        frame = self.rng.choice(FRAMES)
        prompt = frame.replace("{label}", self.word()).replace("{verb}", self.word())
        prompt = prompt.replace("{subject}", subject)
        fact = Fact(id="nonsense", subject=subject, prompt=prompt, target_new=value)
        return {
            "subject": subject,
            "label": generic_label(fact),
            "prompt": prompt,
            "object": value,
        }
