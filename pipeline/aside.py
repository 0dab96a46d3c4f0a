"""What a stage left for another configuration, kept aside until the stage is done anew.

A mistake that only the stage itself finds then costs nothing: what was finished comes back. Beside
`stages/NAME` lies `stages/.NAME.aside`; the file `key` in each says what it was made for. Folders
change places by renaming, so that a kill leaves something from which `mended` goes on. `items`,
caches with keys of their own, always belong to the stage's folder.
"""

from __future__ import annotations

import shutil
from pathlib import Path

MARK = "key"
"""The file that says what a stage's folder was made for."""
ITEMS = "items"


def made_for(folder: Path) -> str | None:
    """The key that a folder's content belongs to; None if there is none."""
    mark = folder / MARK
    return mark.read_text(encoding="utf-8") if mark.exists() else None


def make_way(folder: Path, key: str) -> None:
    """Let a stage's folder be one of this key, as far as it was done: kept, taken back or empty.

    Of two contents with other keys the finished one stays aside.
    """
    aside = mended(folder)
    if not folder.exists() or made_for(folder) == key:
        return
    if made_for(aside) == key:
        swap(folder)
    elif (aside / "manifest.json").exists():
        _keep_items(folder, aside)
        _remove(folder)
        folder.mkdir()
    else:
        _remove(aside)
        folder.rename(aside)
        folder.mkdir()
    mended(folder)


def swap(folder: Path) -> None:
    """What is aside comes back, and what is there goes aside; nothing if nothing is aside."""
    aside, between = mended(folder), _between(folder)
    if not aside.exists():
        return
    folder.rename(between)
    aside.rename(folder)
    between.rename(aside)
    mended(folder)


def forget(folder: Path) -> None:
    """What is aside is needed no more."""
    _remove(mended(folder))


def mended(folder: Path) -> Path:
    """Finish what a kill has interrupted; gives the place aside."""
    aside, between = folder.with_name(f".{folder.name}.aside"), _between(folder)
    if between.exists():
        between.rename(aside if folder.exists() else folder)
    if aside.exists() and not folder.exists():
        aside.rename(folder)
    if (aside / ITEMS).exists() and not (folder / ITEMS).exists():
        _keep_items(aside, folder)
    return aside


def _between(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.swapped")


def _keep_items(source: Path, target: Path) -> None:
    if (source / ITEMS).exists():
        (source / ITEMS).rename(target / ITEMS)


def _remove(folder: Path) -> None:
    """The key first: what a kill leaves then belongs to nothing."""
    (folder / MARK).unlink(missing_ok=True)
    (folder / "manifest.json").unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
