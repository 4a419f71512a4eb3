"""The structure that the programs of a stack share (sizes, sparsity, cones), and their numbers.

Behind the public interface everything works on a *stack*: one `Structure`, and `ConeData` whose arrays have a
leading axis over the programs. A single program is a stack of one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from conediff.cones import ProductCone
from conediff.program.pattern import Array, Pattern


@dataclass(frozen=True, eq=False)
class Structure:
    """Sizes, sparsity and cones of a cone program.

    Parameters
    ----------
    P : Pattern, shape (n, n)
        Symmetric: both triangles are stored. May be empty.
    A : Pattern, shape (m, n)
    cone : ProductCone
        Of dimension m, its rows in SCS's order.
    """

    P: Pattern
    A: Pattern
    cone: ProductCone

    @property
    def n(self) -> int:
        """Number of variables."""
        return self.A.shape[1]

    @property
    def m(self) -> int:
        """Number of rows of A."""
        return self.A.shape[0]


@dataclass(frozen=True, eq=False)
class ConeData:
    """The numbers of a stack of B programs; an array with one row is shared by all of them.

    Parameters
    ----------
    P : array, shape (B, nnz of P) or (1, nnz of P)
    A : array, shape (B, nnz of A) or (1, nnz of A)
    b : array, shape (B, m) or (1, m)
    c : array, shape (B, n) or (1, n)
    """

    P: Array
    A: Array
    b: Array
    c: Array

    @property
    def count(self) -> int:
        """Number of programs in the stack."""
        lengths = (len(array) for array in (self.P, self.A, self.b, self.c))
        return next((length for length in lengths if length != 1), 1)

    @property
    def is_finite(self) -> bool:
        """Whether no number is NaN or infinite."""
        return all(bool(np.isfinite(part).all()) for part in (self.P, self.A, self.b, self.c))

    def repeated(self, count: int) -> ConeData:
        """Return the data as a stack of ``count`` programs; `count` must be 1 or ``count`` already."""
        if self.count == count:
            return self
        return replace(self, c=np.broadcast_to(self.c, (count, self.c.shape[1])))

    def plus(self, other: ConeData) -> ConeData:
        """Return the sum of two tangents or cotangents of the data."""
        return ConeData(self.P + other.P, self.A + other.A, self.b + other.b, self.c + other.c)

    def zeros(self) -> ConeData:
        """Return zeros for the same structure, with one row."""
        return ConeData(*(np.zeros((1, array.shape[1])) for array in (self.P, self.A, self.b, self.c)))

    def take(self, index: NDArray[np.intp] | slice) -> ConeData:
        """Return the programs at these positions; arrays with one row stay as they are."""
        return ConeData(*(a if len(a) == 1 else a[index] for a in (self.P, self.A, self.b, self.c)))


class Point(NamedTuple):
    """Primal variables, dual variables and slacks of a stack of programs.

    Attributes
    ----------
    x, y, s : arrays, shape (B, n), (B, m), (B, m)
    """

    x: Array
    y: Array
    s: Array

    def take(self, index: NDArray[np.intp] | slice) -> Point:
        """Return the points of the programs at these positions."""
        return Point(self.x[index], self.y[index], self.s[index])
