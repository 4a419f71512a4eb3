"""Forms of the derivative of a projection by which large cones need no block: low rank, and diagonal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from conediff.cones.automorphism import Array


@dataclass(frozen=True, eq=False)
class LowRankPart:
    r"""D = a I + V (Λ - a I) V', with few columns in V, for a group of equal cones at a stack of points.

    Parameters
    ----------
    eigenvalue : array, shape (..., count)
        a, the eigenvalue of all directions orthogonal to V.
    eigenvalues : array, shape (..., count, k)
        Λ's diagonal.
    vectors : callable
        Returns V' as an array of shape (..., count, k, dim). Its rows are orthonormal; those whose eigenvalue
        is a are arbitrary. It is called only where the low rank is used.
    """

    eigenvalue: Array
    eigenvalues: Array
    vectors: Callable[[], Array]


class Eigenbasis(Protocol):
    """An orthogonal change of coordinates, for every cone of a group, in which D and S are diagonal."""

    @property
    def eigenvalues(self) -> Array:
        """D's diagonal there, shape (..., count, dim)."""

    def into(self, h: Array) -> Array:
        """Return the coordinates of h, shapes (..., count, dim)."""

    def out_of(self, h: Array) -> Array:
        """Return the vector that has the coordinates h, shapes (..., count, dim)."""

    def columns(self, k: int, h: Array) -> Array:
        """Return the coordinates of many vectors of cone k, shapes (..., vectors, dim)."""
