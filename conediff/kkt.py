r"""Solve with the reduced symmetric system K (see `reduced`): factorise, refine, tell singular from regular.

K is quasi-definite up to the null spaces of P and I - D, so K + ε diag(I, -I) has an LDL' factorisation for
every ordering (Vanderbei 1995); iterative refinement against K itself takes ε out again. With large
cones the factorised matrix only stands for K, and preconditions GMRES on it.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy.sparse.linalg import LinearOperator, gmres

from conediff.cones import ProductDerivative
from conediff.ldl import PileSolver, padded, piles
from conediff.reduced import KKTOperator, KKTPattern
from conediff.structure import Array, ConeData, Indices, Structure
from conediff.threads import Mapper

# Relative static regularisation: large enough that no pivot vanishes, small enough that two or three steps
# of refinement remove it.
REGULARISATION = 1e-9
# What is added to it, as its multiple, where a pivot vanishes nevertheless.
_MORE = (1e2, 1e4, 1e6)
# A relative residual above this, of the first solve, makes the pivots worth a look.
_STRANGE = 1e-3
# Below this an entry of S A or I - D is rounding.
_ROUNDING = 1e-14
# Above this a smallest singular value, estimated by one step, is not looked at again. Pivots as small as the
# regularisation leave the factorisation correct to 1e-7 only, so that a zero may look as large as 1e-5.
_SUSPICIOUS = 1e-4
# Krylov vectors at most, where GMRES stands in for refinement.
_KRYLOV = 200


class KKT:
    """Factorises stacks of K of one structure; keeps the symbolic analyses.

    Parameters
    ----------
    structure : Structure
    """

    def __init__(self, structure: Structure) -> None:
        self.pattern = KKTPattern(structure)
        self._free: dict[int, list[PileSolver]] = {}

    def factor(
        self,
        data: ConeData,
        derivative: ProductDerivative,
        regularisation: Array | float = REGULARISATION,
        mapper: Mapper = map,
    ) -> KKTFactor:
        """Factorise the regularised K of every program of a stack.

        Parameters
        ----------
        data : ConeData
        derivative : ProductDerivative
            D and S at the programs' v.
        regularisation : float or array, shape (B,)
            Relative to K when its rows are scaled to largest entries of about one.
        mapper : callable
            Like the built-in ``map``; may run in threads.
        """
        values = self.pattern.values(data, derivative)
        scale = self._scale(values)
        pattern = self.pattern
        values *= scale[:, pattern.indices]
        values *= scale[:, pattern.columns]
        shift = np.broadcast_to(np.reshape(regularisation, (-1, 1)) * pattern.sign, scale.shape)
        values[:, pattern.diagonal_at] += shift
        operator = KKTOperator(pattern.structure, data, derivative)
        return KKTFactor(self, operator, values, scale, shift / scale**2, mapper)

    def _scale(self, values: Array) -> Array:
        """Scale rows and columns by the root of their largest entry, once: Ruiz's first step."""
        order, starts = self._entries_by_row
        largest = np.maximum.reduceat(np.abs(values)[:, order], starts, axis=1)
        # A row of S A and I - D that is all rounding (D has entries of about one) is not to be blown up.
        n = self.pattern.structure.n
        largest[:, n:][largest[:, n:] < _ROUNDING] = 1
        largest[largest == 0] = 1
        return 1 / np.sqrt(largest)

    @cached_property
    def probe(self) -> Array:
        """A random unit vector, always the same, shape (n + m,)."""
        vector = np.random.default_rng(0).standard_normal(self.pattern.size)
        probe: Array = vector / np.linalg.norm(vector)
        return probe

    @cached_property
    def _entries_by_row(self) -> tuple[Indices, Indices]:
        """Entries of the full symmetric K, row by row: places in the upper triangle, and row starts."""
        pattern = self.pattern
        rows = np.concatenate([pattern.indices, pattern.columns])
        order = np.argsort(rows, kind="stable")
        starts = np.searchsorted(rows[order], np.arange(pattern.size))
        return order % pattern.nnz, starts

    def borrow(self, count: int) -> PileSolver:
        """Take a solver for a pile of ``count`` programs, analysed before if one is free."""
        try:
            return self._free[count].pop()
        except (KeyError, IndexError):
            return PileSolver(self.pattern, count)

    def give_back(self, solver: PileSolver) -> None:
        """Let others use a solver whose factorisation is no longer needed."""
        self._free.setdefault(solver.count, []).append(solver)


class KKTFactor:
    """LDL' of the regularised K for every program of a stack.

    The number of programs in a pile depends on the structure and the stack only, never on threads, so
    that results do not either.
    """

    def __init__(
        self, kkt: KKT, operator: KKTOperator, values: Array, scale: Array, shift: Array, mapper: Mapper
    ) -> None:
        self.operator = operator
        self._kkt, self._scale, self._shift, self._map = kkt, scale, shift, mapper
        self._piles = piles(len(values), kkt.pattern.size)
        self._checked = False
        self._solvers = list(mapper(lambda pile: self._factor(values[pile[0]], pile[1]), self._piles))

    def __del__(self) -> None:
        for solver in getattr(self, "_solvers", ()):
            self._kkt.give_back(solver)

    def _factor(self, values: Array, count: int) -> PileSolver:
        solver = self._kkt.borrow(count)
        solver.factor(padded(values, count).ravel())
        return solver

    def _mended(self) -> bool:
        """Factorise again, with more regularisation, where rounding has eaten that of a pivot; say if so.

        Asked once, and only when an answer looks strange: it costs more than a factorisation of a small K.
        """
        if self._checked:
            return False
        self._checked = True
        return any(list(self._map(self._mend, range(len(self._piles)))))

    def _mend(self, k: int) -> bool:
        (part, count), solver = self._piles[k], self._solvers[k]
        if solver.sound:
            return False
        values = solver.matrix.data.reshape(count, -1).copy()
        shift = padded(self._shift[part] * self._scale[part] ** 2, count)
        for more in _MORE:
            values[:, self._kkt.pattern.diagonal_at] += more * shift
            solver.factor(values.ravel().copy())
            if solver.sound:
                break
        return True

    def fits(self, derivative: ProductDerivative) -> bool:
        """Whether K is the same with this D: known at once where D is diagonal, otherwise no."""
        mine, theirs = self.operator.derivative.diagonal, derivative.diagonal
        return mine is not None and theirs is not None and np.array_equal(mine, theirs)

    def solve_regularised(self, rhs: Array) -> Array:
        """Solve with the regularised K, once; shapes (B, n + m)."""
        if self._kkt.pattern.exact:
            return self._back_substituted(rhs)
        # K, up to rank two for every large second-order cone, is the factorised matrix: few steps do.
        shape = rhs.shape

        def product(z: Array) -> Array:
            stack = z.reshape(shape)
            return (self.operator.apply(stack) + self._shift * stack).ravel()

        def precondition(z: Array) -> Array:
            return self._back_substituted(z.reshape(shape)).ravel()

        K, M = (LinearOperator((rhs.size,) * 2, matvec=f, dtype=np.float64) for f in (product, precondition))
        z, _ = gmres(K, rhs.ravel(), rtol=1e-8, restart=min(_KRYLOV, rhs.size), maxiter=1, M=M)
        return z.reshape(shape)

    def _back_substituted(self, rhs: Array) -> Array:
        """Solve with what was factorised."""
        rhs = rhs * self._scale

        def one(job: tuple[tuple[slice, int], PileSolver]) -> Array:
            (part, count), solver = job
            solution = solver.solve(padded(rhs[part], count).ravel())
            return solution.reshape(count, -1)[: len(rhs[part])]

        parts = list(self._map(one, zip(self._piles, self._solvers, strict=True)))
        return np.concatenate(parts) * self._scale if parts else rhs

    def solve(self, rhs: Array, tol: float = 1e-14, steps: int = 10) -> tuple[Array, Array]:
        """Solve K z = rhs by iterative refinement.

        Parameters
        ----------
        rhs : array, shape (B, n + m)
        tol : float
            Relative residual at which to stop.
        steps : int
            Refinement steps at most; a program whose residual no longer halves stops by itself.

        Returns
        -------
        z : array, shape (B, n + m)
        residual : array, shape (B,)
            2-norm of rhs - K z relative to that of rhs; large where K is singular and rhs outside its range.
        """
        size = _norm(rhs)
        size[size == 0] = 1
        z = self.solve_regularised(rhs)
        left = rhs - self.operator.apply(z)
        error = _norm(left) / size
        if not np.all(error < _STRANGE) and self._mended():
            z = self.solve_regularised(rhs)
            left = rhs - self.operator.apply(z)
            error = _norm(left) / size
        for _ in range(steps):
            if not np.any(error > tol):
                break
            trial = z + self.solve_regularised(left)
            trial_left = rhs - self.operator.apply(trial)
            trial_error = _norm(trial_left) / size
            better = trial_error < error
            z[better], left[better] = trial[better], trial_left[better]
            enough = np.all((trial_error > error / 2) | (trial_error <= tol))
            error = np.where(better, trial_error, error)
            if enough:
                break
        return z, error

    def smallest_singular_value(self) -> tuple[Array, Array]:
        """Estimate the smallest singular value of every K, scaled to rows of about one.

        Inverse iteration: where K is singular the regularised solve blows its null space up. One step, from
        a fixed random vector, rules that out for most; the others get two more, in the form
        z - (K + εJ)^-1 K z, which keeps rounding out of what is left of K z.

        Returns
        -------
        value : array, shape (B,)
        vector : array, shape (B, n + m)
            The unit vector that shows it, in unscaled coordinates (r, t); meaningful where value is small.
        """
        scale = self._scale
        z = self.solve_regularised(self._kkt.probe / scale) / scale
        value = 1 / _norm(z)
        if not np.all(value >= _SUSPICIOUS) and self._mended():
            return self.smallest_singular_value()
        z = z * value[:, None]
        if np.any(value < _SUSPICIOUS):
            for _ in range(2):
                z = z - self.solve_regularised(self.operator.apply(z * scale)) / scale
                z = z / _norm(z)[:, None]
            value = np.where(value < _SUSPICIOUS, _norm(self.operator.apply(z * scale) * scale), value)
        vector = z * scale
        value = np.nan_to_num(value)  # NaN where there is no factorisation
        return value, vector / _norm(vector)[:, None]


def _norm(stack: Array) -> Array:
    """2-norms of a stack of vectors."""
    norms: Array = np.linalg.norm(stack, axis=1)
    return norms
