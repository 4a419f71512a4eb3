"""The sections of a file in the Conic Benchmark Format, as arrays.

Source: Friberg (2016), CBLIB 2014: a benchmark library for conic mixed-integer and continuous optimization,
and the format's later versions, which add exponential and power cones.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tests.benchmarks.readers.problem import Array, FormatError

Cones = list[tuple[str, int]]  # name and number of rows, in order
REFUSED = {"INT": "integer variables", "CHANGE": "a sequence of changed problems"}


@dataclass
class CBFFile:
    """What a file says; indices begin at 0.

    Attributes
    ----------
    maximise : bool
    variables, constraints : list of (str, int)
        Cones of the scalar variables and of the scalar constraints, with their sizes.
    psd_variables, psd_constraints : list of int
        Orders of matrices.
    exponents : dict of str to list of arrays
        Parameters of the power cones, by ``"POWCONES"`` and ``"POW*CONES"``.
    coordinates : dict of str to array, shape (entries, indices + 1)
        Entries of the sections that hold coordinates: their indices, then their value.
    offset : float
    """

    maximise: bool = False
    variables: Cones = field(default_factory=list)
    constraints: Cones = field(default_factory=list)
    psd_variables: list[int] = field(default_factory=list)
    psd_constraints: list[int] = field(default_factory=list)
    exponents: dict[str, list[Array]] = field(default_factory=dict)
    coordinates: dict[str, Array] = field(default_factory=dict)
    offset: float = 0.0

    def entries(self, section: str) -> Array:
        """Return the entries of a section of coordinates; none where the file lacks it."""
        return self.coordinates.get(section, np.zeros((0, COORDINATES[section] + 1)))


# Number of indices of an entry in each section of coordinates.
COORDINATES = {
    "OBJFCOORD": 3,
    "OBJACOORD": 1,
    "FCOORD": 4,
    "ACOORD": 2,
    "BCOORD": 1,
    "HCOORD": 4,
    "DCOORD": 3,
}


def parse(path: Path) -> CBFFile:
    """Read a .cbf or .cbf.gz file.

    Raises
    ------
    FormatError
        If a section is unknown, refused or cut short.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="ascii") as file:
        lines = iter([line.strip() for line in file if line.strip() and line.lstrip()[0] != "#"])
    found = CBFFile()
    try:
        for section in lines:
            _section(section, lines, found)
    except (StopIteration, ValueError, IndexError) as error:
        if isinstance(error, FormatError):
            raise FormatError(f"{path.name}: {error}") from error
        raise FormatError(f"{path.name}: section {section} is cut short or malformed") from error
    return found


def _section(section: str, lines: Iterator[str], found: CBFFile) -> None:
    if section in COORDINATES:
        indices = COORDINATES[section]
        rows = [next(lines).split() for _ in range(int(next(lines)))]
        entries = np.array(rows, dtype=float).reshape(len(rows), indices + 1)
        if (entries[:, :-1] < 0).any():
            raise FormatError(f"section {section} has a negative index")
        found.coordinates[section] = entries
    elif section in _OTHERS:
        _OTHERS[section](lines, found)
    elif section in REFUSED:
        raise FormatError(f"{REFUSED[section]} (section {section}) are not supported")
    else:
        raise FormatError(f"section {section!r} is unknown")


def _version(lines: Iterator[str], found: CBFFile) -> None:
    version = int(next(lines))
    if not 1 <= version <= 4:
        raise FormatError(f"version {version} is unknown; versions 1 to 4 are read")


def _sense(lines: Iterator[str], found: CBFFile) -> None:
    sense = next(lines)
    if sense not in ("MIN", "MAX"):
        raise FormatError(f"the objective's sense must be MIN or MAX, got {sense!r}")
    found.maximise = sense == "MAX"


def _cones(lines: Iterator[str]) -> Cones:
    total, count = (int(word) for word in next(lines).split())
    cones = []
    for _ in range(count):
        name, size = next(lines).split()
        cones.append((name, int(size)))
    rows = sum(size for _, size in cones)
    if rows != total:
        raise FormatError(f"{total} rows are announced, but the cones have {rows}")
    return cones


def _variables(lines: Iterator[str], found: CBFFile) -> None:
    found.variables = _cones(lines)


def _constraints(lines: Iterator[str], found: CBFFile) -> None:
    found.constraints = _cones(lines)


def _psd_variables(lines: Iterator[str], found: CBFFile) -> None:
    found.psd_variables = [int(next(lines)) for _ in range(int(next(lines)))]


def _psd_constraints(lines: Iterator[str], found: CBFFile) -> None:
    found.psd_constraints = [int(next(lines)) for _ in range(int(next(lines)))]


def _offset(lines: Iterator[str], found: CBFFile) -> None:
    found.offset = float(next(lines))


def _exponents(section: str) -> Callable[[Iterator[str], CBFFile], None]:
    def read(lines: Iterator[str], found: CBFFile) -> None:
        count, _ = (int(word) for word in next(lines).split())
        found.exponents[section] = [
            np.array([float(next(lines)) for _ in range(int(next(lines)))]) for _ in range(count)
        ]

    return read


_OTHERS: dict[str, Callable[[Iterator[str], CBFFile], None]] = {
    "VER": _version,
    "OBJSENSE": _sense,
    "VAR": _variables,
    "CON": _constraints,
    "PSDVAR": _psd_variables,
    "PSDCON": _psd_constraints,
    "OBJBCOORD": _offset,
    "POWCONES": _exponents("POWCONES"),
    "POW*CONES": _exponents("POW*CONES"),
}
