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

import numpy as np
from scipy.sparse.linalg import LinearOperator

from conediff.cones import ProductDerivative
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

    def least_squares(self, rhs: Array, method: str, adjoint: bool) -> LinearSolution:
        """Solve M z = rhs, or M'z = rhs: of all least-squares solutions, the one of least norm.

        Parameters
        ----------
        rhs : array, shape (n + m + 1,)
        method : {"dense", "lsmr", ...}
            LSQR where it is neither of these.
        adjoint : bool
        """
        # The last row and column hold b, c and products of solutions. Without a weight, large data would
        # dominate the tests for rank and convergence.
        weight = np.ones(self.size)
        weight[-1] = 1 / self.largest
        if method == "dense":
            matrix = weight[:, None] * self.dense() * weight
            report = dense(matrix.T if adjoint else matrix, weight * rhs)
        else:
            operator = self.operator(weight)
            by = "lsmr" if method == "lsmr" else "lsqr"
            report = iterative(operator.T if adjoint else operator, weight * rhs, by)
        return replace(report, value=report.value * weight)
