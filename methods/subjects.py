"""Where a subject ends in a prompt's tokens: the place at which key-value methods edit."""

from __future__ import annotations

import re
import warnings

from ske.backends.render import Renderer
from ske.lm import Chat


def subject_end(renderer: Renderer, chat: Chat, subject: str) -> int:
    """Index, into `renderer.prompt_ids(chat)`, of the token that holds the subject's last letter.

    Of several occurrences in the last message the last counts: it is nearest to the answer. Whole
    words are preferred to parts of words, the same capitals to others. Where the subject does
    not occur at all, it is the last token of the message, with a warning.
    """
    text = renderer.text(chat)
    start, content = _message(text, chat[-1]["content"])
    found = _ending(content, subject)
    if found is None:
        warnings.warn(
            f"subject {subject!r} does not occur in {content!r}; its last token is edited",
            stacklevel=2,
        )
        found = max(1, len(content.rstrip()))
    return token_at(renderer, chat, start + found - 1)


def token_at(renderer: Renderer, chat: Chat, place: int) -> int:
    """Index of the token that holds the character `place` of `renderer.text(chat)`.

    If a character is spread over several tokens, the last one.
    """
    ids, text = renderer.prompt_ids(chat), renderer.text(chat)
    if renderer.tokenizer.is_fast:
        encoded = renderer.tokenizer(
            text, add_special_tokens=not renderer.chat, return_offsets_mapping=True
        )
        if list(encoded["input_ids"]) == ids:
            spans = list(enumerate(encoded["offset_mapping"]))
            holding = [i for i, (start, end) in spans if start <= place < end]
            # A tokenizer may leave blanks out of its spans; then the token before them.
            before = [i for i, (start, end) in spans if start < end <= place]
            return (holding or before or [0])[-1]
    return _by_decoding(renderer, ids, text[: place + 1])


def _by_decoding(renderer: Renderer, ids: list[int], until: str) -> int:
    """The first token with which the decoded beginning is as long as `until`."""
    wanted = len("".join(until.split()))
    for index in range(len(ids)):
        said = renderer.tokenizer.decode(ids[: index + 1], skip_special_tokens=not renderer.chat)
        assert isinstance(said, str)
        # Half of a character decodes to a replacement mark, and blanks come and go.
        letters = "".join(said.split())
        if len(letters) >= wanted and not letters.endswith("\ufffd"):
            return index
    return len(ids) - 1


def _message(text: str, content: str) -> tuple[int, str]:
    """Where the last message begins in the rendered text, and how it stands there."""
    for form in (content, content.strip()):
        start = text.rfind(form)
        if start >= 0:
            return start, form
    return 0, text


def _ending(content: str, subject: str) -> int | None:
    """The character after the subject; None if there is no subject."""
    name = re.escape(subject.strip())
    if not name:
        return None
    for pattern in (rf"(?<!\w){name}(?!\w)", name):
        for flags in (re.NOFLAG, re.IGNORECASE):
            ends = [match.end() for match in re.finditer(pattern, content, flags)]
            if ends:
                return ends[-1]
    return None
