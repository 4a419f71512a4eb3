"""A problem of a collection as a cone program, and rows in cones, collected in any order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

import conediff as cd

Array = NDArray[np.float64]
ORDER = ("z", "l", "q", "s", "ep", "ed", "p")  # SCS's order of rows; the readers need no other cones
# A bound of this size or larger is none. Files write 1e20, PRIMALC1 and QISRAEL with a rounding error
# (9.999999999999998e19).
UNBOUNDED = 1e19


class FormatError(ValueError):
    """A file breaks the rules of its format, or states what conediff does not solve."""


@dataclass(frozen=True)
class Problem:
    """A cone program, and how its value becomes the objective of the file.

    Parameters
    ----------
    program : ConeProgram
    offset : float
        Constant term of the file's objective.
    maximise : bool
        Whether the file maximises; the program minimises the negative.
    """

    program: cd.ConeProgram
    offset: float = 0.0
    maximise: bool = False

    def objective(self, x: Array) -> float:
        """Return the file's objective at x, shape (n,)."""
        value = float(x @ (self.program.P @ x) / 2 + self.program.c @ x)
        return self.offset + (-value if self.maximise else value)


@dataclass(frozen=True)
class _Block:
    A: sp.csr_array
    b: Array
    size: Any


class ConeRows:
    """Rows s = b - A x in cones.

    Parameters
    ----------
    n : int
        Number of variables.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self._blocks: dict[str, list[_Block]] = {kind: [] for kind in ORDER}

    def add(self, kind: str, A: Any, b: ArrayLike, size: Any = None) -> None:
        """Add rows of one kind.

        Parameters
        ----------
        kind : str
            Key of SCS's dictionary of cones.
        A : sparse matrix or array, shape (rows, n)
        b : array, shape (rows,)
        size : int or float, optional
            Rows of a second-order cone, order of a PSD cone, exponent of a power cone. The kinds without
            need none: their number follows from the rows.
        """
        rows = sp.csr_array(A, dtype=np.float64)
        right = np.asarray(b, dtype=np.float64)
        if rows.shape != (right.size, self.n):
            raise FormatError(f"{right.size} rows of b for a matrix of shape {rows.shape}, n = {self.n}")
        if right.size:
            self._blocks[kind].append(_Block(rows, right, size))

    def add_interval(self, A: Any, lower: ArrayLike, upper: ArrayLike) -> None:
        """Add l <= A x <= u: an equality where l = u, else one row for each finite bound.

        Parameters
        ----------
        A : sparse matrix or array, shape (rows, n)
        lower, upper : arrays, shape (rows,)
            Entries of `UNBOUNDED` or more in absolute value, outward, are no bounds.
        """
        rows = sp.csr_array(A, dtype=np.float64)
        low, high = np.asarray(lower, dtype=np.float64), np.asarray(upper, dtype=np.float64)
        equal = low == high
        above, below = (high < UNBOUNDED) & ~equal, (low > -UNBOUNDED) & ~equal
        self.add("z", rows[equal], high[equal])
        self.add("l", rows[above], high[above])
        self.add("l", -rows[below], -low[below])

    def program(self, c: ArrayLike, P: Any = None) -> cd.ConeProgram:
        """Return the program with these rows in SCS's order."""
        blocks = [block for kind in ORDER for block in self._blocks[kind]]
        if not blocks:
            raise FormatError("the problem has no constraints")
        cones = {kind: _COUNT[kind](found) for kind, found in self._blocks.items() if found}
        A, b = sp.vstack([block.A for block in blocks]), np.concatenate([block.b for block in blocks])
        return cd.ConeProgram(A, b, c, cones, P)


def _rows(divisor: int) -> Callable[[list[_Block]], int]:
    return lambda blocks: sum(block.b.size for block in blocks) // divisor


def _sizes(blocks: list[_Block]) -> list[Any]:
    return [block.size for block in blocks]


_COUNT: dict[str, Callable[[list[_Block]], Any]] = {
    "z": _rows(1),
    "l": _rows(1),
    "q": _sizes,
    "s": _sizes,
    "ep": _rows(3),
    "ed": _rows(3),
    "p": _sizes,
}


def svec_position(
    order: int | NDArray[np.intp], i: NDArray[np.intp], j: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Return positions in svec, the lower triangle column by column, of entries (i, j) of either triangle.

    Raises
    ------
    FormatError
        If an entry lies outside of its matrix.
    """
    row, column = np.maximum(i, j), np.minimum(i, j)
    if np.any(row >= order):
        raise FormatError("an entry lies outside of its matrix")
    return np.asarray(column * order - column * (column - 1) // 2 + row - column)


def svec_factor(i: NDArray[np.intp], j: NDArray[np.intp]) -> Array:
    """Return 1 on the diagonal and the square root of 2 off it, so that <svec X, svec Y> = tr XY."""
    return np.where(i == j, 1.0, np.sqrt(2.0))
