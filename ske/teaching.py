"""What a teacher is asked and how its answers are taken: part of the configuration."""

from __future__ import annotations

from pydantic import Field

from ske.types import Frozen


class TeachConfig(Frozen):
    """Who teaches, and what the teacher is asked."""

    model: str | None = None
    """Another model that answers under the prompts, such as a larger one: a folder or a hub id, in
    this process. None: the model that is edited, or the server of `backend: openai`. What must stay
    is always the edited model's own."""
    lexicon: bool = True
    """Whether the Questioner knows relations (`prompts/relations.yaml`). false: it asks in generic
    forms alone, as it does of a relation that is not in there. The designer's layouts know them."""
    paraphrases: int = Field(default=3, ge=0)
    """Other wordings of each fact."""
    consequences: int = Field(default=6, ge=0)
    """Questions that need one more step from each fact."""
    neighbours: int = Field(default=48, ge=0)
    """Questions near each fact whose answers must not change."""
    exceptions: int = Field(default=12, ge=0)
    """Questions for the old value ("apart from the new one"), which the edit must not erase, in
    wordings drawn from twenty; about few facts more are asked (all twenty about each of 16), unless
    this is 0."""
    behind: int = Field(default=2, ge=0)
    """So often what is taught about a fact is also asked behind a sentence that the base model made
    up, with the same answer, and two thirds as often (rounded down) what must stay: an edit has to
    hold in the middle of a text, too. About few facts up to three times as often. With more of it a
    student reads its own prompt less (docs/log.md)."""
    free_texts: int = Field(default=1536, ge=0)
    """Most texts sampled from the base model, to keep everything else as it is; with few facts
    there are fewer of them (128 and 32 for each fact)."""
    free_tokens: int = Field(default=32, ge=1)
    """Length of such a text, in tokens."""
    rehearsal: int = Field(default=1024, ge=0)
    """In a sequential run: at most so many lessons of what earlier rounds taught, and as many of
    what they held to, are learned again in each round."""
    repair: bool = True
    """Whether a reply that contradicts what follows from the facts and from what the model knows
    besides is replaced by what follows. false: the teacher's own words are learned, right or not;
    only then can a better prompt make a better student."""
    soft: bool = False
    """Whether the teacher's distribution at every token of its own words is learned as well."""
    told: int | None = Field(default=None, ge=0)
    """Of each fact whose relation is not known, so many texts are sampled from the teacher with
    this fact in its prompt, and what it says of the subject is learned with its distribution:
    wordings and consequences that no rule has to know. None: 64, but none of a server, or of a
    teacher with other tokens."""
    told_all: bool = False
    """Whether the teacher tells of facts whose relation is known, too."""
    told_tokens: int = Field(default=32, ge=1)
    """Longest such text, in tokens."""
    top_k: int = Field(default=20, ge=1)
    """How many of the most likely tokens of a distribution are stored."""
