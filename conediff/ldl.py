"""LDL' factorisations by QDLDL: small symmetric matrices in piles, down a block diagonal."""

from __future__ import annotations

import numpy as np
import qdldl
import scipy.sparse as sp
from numpy.typing import NDArray

from conediff.reduced import KKTPattern
from conediff.structure import Array, Pattern, Structure

# Rows in one block-diagonal factorisation: beyond some thousands it falls out of cache.
_PILE_ROWS = 2048
_PILE_COUNT = 64


class PileSolver:
    """QDLDL on a block diagonal of ``count`` copies of K; the symbolic analysis is made once."""

    def __init__(self, pattern: KKTPattern, count: int) -> None:
        self.count = count
        stacked = Pattern((pattern.size,) * 2, pattern.indptr, pattern.indices).stacked(count)
        self.matrix = stacked.matrix(np.zeros(stacked.nnz))
        self._sign = np.tile(pattern.sign, count)
        self._solver: qdldl.Solver | None = None
        self._factored = False

    def factor(self, values: Array) -> None:
        """Factorise K with these values, shape (count * nnz,)."""
        self.matrix.data = values
        try:
            if self._solver is None:
                self._solver = qdldl.Solver(self.matrix, upper=True)
            else:
                self._solver.update(self.matrix, upper=True)
            self._factored = True
        except RuntimeError:  # of the constructor, where a pivot vanishes
            self._factored = False

    @property
    def sound(self) -> bool:
        """Whether every pivot has the sign that a quasi-definite matrix asks for.

        A pivot that vanishes is left a zero by `update`, which says nothing; one that rounding has left with
        the wrong sign is as bad, and as silent. To look at the pivots, QDLDL copies the whole factor.
        """
        if self._solver is None or not self._factored:
            return False
        _, pivots, order = self._solver.factors()
        return bool(np.all(pivots * self._sign[order] > 0))

    def solve(self, rhs: Array) -> Array:
        """Solve for a right-hand side of shape (count * size,); NaN where there is no factorisation."""
        if self._solver is None or not self._factored:
            return np.full(rhs.shape, np.nan)
        solution: Array = self._solver.solve(rhs)
        return solution


def piles(total: int, size: int) -> list[tuple[slice, int]]:
    """Cut a stack into piles; each is padded to a power of two, so that few analyses serve all."""
    full = 1
    while 2 * full * size <= _PILE_ROWS and full < _PILE_COUNT:
        full *= 2
    result = []
    for start in range(0, total, full):
        length = min(full, total - start)
        result.append((slice(start, start + length), 1 << (length - 1).bit_length()))
    return result


def padded(rows: Array, count: int) -> Array:
    """Repeat the last row until there are ``count``."""
    return (
        np.concatenate([rows, np.repeat(rows[-1:], count - len(rows), axis=0)]) if len(rows) < count else rows
    )


def convex(structure: Structure, P: Array, tol: float = 1e-9) -> NDArray[np.bool_]:
    """Whether each P of a stack is positive semidefinite, up to ``tol`` relative to its largest entry.

    Parameters
    ----------
    structure : Structure
    P : array, shape (B, nnz of P)

    Returns
    -------
    bool array, shape (B,)

    Notes
    -----
    By the pivots of a sparse factorisation of P + tol I: positive if and only if that is positive definite.
    """
    pattern, n = structure.P, structure.n
    result = np.ones(len(P), dtype=bool)
    for k, values in enumerate(P):
        size = np.abs(values).max(initial=0.0)
        if size > 0:
            shifted = sp.triu(pattern.matrix(values / size) + tol * sp.eye_array(n), format="csc")
            try:
                result[k] = bool((qdldl.Solver(shifted, upper=True).factors()[1] > 0).all())
            except RuntimeError:  # a pivot vanishes
                result[k] = False
    return result
