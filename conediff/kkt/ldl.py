"""LDL' factorisations by QDLDL: small symmetric matrices in piles, down a block diagonal."""

from __future__ import annotations

import threading

import numpy as np
import qdldl
import scipy.sparse as sp
from numpy.typing import NDArray

from conediff.kkt.constants import PILE_COUNT, PILE_ROWS, REGULARISATION_FACTORS
from conediff.kkt.matrix import KKTPattern
from conediff.program import Array, Pattern, Structure


class PileSolver:
    """QDLDL on a block diagonal of ``count`` copies of K; the symbolic analysis is made once."""

    def __init__(self, pattern: KKTPattern, count: int) -> None:
        self.count = count
        stacked = Pattern((pattern.size,) * 2, pattern.indptr, pattern.indices).block_diagonal(count)
        self.matrix = stacked.matrix(np.zeros(stacked.nnz))
        self._sign = np.tile(pattern.sign, count)
        self._solver: qdldl.Solver | None = None
        self._is_factorised = False
        self._lock = threading.Lock()  # QDLDL solves in memory that the solver owns

    def factor(self, values: Array) -> None:
        """Factorise K with these values, shape (count * nnz,)."""
        self.matrix.data = values
        try:
            if self._solver is None:
                self._solver = qdldl.Solver(self.matrix, upper=True)
            else:
                self._solver.update(self.matrix, upper=True)
            self._is_factorised = True
        except RuntimeError:  # raised by the constructor where a pivot is zero
            self._is_factorised = False

    @property
    def has_expected_inertia(self) -> bool:
        """Whether every pivot has the sign that a quasi-definite matrix has.

        QDLDL's `update` does not report a zero pivot, nor one to which rounding has given the wrong sign.
        Reading the pivots copies the whole factor.
        """
        if self._solver is None or not self._is_factorised:
            return False
        _, pivots, order = self._solver.factors()
        return bool(np.all(pivots * self._sign[order] > 0))

    def solve(self, rhs: Array) -> Array:
        """Solve for a right-hand side of shape (count * size,); NaN where there is no factorisation."""
        if self._solver is None or not self._is_factorised:
            return np.full(rhs.shape, np.nan)
        with self._lock:
            solution: Array = self._solver.solve(rhs)
        return solution


class SymmetricLDL:
    """LDL' of one symmetric quasi-definite matrix; immutable.

    Parameters
    ----------
    upper : sparse array, shape (N, N)
        Its upper triangle, with all diagonal entries.
    """

    def __init__(self, upper: sp.csc_array) -> None:
        self._lock = threading.Lock()  # QDLDL solves in memory that the solver owns
        try:
            self._solver = qdldl.Solver(upper, upper=True)
        except RuntimeError:  # a pivot is zero
            self._solver = None

    @property
    def is_factorised(self) -> bool:
        """Whether no pivot was zero."""
        return self._solver is not None

    def solve(self, rhs: Array) -> Array:
        """Solve for a right-hand side of shape (N,); NaN where there is no factorisation."""
        if self._solver is None:
            return np.full(rhs.shape, np.nan)
        with self._lock:
            solution: Array = self._solver.solve(rhs)
        return solution


class Solvers:
    """Solvers of one sparsity that are not in use, by the number of programs in their pile."""

    def __init__(self, pattern: KKTPattern) -> None:
        self.pattern = pattern
        self._free: dict[int, list[PileSolver]] = {}

    def borrow(self, count: int) -> PileSolver:
        """Take a solver for a pile of ``count`` programs; a free one has been analysed already."""
        try:
            return self._free[count].pop()
        except (KeyError, IndexError):
            return PileSolver(self.pattern, count)

    def give_back(self, solver: PileSolver) -> None:
        """Make a solver available again; its factorisation is no longer needed."""
        self._free.setdefault(solver.count, []).append(solver)


class _Pile:
    """A factorised pile; it borrows its solver, and gives it back when it is deleted."""

    def __init__(self, solvers: Solvers, rows: Array, count: int) -> None:
        self._solvers, self.solver = solvers, solvers.borrow(count)
        self.solver.factor(padded(rows, count).ravel())

    def __del__(self) -> None:
        solver = getattr(self, "solver", None)
        if solver is not None:
            self._solvers.give_back(solver)

    def with_increased_regularisation(self, shift: Array) -> _Pile:
        """Return itself if its inertia is right, or a pile with multiples of ``shift`` (B, size) added."""
        if self.solver.has_expected_inertia:
            return self
        count, pile = self.solver.count, self
        values, shift = self.solver.matrix.data.reshape(count, -1).copy(), padded(shift, count)
        for factor in REGULARISATION_FACTORS:
            values[:, self._solvers.pattern.diagonal_at] += factor * shift
            pile = _Pile(self._solvers, values.copy(), count)
            if pile.solver.has_expected_inertia:
                break
        return pile


class StackLDL:
    """LDL' of every matrix of a stack, of one sparsity; immutable.

    Parameters
    ----------
    piles : list of (slice, _Pile)
        The programs of each pile, and its factorisation.
    """

    def __init__(self, piles: list[tuple[slice, _Pile]]) -> None:
        self._piles = piles

    @classmethod
    def factor(cls, solvers: Solvers, values: Array) -> StackLDL:
        """Factorise matrices with these values, shape (B, nnz)."""
        cuts = pile_slices(len(values), solvers.pattern.size)
        return cls([(part, _Pile(solvers, values[part], count)) for part, count in cuts])

    def solve(self, rhs: Array) -> Array:
        """Solve for right-hand sides of shape (B, size)."""
        solution = np.empty(rhs.shape)
        for part, pile in self._piles:
            rows, count = rhs[part], pile.solver.count
            answer = pile.solver.solve(padded(rows, count).ravel())
            solution[part] = answer.reshape(count, -1)[: len(rows)]
        return solution

    def with_increased_regularisation(self, shift: Array) -> StackLDL | None:
        """Refactorise piles with a pivot of the wrong sign, multiples of ``shift`` (B, size) on the diagonal.

        Returns
        -------
        StackLDL or None
            None if all pivots have the right sign.
        """
        piles = [(part, pile.with_increased_regularisation(shift[part])) for part, pile in self._piles]
        unchanged = all(new is old for (_, new), (_, old) in zip(piles, self._piles, strict=True))
        return None if unchanged else StackLDL(piles)


def pile_slices(total: int, size: int) -> list[tuple[slice, int]]:
    """Cut a stack into piles; each is padded to a power of two, so that few symbolic analyses serve all."""
    full = 1
    while 2 * full * size <= PILE_ROWS and full < PILE_COUNT:
        full *= 2
    result = []
    for start in range(0, total, full):
        length = min(full, total - start)
        result.append((slice(start, start + length), 1 << (length - 1).bit_length()))
    return result


def padded(rows: Array, count: int) -> Array:
    """Repeat the last row until there are ``count`` rows."""
    if len(rows) == count:
        return rows
    return np.concatenate([rows, np.repeat(rows[-1:], count - len(rows), axis=0)])


def is_psd(structure: Structure, P: Array, tol: float = 1e-9) -> NDArray[np.bool_]:
    """Return whether each P of a stack is positive semidefinite, up to ``tol`` relative to its largest entry.

    Parameters
    ----------
    structure : Structure
    P : array, shape (B, nnz of P)
    tol : float

    Returns
    -------
    bool array, shape (B,)

    Notes
    -----
    By the pivots of a sparse factorisation of P + tol I: all are positive if and only if it is positive
    definite.
    """
    pattern, n = structure.P, structure.n
    result = np.ones(len(P), dtype=bool)
    for k, values in enumerate(P):
        size = np.abs(values).max(initial=0.0)
        if size > 0:
            shifted = sp.triu(pattern.matrix(values / size) + tol * sp.eye_array(n), format="csc")
            try:
                result[k] = bool((qdldl.Solver(shifted, upper=True).factors()[1] > 0).all())
            except RuntimeError:  # a pivot is zero
                result[k] = False
    return result
