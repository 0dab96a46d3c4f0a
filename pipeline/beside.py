"""The other process of `pipeline.meanwhile`: makes and asks the edits that need no student.

Started as `python -m pipeline.beside FOLDER`, a run's; ends when its standard input is closed.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from rich.console import Console


def main(folder: Path) -> None:
    """Stage `edit`, and `ask` as far as no student is needed."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    # These take seconds: the parent may be gone before.
    from pipeline import asking
    from pipeline.meanwhile import others
    from pipeline.run import Run
    from pipeline.stage import execute
    from ske.config import load

    run = Run(load(folder / "config.yaml"), folder, Console(quiet=True))
    for item in run.plan():
        if item.stage.name == "edit" and item.state != "done":
            execute(item.stage, run)
    asking.ahead(run, run.stage("ask"), others(run))


def _die_with_parent() -> None:
    """Its end of the pipe is closed when it ends, however it ends."""
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
