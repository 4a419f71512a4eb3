"""Derivatives as a user sees them: of one program, or of a batch in which some elements may have failed."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from conediff.derivative import BatchDerivative as StackDerivative
from conediff.derivative import Diagnostics
from conediff.program import Array, ConeData, Products


class DataTangent(NamedTuple):
    """Perturbations or cotangents of a program's data; P symmetric, P and A on their own sparsity."""

    dP: Any
    dA: Any
    db: Any
    dc: Any


class Derivative:
    """Derivative of the solution map of one program, at its solution."""

    def __init__(self, stack: StackDerivative, x: Array, y: Array) -> None:
        self._stack, self._x, self._y = stack, x, y

    def jvp(
        self,
        dP: Any = None,
        dA: Any = None,
        db: ArrayLike | None = None,
        dc: ArrayLike | None = None,
    ) -> tuple[Array, Array, Array]:
        r"""Apply the derivative to a perturbation of the data.

        .. math:: (dx, dy, ds) = \mathsf{D}S(P, A, b, c)\,(dP, dA, db, dc)

        Parameters
        ----------
        dP : sparse matrix or array, shape (n, n), optional
            Its symmetric part counts; None means zero, here and below.
        dA : sparse matrix or array, shape (m, n), optional
            Any sparsity.
        db : array, shape (m,), optional
        dc : array, shape (n,), optional

        Returns
        -------
        dx, dy, ds : arrays, shape (n,), (m,), (m,)

        Raises
        ------
        ValueError
            If a shape does not fit the program's.

        Warns
        -----
        DegeneracyWarning
            If the solution map is not differentiable here; the least-squares answer of least norm is
            returned.
        AccuracyWarning
            If a linear solve fell short of its tolerance.

        Notes
        -----
        One solve with the factorised reduced system; Busseti, Moursi, Boyd (2019).
        """
        structure, x, y = self._stack.structure, self._x, self._y
        n, m = structure.n, structure.m
        dPx, dAx, dAty = np.zeros(n), np.zeros(m), np.zeros(n)
        if dP is not None:
            dP = _shaped("dP", dP, (n, n))
            dPx = (dP @ x + dP.T @ x) / 2
        if dA is not None:
            dA = _shaped("dA", dA, (m, n))
            dAx, dAty = dA @ x, dA.T @ y
        change = Products(dPx[None], dAx[None], dAty[None], _row("db", db, m), _row("dc", dc, n))
        dx, dy, ds = self._stack.jvp(change)
        return dx[0], dy[0], ds[0]

    def vjp(
        self, dx: ArrayLike | None = None, dy: ArrayLike | None = None, ds: ArrayLike | None = None
    ) -> DataTangent:
        r"""Apply the adjoint of the derivative to a cotangent of the solution.

        .. math:: (dP, dA, db, dc) = \mathsf{D}S(P, A, b, c)^{*}\,(dx, dy, ds)

        Parameters
        ----------
        dx : array, shape (n,), optional
            Cotangent of x; None means zero, here and below.
        dy, ds : arrays, shape (m,), optional

        Returns
        -------
        DataTangent
            ``dA`` (m, n) on the sparsity of A; ``dP`` (n, n) symmetric, on that of P; ``db`` (m,);
            ``dc`` (n,).

        Raises
        ------
        ValueError
            If a shape does not fit the program's.

        Warns
        -----
        DegeneracyWarning
            If the solution map is not differentiable here; the least-squares answer of least norm is
            returned.
        AccuracyWarning
            If a linear solve fell short of its tolerance.

        Notes
        -----
        One solve with the factorised reduced system; Busseti, Moursi, Boyd (2019), and Healey, Nobel,
        Boyd (2025) for P.
        """
        structure = self._stack.structure
        g = self._stack.pull(
            _row("dx", dx, structure.n), _row("dy", dy, structure.m), _row("ds", ds, structure.m)
        )
        # Copies: the sparsity is the program's own, and SciPy has methods that change it in place.
        dP, dA = structure.P.matrix(g.P[0]).copy(), structure.A.matrix(g.A[0]).copy()
        return DataTangent(dP, dA, g.b[0], g.c[0])

    @property
    def diagnostics(self) -> Diagnostics:
        """Conditioning, strict complementarity, uniqueness and solver reports, as arrays of one element."""
        return self._stack.diagnostics


class BatchDerivative:
    """Derivatives of the solution maps of a batch; NaN where there is no solution."""

    def __init__(self, stack: StackDerivative) -> None:
        self._stack = stack

    def jvp(
        self, dP: Any = None, dA: Any = None, db: Any = None, dc: Any = None
    ) -> tuple[Array, Array, Array]:
        """Apply the derivatives; see `Derivative.jvp`.

        Parameters
        ----------
        dP, dA : arrays, shape (B, nnz), optional
            Values on the sparsity of P (both triangles) and of A, in CSC order.
        db, dc : arrays, shape (B, m), (B, n), optional

        Returns
        -------
        dx, dy, ds : arrays, shape (B, n), (B, m), (B, m)
        """
        structure, count = self._stack.structure, self._stack.count
        P, A = structure.P.nnz, structure.A.nnz
        return self._stack.push(
            ConeData(
                _rows("dP", dP, count, P),
                _rows("dA", dA, count, A),
                _rows("db", db, count, structure.m),
                _rows("dc", dc, count, structure.n),
            )
        )

    def vjp(self, dx: Any = None, dy: Any = None, ds: Any = None) -> DataTangent:
        """Apply the adjoints; see `Derivative.vjp`.

        Parameters
        ----------
        dx, dy, ds : arrays, shape (B, n), (B, m), (B, m), optional

        Returns
        -------
        DataTangent
            ``dP`` and ``dA`` as values (B, nnz) on the sparsity of P and A, in CSC order; ``db`` (B, m);
            ``dc`` (B, n).
        """
        structure, count = self._stack.structure, self._stack.count
        g = self._stack.pull(
            _rows("dx", dx, count, structure.n),
            _rows("dy", dy, count, structure.m),
            _rows("ds", ds, count, structure.m),
        )
        return DataTangent(g.P, g.A, g.b, g.c)

    @property
    def diagnostics(self) -> Diagnostics:
        """Of the elements that have a solution, in order."""
        return self._stack.diagnostics


def _shaped(name: str, value: Any, shape: tuple[int, int]) -> Any:
    matrix: Any = value if sp.issparse(value) else np.asarray(value, dtype=np.float64)
    if matrix.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, but has {matrix.shape}")
    return matrix


def _row(name: str, value: ArrayLike | None, size: int) -> Array:
    vector = np.zeros(size) if value is None else np.asarray(value, dtype=np.float64)
    if vector.shape != (size,):
        raise ValueError(f"{name} must have shape ({size},), but has {vector.shape}")
    return vector[None]


def _rows(name: str, value: Any, count: int, size: int) -> Array:
    rows = np.zeros((1, size)) if value is None else np.asarray(value, dtype=np.float64)
    if value is not None and rows.shape != (count, size):
        raise ValueError(f"{name} must have shape ({count}, {size}), but has {rows.shape}")
    return np.broadcast_to(rows, (count, size))
