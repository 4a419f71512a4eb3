"""Linear least squares, iterative or dense; answers come with their residual and the reason for stopping."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import lstsq
from scipy.sparse.linalg import LinearOperator, lsmr, lsqr

from conediff.kkt.constants import (
    ITERATIONS_PER_UNKNOWN,
    LEAST_ITERATIONS,
    LEAST_SQUARES_TOLERANCE,
    RANK_TOLERANCE,
)
from conediff.program import Array

# SciPy's stop codes of LSQR and LSMR.
_REASONS = {
    0: "the right-hand side is zero",
    1: "solved to tolerance",
    2: "least-squares solution to tolerance",
    3: "condition limit reached",
    4: "solved to machine precision",
    5: "least-squares solution to machine precision",
    6: "condition number too large for machine precision",
    7: "iteration limit reached",
}


@dataclass(frozen=True)
class LinearSolution:
    """The answer of a linear or least-squares solve.

    Attributes
    ----------
    value : array, shape (N,)
    converged : bool
        Whether the residual, or the gradient of its square, reached the tolerance.
    iterations : int
        0 for direct methods.
    residual : float
        2-norm of the residual relative to that of the right-hand side.
    reason : str
        Why the method stopped.
    """

    value: Array
    converged: bool
    iterations: int
    residual: float
    reason: str


def iterative(
    operator: LinearOperator,
    rhs: Array,
    method: str = "lsqr",
    tol: float = LEAST_SQUARES_TOLERANCE,
    max_iters: int | None = None,
) -> LinearSolution:
    """Solve in the least-squares sense, from zero, so that the answer has least norm.

    Parameters
    ----------
    operator : LinearOperator, shape (N, N)
    rhs : array, shape (N,)
    method : {"lsqr", "lsmr"}
        Paige and Saunders (1982); Fong and Saunders (2011).
    tol : float
        On the relative residual, and on the relative gradient where no solution exists.
    max_iters : int, optional
        20 N by default.
    """
    # Divide by the largest entry first: the square of a small or large entry would be out of range.
    peak = np.abs(rhs).max(initial=0.0)
    if peak == 0:
        return LinearSolution(np.zeros(rhs.size), True, 0, 0.0, _REASONS[0])
    if not np.isfinite(peak):
        return LinearSolution(
            np.full(rhs.size, np.nan), False, 0, np.inf, "the right-hand side is not finite"
        )
    size = np.linalg.norm(rhs / peak)
    limit = max_iters or max(LEAST_ITERATIONS, ITERATIONS_PER_UNKNOWN * rhs.size)
    # At norm one the iteration and its tests are the same for every scale of the input.
    unit = rhs / peak / size
    if method == "lsqr":
        z, stop, count = lsqr(operator, unit, atol=tol, btol=tol, conlim=0, iter_lim=limit)[:3]
    else:
        z, stop, count = lsmr(operator, unit, atol=tol, btol=tol, conlim=0, maxiter=limit)[:3]
    residual = float(np.linalg.norm(operator.matvec(z) - unit))
    return LinearSolution(z * size * peak, stop not in (3, 6, 7), int(count), residual, _REASONS[int(stop)])


def dense(matrix: Array, rhs: Array) -> LinearSolution:
    """Solve in the least-squares sense by a singular value decomposition; the reference."""
    value = lstsq(matrix, rhs, cond=RANK_TOLERANCE, lapack_driver="gelsd")[0]
    size = float(np.linalg.norm(rhs)) or 1.0
    residual = float(np.linalg.norm(matrix @ value - rhs)) / size
    return LinearSolution(value, True, 0, residual, "singular value decomposition")
