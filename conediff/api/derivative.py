"""Derivatives as a user sees them: of one program, or of a batch in which some elements may have failed."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike

from conediff.derivative.chunked import ChunkedDerivative
from conediff.derivative.diagnostics import Diagnostics, Observability
from conediff.derivative.framed import FramedDerivative
from conediff.derivative.spread import SpreadDerivative
from conediff.program import Array, ConeData
from conediff.solver.batch_solver import BatchSolver
from conediff.solver.result import SolveResult
from conediff.solver.settings import Settings


class DataTangent(NamedTuple):
    """Perturbations or cotangents of a program's data; P symmetric, P and A on their own sparsity."""

    dP: Any
    dA: Any
    db: Any
    dc: Any


class PartialDerivative:
    """Derivative of those elements of a stack that have a solution; NaN for the others.

    Parameters
    ----------
    engine : BatchSolver
    data : ConeData
    stack : SolveResult
    settings : Settings
        ``method``, ``threads`` and ``executor`` are read.
    fill : float
        Cotangents of elements without a solution.
    visibility : Observability, optional
        See `FramedDerivative`.
    """

    def __init__(
        self,
        engine: BatchSolver,
        data: ConeData,
        stack: SolveResult,
        settings: Settings,
        fill: float = np.nan,
        visibility: Observability | None = None,
    ) -> None:
        self.index = np.flatnonzero(stack.usable)
        self.count, self._fill = len(stack.x), fill
        self._all = self.index.size == self.count
        take = slice(None) if self._all else self.index
        data = data if self._all else data.take(self.index)
        point = stack.x[take], stack.y[take], stack.s[take]
        factors = stack.take_factors() if self._all else None
        self.inner = ChunkedDerivative(engine, data, *point, settings, visibility, factors)
        self._answering: ChunkedDerivative | SpreadDerivative = self.inner
        if settings.executor is not None:
            self._answering = SpreadDerivative(self.inner, engine, data, *point, settings, visibility)

    def push(self, tangent: ConeData) -> tuple[Array, Array, Array]:
        """Apply the derivative; see `FramedDerivative.push`."""
        if self._all:
            return self._answering.push(tangent)
        dx, dy, ds = self._answering.push(tangent.take(self.index))
        return self._spread(dx, np.nan), self._spread(dy, np.nan), self._spread(ds, np.nan)

    def pull(self, gx: Array, gy: Array, gs: Array) -> ConeData:
        """Apply the adjoint; see `FramedDerivative.pull`."""
        if self._all:
            return self._answering.pull(gx, gy, gs)
        g = self._answering.pull(gx[self.index], gy[self.index], gs[self.index])
        return ConeData(*(self._spread(part, self._fill) for part in (g.P, g.A, g.b, g.c)))

    def _spread(self, rows: Array, fill: float) -> Array:
        result = np.full((self.count, rows.shape[1]), fill)
        result[self.index] = rows
        return result


class Derivative:
    """Derivative of the solution map of one program, at its solution."""

    def __init__(self, stack: FramedDerivative) -> None:
        self._stack = stack

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
        inner = self._stack
        n, m = inner.structure.n, inner.structure.m
        x, y = inner.x[0], inner.y[0]
        dPx, dAx, dAty = np.zeros(n), np.zeros(m), np.zeros(n)
        if dP is not None:
            dP = _shaped("dP", dP, (n, n))
            dPx = (dP @ x + dP.T @ x) / 2
        if dA is not None:
            dA = _shaped("dA", dA, (m, n))
            dAx, dAty = dA @ x, dA.T @ y
        dx, dy, ds = inner.jvp(dPx[None], dAx[None], dAty[None], _row("db", db, m), _row("dc", dc, n))
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

    def __init__(self, partial: PartialDerivative) -> None:
        self._partial = partial

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
        structure = self._partial.inner.structure
        count = self._partial.count
        P, A = structure.P.nnz, structure.A.nnz
        return self._partial.push(
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
        structure, count = self._partial.inner.structure, self._partial.count
        g = self._partial.pull(
            _rows("dx", dx, count, structure.n),
            _rows("dy", dy, count, structure.m),
            _rows("ds", ds, count, structure.m),
        )
        return DataTangent(g.P, g.A, g.b, g.c)

    @property
    def diagnostics(self) -> Diagnostics:
        """Of the elements that have a solution, in order."""
        return self._partial.inner.diagnostics


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
