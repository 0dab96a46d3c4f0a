"""Hard probes of one edit: what it must survive beside what KnowEdit's categories ask.

A record has them under a key of its own, "hard", so that they are counted neither as portability
nor as locality. Answers come from `View`, wordings are the split's own. Reads and writes no file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prompts.loader import lower_first
from prompts.relations import lexicon
from ske.types import ERASED
from world.plain import CLAIM
from world.probes import Edit, Groups, Probe, Prober
from world.questions import Chain, View, beyond, inverse_wordings, wordings


class HardProber(Prober):
    """Writes the hard probes of a benchmark's edits, knowing all of them.

    It needs an `rng` of its own: the other probes must not depend on how many of these there are.
    """

    def hard(self, edit: Edit) -> Groups:
        """Probes by category; a category without probes is left out.

        - `Beyond`: chains of relations that no training query shows, from the subject on, or from
          somebody whose chain leads through the edited fact.
        - `Claims`: is the new value right (yes), and is the old one (no)? A new subject has no old
          value: then only the first, and `False_Claims` has another value (no).
        - `Reversal`: asked from the new value's side, by its other name where it has one.
        - `Distracted`: the edit's question behind a true fact of somebody else.
        - `Contradicted`: the same behind the subject's own old value.

        An erasure has `Beyond` and `Distracted` alone: nothing is right about it but not to know.
        """
        groups = {
            "Beyond": self._beyond(edit),
            "Claims": self._claims(edit, (edit.new, edit.old)),
            "False_Claims": self._false_claims(edit),
            "Reversal": self._reversal(edit),
            "Distracted": self._distracted(edit),
            "Contradicted": self._contradicted(edit),
        }
        return {name: probes for name, probes in groups.items() if probes}

    def _beyond(self, edit: Edit) -> list[Probe]:
        before = View(self.world)
        after = View(self.world, {(edit.subject, edit.relation): edit.new})
        probes = []
        for chain, options in beyond(self.side).items():
            for start in self._starts(edit, chain):
                answer = after.follow(start, chain)
                if answer in (None, before.follow(start, chain)):
                    continue
                if all(
                    self.stands(*hop) or hop in after.edits for hop in hops(after, start, chain)
                ):
                    wording = self.rng.choice(options).replace("{subject}", start)
                    probes.append(self._probe(wording, str(answer)))
        return probes

    def _starts(self, edit: Edit, chain: Chain) -> list[str]:
        """Whose chain leads through the edited fact: the subject, and one whose first step does."""
        found = [edit.subject] if chain[0] == edit.relation else []
        if edit.relation in chain[1:2]:
            leading = [
                name
                for name in self.peers
                if self.world.values[name].get(chain[0]) == edit.subject
                and self.stands(name, chain[0])
            ]
            found += self.rng.sample(leading, min(1, len(leading)))
        return found

    def _claims(self, edit: Edit, values: Sequence[str | None]) -> list[Probe]:
        if edit.new == ERASED:
            return []
        wording = self._wording(edit)
        return [
            self._claim(wording, edit.subject, value, value == edit.new)
            for value in values
            if value is not None
        ]

    def _false_claims(self, edit: Edit) -> list[Probe]:
        """A wrong value of a new subject: who agrees to everything would pass without it."""
        if edit.old is not None:
            return []
        others = [value for value in self.world.kinds[edit.relation] if value != edit.new]
        return self._claims(edit, [self.rng.choice(others)])

    def _claim(self, wording: str, subject: str, value: str, right: bool) -> Probe:
        stem = lower_first(wording.replace("{subject}", subject))
        prompt = CLAIM.replace("{stem}", stem).replace("{value}", value)
        return self._probe(prompt, "yes" if right else "no")

    def _reversal(self, edit: Edit) -> list[Probe]:
        options = inverse_wordings(edit.relation, self.side)
        if edit.new == ERASED or not options:
            return []
        named = self.world.aliases.get(edit.new, edit.new)
        return [self._probe(self.rng.choice(options).replace("{object}", named), edit.subject)]

    def _distracted(self, edit: Edit) -> list[Probe]:
        others = self._others(edit, 1)
        if not others:
            return []
        told = self.world.value(others[0], edit.relation)
        return [self._behind(edit, others[0], told)]

    def _contradicted(self, edit: Edit) -> list[Probe]:
        if edit.old is None or edit.new == ERASED:
            return []
        return [self._behind(edit, edit.subject, edit.old)]

    def _behind(self, edit: Edit, subject: str, value: str) -> Probe:
        """The edit's own question behind a sentence."""
        sentence = self._wording(edit).replace("{subject}", subject)
        asked = lexicon()[edit.relation].ask(edit.subject)
        return self._probe(f"{sentence} {value}. {asked}", edit.new)

    def _wording(self, edit: Edit) -> str:
        return self.rng.choice(wordings(edit.relation, self.side))


def hops(view: View, subject: str, chain: Chain) -> Iterator[tuple[str, str]]:
    """The facts that a chain leads through, as (subject, relation), up to an erased one."""
    found: str | None = subject
    for relation in chain:
        if found is None or found == ERASED:
            return
        yield found, relation
        found = view.value(found, relation)
