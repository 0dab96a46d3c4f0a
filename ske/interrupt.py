"""Ctrl-C that is not lost: Python ignores an exception that is raised while an object is deleted.

It then says "Exception ignored in" and goes on, which may happen at any time and does while large
libraries are imported. So an interrupt is noted, and looked for wherever work goes on.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType

_noted: list[int] = []
"""The signals that came."""


def listen() -> None:
    """From now on note Ctrl-C, and raise KeyboardInterrupt as always.

    Changes nothing where Ctrl-C means something else, as in a shell's background job.
    """
    _noted.clear()
    own = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if own and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _note)


def obey() -> None:
    """Raises KeyboardInterrupt if there was a Ctrl-C, however long ago."""
    if _noted:
        raise KeyboardInterrupt


def _note(number: int, frame: FrameType | None) -> None:
    _noted.append(number)
    signal.default_int_handler(number, frame)
