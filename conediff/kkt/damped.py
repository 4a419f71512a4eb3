r"""Least squares on M by a factorisation: damped normal equations precondition conjugate gradients.

M, the derivative of the embedding (see `kkt.embedding`), is singular. With B = M for the adjoint and B = M'
for the derivative itself, the answer is the r of least norm that minimises \|B'r - g\|. The damped problem,
which minimises \|B'r - g\|² + δ² \|r\|², has the quasi-definite system (for B = M, with u = (g - M'r)/δ)

.. math:: \begin{pmatrix} δI & M^\top \\ M & -δI \end{pmatrix} \begin{pmatrix} u \\ r \end{pmatrix}
          = \begin{pmatrix} g \\ 0 \end{pmatrix},

and for B = M' the same one with (0, g) on the right and u as the answer. It has an LDL' factorisation in any
order (Vanderbei 1995), which serves both. Its answer to a residual h is (B B' + δ²I)⁻¹ B h: the
preconditioned gradient of the undamped problem. Conjugate gradients with it meet eigenvalues σ²/(σ² + δ²)
of the singular values σ of M, 0 or close to 1, and take a handful of steps. Its iterates lie in the range of
B, which makes the limit the answer of least norm; rounding is removed by a projection at the end. Sources:
Björck (1996), section 7; Arridge, Betcke, Harhanen (2014) for LSQR in the place of conjugate gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator

from conediff.kkt.constants import (
    CG_ITERATIONS,
    CG_PATIENCE,
    CG_RESTARTS,
    DENSE_ROOT,
    EQUILIBRATION_ROUNDS,
    LEAST_SQUARES_TOLERANCE,
    REFINEMENTS,
    SOLVED,
)
from conediff.kkt.ldl import SymmetricLDL
from conediff.kkt.least_squares import LinearSolution, iterative
from conediff.program import Array

Extended = NDArray[np.longdouble]


class DampedFactor:
    """LDL' of the damped system of a matrix, and solves with it; immutable, and may be shared by threads.

    Parameters
    ----------
    matrix : sparse array, shape (N, N)
        M, or a matrix near it.
    damping : float
        δ relative to its largest entry.
    """

    def __init__(self, matrix: sp.csc_array, damping: float) -> None:
        self._M, self._Mt = matrix.tocsr(), matrix.T.tocsr()
        count = matrix.shape[0]
        self.damping = damping * (float(np.abs(matrix.data).max(initial=0.0)) or 1.0)
        identity = self.damping * sp.eye_array(count)
        system = sp.block_array([[identity, self._Mt], [None, -identity]], format="csc")
        self._scale = _equilibration(system)
        scaled = sp.diags_array(self._scale) @ system @ sp.diags_array(self._scale)
        self._ldl = SymmetricLDL(sp.csc_array(scaled))

    @cached_property
    def _extended(self) -> tuple[sp.csr_array, sp.csr_array]:
        return self._M.astype(np.longdouble), self._Mt.astype(np.longdouble)

    def extended_product(self, z: Extended, adjoint: bool) -> Extended:
        """Return M'z if adjoint, else M z."""
        result: Extended = self._extended[int(adjoint)] @ z
        return result

    @property
    def is_usable(self) -> bool:
        """Whether no pivot was zero."""
        return self._ldl.is_factorised

    def solve(self, first: Array, second: Array) -> tuple[Array, Array]:
        """Solve δ u + M'r = first, M u - δ r = second, with refinement.

        Its residuals are in extended precision: where first cannot be removed u is first / δ, and rounding in
        M u of that size would limit r to 1e-16 / δ.
        """
        u = r = np.zeros(first.size, dtype=np.longdouble)
        above, below = first, second
        for step in range(REFINEMENTS + 1):
            du, dr = self._once(above, below)
            u, r = u + du, r + dr
            if step < REFINEMENTS:
                above = _rounded(first - self.damping * u - self.extended_product(r, adjoint=True))
                below = _rounded(second - self.extended_product(u, adjoint=False) + self.damping * r)
        return _rounded(u), _rounded(r)

    def _once(self, first: Array, second: Array) -> tuple[Array, Array]:
        z = self._scale * self._ldl.solve(self._scale * np.concatenate([first, second]))
        return z[: first.size], z[first.size :]

    def square(self, z: Array, adjoint: bool) -> float:
        """Return z'(B B' + δ²I) z with B = M if adjoint, else M'; a sum of squares, without cancellation."""
        image = (self._Mt if adjoint else self._M) @ z
        return float(image @ image + (self.damping * z) @ (self.damping * z))


@dataclass(frozen=True)
class DampedLeastSquares:
    """Least-squares solves with M and M', to which one factorisation is the preconditioner.

    Parameters
    ----------
    operator : LinearOperator, shape (N, N)
        M.
    factor : DampedFactor
    is_exact : bool
        Whether the factorised matrix is M itself; otherwise it is near M.
    more_iterations : int
        Iterations of LSQR, at most, where conjugate gradients fall short.
    """

    operator: LinearOperator
    factor: DampedFactor
    is_exact: bool
    more_iterations: int

    def solve(self, rhs: Array, adjoint: bool) -> LinearSolution:
        """Return the z of least norm that minimises |M z - rhs|, or |M'z - rhs|; shapes (N,)."""
        peak = float(np.abs(rhs).max(initial=0.0))
        if peak == 0 or not np.isfinite(peak):
            return iterative(self.operator, rhs)
        unit = rhs / peak
        found, steps, level = self._minimise(unit, adjoint)
        converged, reason = level <= SOLVED, "solved by preconditioned conjugate gradients"
        z = _rounded(found)
        if not converged:
            forward = self.operator.T if adjoint else self.operator
            rest = iterative(forward, unit - self._apply(z, adjoint), max_iters=self.more_iterations)
            z, steps = z + rest.value, steps + rest.iterations
            # LSQR's own tests are relative to the norm of M and so blind to small singular values.
            level = self._level(unit, z, adjoint)
            converged, reason = level <= SOLVED, f"{rest.reason}, with a reducible residual of {level:.1e}"
        if z.any():
            # What lies in the null space of B' is rounding: keep the projection onto B's range.
            w, more, level = self._minimise(z, not adjoint)
            steps += more
            if level <= SOLVED:
                z = _rounded(self._extended(w, not adjoint))
            elif converged:
                converged, reason = False, f"{reason}; its part in the null space could not be removed"
        residual = float(np.linalg.norm(unit - self._apply(z, adjoint)) / np.linalg.norm(unit))
        return LinearSolution(z * peak, bool(converged), steps, residual, reason)

    def _apply(self, z: Array, adjoint: bool) -> Array:
        """Return M'z if adjoint, else M z."""
        result: Array = self.operator.rmatvec(z) if adjoint else self.operator.matvec(z)
        return result

    def _extended(self, z: Extended, adjoint: bool) -> Extended:
        """Return M'z if adjoint, else M z; in extended precision where M is known entry by entry."""
        if self.is_exact:
            return self.factor.extended_product(z, adjoint)
        return self._apply(_rounded(z), adjoint).astype(np.longdouble)

    def _step(self, h: Array, adjoint: bool) -> Array:
        """Return (B B' + δ²I)⁻¹ B h for a residual h."""
        zero = np.zeros_like(h)
        if self.is_exact:
            u, r = self.factor.solve(h, zero) if adjoint else self.factor.solve(zero, h)
        else:
            gradient = -self._apply(h, not adjoint) / self.factor.damping
            u, r = self.factor.solve(zero, gradient) if adjoint else self.factor.solve(-gradient, zero)
        return r if adjoint else u

    def _minimise(self, g: Array, adjoint: bool) -> tuple[Extended, int, float]:
        """Minimise |B'z - g|; return z, the number of steps, and the level that was reached.

        The level is the part of the residual h that the preconditioned gradient d can remove, relative to g:
        |B'd| / |g|. Conjugate gradients begin anew from the residual as long as this halves
        it. z and the residual are in extended precision, so that the error of z is not that of the residual
        times the condition number of M, and derivative and adjoint agree to rounding.
        """
        size = float(np.linalg.norm(g))
        z, h, steps = np.zeros(g.size, dtype=np.longdouble), g, 0
        best, least = z, np.inf
        for _ in range(CG_RESTARTS):
            change, level, more = self._conjugate_gradients(h, adjoint, LEAST_SQUARES_TOLERANCE * size)
            steps += more
            if not level / size < least / 2:
                break
            best, least = z, level / size
            if more == 0:
                break
            z = z + change
            h = _rounded(g - self._extended(z, adjoint))
        return best, steps, least

    def _level(self, g: Array, z: Array, adjoint: bool) -> float:
        d = self._step(g - self._apply(z, adjoint), adjoint)
        return float(np.linalg.norm(self._apply(d, adjoint)) / np.linalg.norm(g))

    def _conjugate_gradients(self, g: Array, adjoint: bool, tol: float) -> tuple[Array, float, int]:
        """Step from zero towards the minimum of |B'z - g|, until the level is below ``tol``.

        Returns
        -------
        z : array, shape (N,)
        level : float
            At zero.
        steps : int
        """
        z, h = np.zeros_like(g), g
        p = q = np.zeros_like(g)
        enough = tol * SOLVED / LEAST_SQUARES_TOLERANCE
        best, first, least, previous, since = z, np.inf, np.inf, np.inf, 0
        for step in range(CG_ITERATIONS + 1):
            d = self._step(h, adjoint)
            gain = self.factor.square(d, adjoint)
            image = self._apply(d, adjoint)
            level = float(np.linalg.norm(image))
            first = level if step == 0 else first
            since = 0 if level < least / 2 else since + 1
            if level < least:
                best, least = z, level
            if not level > tol or since > CG_PATIENCE[least <= enough]:
                break
            p = d + gain / previous * p
            q = image + gain / previous * q
            previous = gain
            trial = z + gain / (q @ q) * p
            residual = g - self._apply(trial, adjoint)
            if not residual @ residual <= (h @ h) * (1 + SOLVED):
                break  # the direction is rounding error
            z, h = trial, residual
        return best, first, step


def predicted_fill(matrix: sp.csc_array) -> float:
    """Predict the entries of the factor of a damped system from the sparsity of M.

    Eliminating either diagonal block first leaves the pattern of M'M or M M', whose entries the squares of
    the lengths of rows, or of columns, bound. Dense rows and columns are eliminated last, and are full. No
    factor has more entries than a full triangle.
    """
    pattern = sp.csc_array(matrix)
    limit = max(16.0, DENSE_ROOT * np.sqrt(pattern.shape[0]))
    is_dense_column = np.diff(pattern.indptr) > limit
    is_dense_row = np.bincount(pattern.indices, minlength=pattern.shape[0]) > limit
    columns = np.repeat(np.arange(pattern.shape[1]), np.diff(pattern.indptr))
    sparse = ~is_dense_column[columns] & ~is_dense_row[pattern.indices]
    squares = [
        float((np.bincount(index[sparse], minlength=1).astype(float) ** 2).sum())
        for index in (columns, pattern.indices)
    ]
    dense = int(is_dense_column.sum() + is_dense_row.sum())
    full = 2.0 * pattern.shape[0] ** 2
    return min(full, pattern.nnz + min(squares) + 2.0 * dense * pattern.shape[0])


def _rounded(z: Extended) -> Array:
    result: Array = z.astype(np.float64)
    return result


def _equilibration(upper: sp.csc_array) -> Array:
    """Return the scaling that gives rows of a symmetric matrix largest entries of about one (Ruiz 2001)."""
    half = abs(upper)
    magnitude = sp.csr_array(half + sp.triu(half, 1).T)
    rows = np.repeat(np.arange(magnitude.shape[0]), np.diff(magnitude.indptr))
    scale = np.ones(magnitude.shape[0])
    for _ in range(EQUILIBRATION_ROUNDS):
        entries = magnitude.data * scale[rows] * scale[magnitude.indices]
        scale /= np.sqrt(np.maximum.reduceat(entries, magnitude.indptr[:-1]))
    return scale
