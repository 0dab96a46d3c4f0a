"""Files by their size: what of a run is no longer as it was left. Reads folders, writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path


def sizes_of(folder: Path, left: Iterable[Path]) -> dict[str, int]:
    """The bytes of files, and of those in folders, by their path from a folder."""
    files = (file for path in left for file in (path.rglob("*") if path.is_dir() else (path,)))
    return {str(path.relative_to(folder)): path.stat().st_size for path in files if path.is_file()}


def unlike(folder: Path, sizes: dict[str, int | None]) -> Iterator[str]:
    """Which files are gone, or of another size; of folders that are gone only the outermost."""
    told: set[str] = set()
    for name, size in sizes.items():
        path = folder / name
        if path.is_file():
            if size is not None and path.stat().st_size != size:
                yield f"{name} is not as the stage wrote it"
        elif (gone := _outermost(folder, name)) not in told:
            told.add(gone)
            yield f"{gone} is gone"


def _outermost(folder: Path, name: str) -> str:
    """The first folder on the way to a file that is not there, or the file."""
    way = [*reversed(Path(name).parents), Path(name)]
    return str(next((part for part in way if not (folder / part).exists()), name))
