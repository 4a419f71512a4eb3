"""Which reader reads which file, and the files of a folder in a fixed order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.readers.cbf import read_cbf
from tests.benchmarks.readers.maros_meszaros import read_mat
from tests.benchmarks.readers.mps import read_mps
from tests.benchmarks.readers.problem import FormatError, Problem
from tests.benchmarks.readers.sdpa import read_sdpa

READERS: dict[str, Callable[[Path], Problem]] = {
    ".mat": read_mat,
    ".mps": read_mps,
    ".dat-s": read_sdpa,
    ".cbf": read_cbf,
    ".cbf.gz": read_cbf,
}


def read(path: Path) -> Problem:
    """Read a file by the reader of its ending.

    Raises
    ------
    FormatError
        If the ending is unknown, or the file states what conediff does not solve.
    """
    return READERS[_ending(path)](path)


def name_of(path: Path) -> str:
    """Return the file's name without its ending."""
    return path.name[: -len(_ending(path))]


def files_of(folder: Path) -> list[Path]:
    """Return all files that have a reader, below a folder, sorted by folder and name."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.name.endswith(tuple(READERS))]
    return sorted(found, key=lambda path: (path.parent.as_posix(), path.name.lower()))


def _ending(path: Path) -> str:
    for ending in READERS:
        if path.name.lower().endswith(ending):
            return ending
    raise FormatError(f"{path.name}: files end with one of {', '.join(READERS)}")
