"""LDL' factorisations by QDLDL: small symmetric matrices in piles, down a block diagonal."""

from __future__ import annotations

import numpy as np
import qdldl
import scipy.sparse as sp
from numpy.typing import NDArray

from conediff.kkt.matrix import KKTPattern
from conediff.program import Array, Pattern, Structure

# Rows in one block-diagonal factorisation: beyond some thousands it falls out of cache.
_PILE_ROWS = 2048
_PILE_COUNT = 64
# What is added to the diagonal where a pivot vanishes, as multiples of what is there.
_MORE = (1e2, 1e4, 1e6)


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


class Solvers:
    """Solvers of one sparsity that nobody uses at the moment, by how many programs they are for."""

    def __init__(self, pattern: KKTPattern) -> None:
        self.pattern = pattern
        self._free: dict[int, list[PileSolver]] = {}

    def borrow(self, count: int) -> PileSolver:
        """Take a solver for a pile of ``count`` programs, analysed before if one is free."""
        try:
            return self._free[count].pop()
        except (KeyError, IndexError):
            return PileSolver(self.pattern, count)

    def give_back(self, solver: PileSolver) -> None:
        """Let others use a solver whose factorisation is no longer needed."""
        self._free.setdefault(solver.count, []).append(solver)


class StackLDL:
    """LDL' of every matrix of a stack, of one sparsity.

    Parameters
    ----------
    solvers : Solvers
    values : array, shape (B, nnz)
    """

    def __init__(self, solvers: Solvers, values: Array) -> None:
        self._solvers, self._parts = solvers, []
        for part, count in piles(len(values), solvers.pattern.size):
            solver = solvers.borrow(count)
            self._parts.append((part, solver))
            solver.factor(padded(values[part], count).ravel())

    def __del__(self) -> None:
        for _, solver in getattr(self, "_parts", ()):
            self._solvers.give_back(solver)

    def solve(self, rhs: Array) -> Array:
        """Solve for right-hand sides of shape (B, size)."""
        solution = np.empty(rhs.shape)
        for part, solver in self._parts:
            rows = rhs[part]
            answer = solver.solve(padded(rows, solver.count).ravel())
            solution[part] = answer.reshape(solver.count, -1)[: len(rows)]
        return solution

    def mend(self, shift: Array) -> bool:
        """Where a pivot is not sound, add multiples of ``shift`` (B, size) to the diagonal; say if so."""
        mended = [self._mend(solver, shift[part]) for part, solver in self._parts]
        return any(mended)

    def _mend(self, solver: PileSolver, shift: Array) -> bool:
        if solver.sound:
            return False
        values, shift = solver.matrix.data.reshape(solver.count, -1).copy(), padded(shift, solver.count)
        for more in _MORE:
            values[:, self._solvers.pattern.diagonal_at] += more * shift
            solver.factor(values.ravel().copy())
            if solver.sound:
                break
        return True


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
