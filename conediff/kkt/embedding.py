r"""The derivative of the homogeneous self-dual embedding, as operators.

With z = (u, v, w) and Πz = (u, Π(v), max(w, 0)), a solution of the program is a zero with w > 0 of

.. math:: N(z) = Q(\Pi z) - \Pi z + z, \qquad
          Q(x, y, \tau) = (P x + A^\top y + c\tau,\; -A x + b\tau,\; -x^\top P x/\tau - c^\top x - b^\top y).

At w = 1, with D = DΠ(v), its derivative is

.. math:: M = \begin{pmatrix} P & A^\top D & c \\ -A & I - D & b \\
          -2x^\top P - c^\top & -b^\top D & x^\top P x \end{pmatrix}.

N is homogeneous, so z is always in the null space of M. The least-squares answer of least norm exists at
every point, also where the solution map is not differentiable. Sources: Busseti, Moursi, Boyd (2019);
O'Donoghue (2021) and Healey, Nobel, Boyd (2025) for P.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator

from conediff.cones import ProductDerivative
from conediff.kkt.constants import (
    DAMPED_FILL,
    DAMPING,
    DAMPING_NEARBY,
    LEAST_ITERATIONS,
    LSQR_WORK,
    ROUNDING,
    SOLVED,
    STEP_WORK,
)
from conediff.kkt.damped import DampedFactor, DampedLeastSquares, predicted_fill
from conediff.kkt.least_squares import LinearSolution, dense, iterative
from conediff.program import Array, ConeData, Structure


class Embedding:
    """M of one program, as an operator of shape (n + m + 1, n + m + 1).

    Parameters
    ----------
    structure : Structure
    data : ConeData
        Of one program.
    x, y : arrays, shape (n,), (m,)
        Its solution.
    derivative : ProductDerivative
        D at v = y - s, for a stack of one.
    """

    def __init__(
        self, structure: Structure, data: ConeData, x: Array, y: Array, derivative: ProductDerivative
    ) -> None:
        self.P, self.A = structure.P.matrix(data.P[0]), structure.A.matrix(data.A[0])
        self.b, self.c, self.x, self.y = data.b[0], data.c[0], x, y
        self.n, self.size = structure.n, structure.n + structure.m + 1
        self.Px = self.P @ x
        self._derivative = derivative

    def D(self, h: Array) -> Array:
        """Return D h, shape (m,)."""
        result: Array = self._derivative.apply(h[None])[0]
        return result

    def matvec(self, z: Array) -> Array:
        """Return M z."""
        u, v, w = z[: self.n], z[self.n : -1], z[-1]
        Dv = self.D(v)
        top = self.P @ u + self.A.T @ Dv + self.c * w
        middle = -(self.A @ u) + v - Dv + self.b * w
        last = -2 * (self.Px @ u) - self.c @ u - self.b @ Dv + (self.x @ self.Px) * w
        return np.concatenate([top, middle, [last]])

    def rmatvec(self, r: Array) -> Array:
        """Return M'r."""
        r1, r2, r3 = r[: self.n], r[self.n : -1], r[-1]
        top = self.P @ r1 - self.A.T @ r2 - (2 * self.Px + self.c) * r3
        middle = self.D(self.A @ r1 - r2 - self.b * r3) + r2
        last = self.c @ r1 + self.b @ r2 + (self.x @ self.Px) * r3
        return np.concatenate([top, middle, [last]])

    @property
    def largest(self) -> float:
        """Largest entry of the last row and column, at least one."""
        parts = (self.b, self.c, self.Px)
        return max(
            1.0, float(np.sqrt(abs(self.x @ self.Px))), *(float(np.abs(p).max(initial=0)) for p in parts)
        )

    def operator(self, weight: Array | None = None) -> LinearOperator:
        """Return M, or diag(weight) M diag(weight), for SciPy's iterative solvers."""
        w = np.ones(self.size) if weight is None else weight
        return LinearOperator(
            (self.size, self.size),
            matvec=lambda z: w * self.matvec(w * z),
            rmatvec=lambda r: w * self.rmatvec(w * r),
            dtype=np.float64,
        )

    def dense(self) -> Array:
        """Return M as an array; for tests and small programs."""
        return np.stack([self.matvec(e) for e in np.eye(self.size)], axis=1)

    def sparse(self) -> tuple[sp.csc_array, bool]:
        """Return M as a sparse array, and whether it is M itself.

        Blocks of D of large cones are replaced by a I with one eigenvalue a, as in K (see `kkt.matrix`).
        """
        D, is_exact = _sparse_projection(self._derivative, self.size - self.n - 1)
        b, c, last = (sp.csc_array(v[:, None]) for v in (self.b, self.c, -2 * self.Px - self.c))
        corner = sp.csc_array(np.array([[self.x @ self.Px]]))
        middle = sp.eye_array(D.shape[0]) - D
        rows = [[self.P, self.A.T @ D, c], [-self.A, middle, b], [last.T, -(D @ b).T, corner]]
        return sp.csc_array(sp.vstack([sp.hstack(row) for row in rows])), is_exact

    @property
    def weight(self) -> Array:
        """Factors of rows and columns, shape (N,): one, and for the last row and column 1 / `largest`.

        The last row and column hold b, c and products of solutions. Without a weight, large data would
        dominate the tests for rank and convergence.
        """
        weight = np.ones(self.size)
        weight[-1] = 1 / self.largest
        return weight

    @cached_property
    def damped(self) -> DampedLeastSquares | None:
        """Least-squares solves by a factorisation, made once; None where it would be too large."""
        matrix, is_exact = self.sparse()
        if predicted_fill(matrix) > DAMPED_FILL:
            return None
        scale = sp.diags_array(self.weight)
        matrix = sp.csc_array(scale @ matrix @ scale)
        matrix.data[np.abs(matrix.data) < ROUNDING] = 0
        matrix.eliminate_zeros()
        factor = DampedFactor(matrix, DAMPING if is_exact else DAMPING_NEARBY)
        if not factor.is_usable:
            return None
        return DampedLeastSquares(self.operator(self.weight), factor, is_exact, self.lsqr_iterations)

    @property
    def lsqr_iterations(self) -> int:
        """Iterations of LSQR for "auto", at most; bounded by their work, for time is not deterministic."""
        work = STEP_WORK + 2.0 * (self.P.nnz + 2 * self.A.nnz)
        for cone, rows, _ in self._derivative.groups:
            # Products with symmetric matrices of order √(2 dim), or dense blocks.
            per_cone = rows.shape[1] if cone.diagonal else min(rows.shape[1] ** 2, 16 * rows.shape[1] ** 1.5)
            work += 2.0 * rows.shape[0] * per_cone
        return max(LEAST_ITERATIONS // 10, int(LSQR_WORK / work))

    def least_squares(self, rhs: Array, method: str, adjoint: bool) -> LinearSolution:
        """Solve M z = rhs, or M'z = rhs: of all least-squares solutions, the one of least norm.

        Parameters
        ----------
        rhs : array, shape (n + m + 1,)
        method : {"auto", "dense", "lsqr", "lsmr"}
            "auto" is by the damped factorisation, or where M is too large for it by LSQR in a bounded number
            of iterations.
        adjoint : bool
        """
        weight = self.weight
        operator = self.operator(weight)
        if method == "dense":
            matrix = weight[:, None] * self.dense() * weight
            report = dense(matrix.T if adjoint else matrix, weight * rhs)
        elif method != "auto":
            report = iterative(operator.T if adjoint else operator, weight * rhs, method)
        elif self.damped is not None:
            report = self.damped.solve(weight * rhs, adjoint)
        else:
            report = iterative(
                operator.T if adjoint else operator, weight * rhs, max_iters=self.lsqr_iterations
            )
            # LSQR's own tests are relative to the norm of M and so blind to small singular values.
            report = replace(report, converged=report.residual <= SOLVED)
        return replace(report, value=report.value * weight)


def _sparse_projection(derivative: ProductDerivative, count: int) -> tuple[sp.csc_array, bool]:
    """Return D as a sparse array of shape (m, m), for a stack of one, and whether it is D itself."""
    diagonal, is_exact = np.zeros(count), True
    values, i, j = [diagonal], [np.arange(count)], [np.arange(count)]
    for cone, rows, group in derivative.groups:
        if cone.diagonal:
            diagonal[rows] = group.apply(np.ones(rows.shape)).reshape(rows.shape)
        elif cone.is_large:
            diagonal[rows] = group.replacement_eigenvalue(rows.shape).reshape(-1, 1)
            is_exact = False
        else:
            blocks = group.dense()[0].reshape(*rows.shape, rows.shape[1])
            values.append(blocks.ravel())
            i.append(np.broadcast_to(rows[:, :, None], blocks.shape).ravel())
            j.append(np.broadcast_to(rows[:, None, :], blocks.shape).ravel())
    entries = np.concatenate(values), (np.concatenate(i), np.concatenate(j))
    return sp.csc_array(entries, shape=(count, count)), is_exact
