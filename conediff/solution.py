"""Solutions as a user sees them, and their derivatives; what becomes of elements that failed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from conediff.batch import Engine, StackSolution
from conediff.derivative import Diagnostics, StackDerivative
from conediff.errors import AccuracyWarning, SolverError
from conediff.settings import Settings
from conediff.structure import Array, ConeData, Pattern
from conediff.threads import mapper


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
    engine : Engine
    data : ConeData
    stack : StackSolution
    settings : Settings
        ``method`` and ``threads`` are read.
    fill : float
        Cotangents of elements without a solution.
    """

    def __init__(
        self, engine: Engine, data: ConeData, stack: StackSolution, settings: Settings, fill: float = np.nan
    ) -> None:
        self.index = np.flatnonzero(stack.usable)
        self.count, self._fill = len(stack.x), fill
        self._all = self.index.size == self.count
        take = slice(None) if self._all else self.index
        self.inner = StackDerivative(
            engine.kkt,
            data if self._all else data.take(self.index),
            stack.x[take],
            stack.y[take],
            stack.s[take],
            settings.method,
            mapper(settings.threads),
        )

    def push(self, tangent: ConeData) -> tuple[Array, Array, Array]:
        """Apply the derivative; see `StackDerivative.push`."""
        if self._all:
            return self.inner.push(tangent)
        dx, dy, ds = self.inner.push(tangent.take(self.index))
        return self._spread(dx, np.nan), self._spread(dy, np.nan), self._spread(ds, np.nan)

    def pull(self, gx: Array, gy: Array, gs: Array) -> ConeData:
        """Apply the adjoint; see `StackDerivative.pull`."""
        if self._all:
            return self.inner.pull(gx, gy, gs)
        g = self.inner.pull(gx[self.index], gy[self.index], gs[self.index])
        return ConeData(*(self._spread(part, self._fill) for part in (g.P, g.A, g.b, g.c)))

    def _spread(self, rows: Array, fill: float) -> Array:
        result = np.full((self.count, rows.shape[1]), fill)
        result[self.index] = rows
        return result


class Derivative:
    """Derivative of the solution map of one program, at its solution."""

    def __init__(self, stack: StackDerivative) -> None:
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
            If the solution map is not differentiable here; the least-squares answer of least norm is returned.
        AccuracyWarning
            If a linear solve fell short of its tolerance.

        Notes
        -----
        One solve with the factorised reduced system; Busseti, Moursi, Boyd (2019), section 4.
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
        dx, dy, ds = inner.jvp(
            dPx[None], dAx[None], dAty[None], _row("db", db, m), _row("dc", dc, n)
        )
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
            ``dA`` (m, n) on the sparsity of A; ``dP`` (n, n) symmetric, on that of P; ``db`` (m,); ``dc`` (n,).

        Raises
        ------
        ValueError
            If a shape does not fit the program's.

        Warns
        -----
        DegeneracyWarning
            If the solution map is not differentiable here; the least-squares answer of least norm is returned.
        AccuracyWarning
            If a linear solve fell short of its tolerance.

        Notes
        -----
        One solve with the factorised reduced system; Busseti, Moursi, Boyd (2019), section 4, and Healey,
        Nobel, Boyd (2025) for P.
        """
        structure = self._stack.structure
        g = self._stack.pull(
            _row("dx", dx, structure.n), _row("dy", dy, structure.m), _row("ds", ds, structure.m)
        )
        return DataTangent(structure.P.matrix(g.P[0]), structure.A.matrix(g.A[0]), g.b[0], g.c[0])

    @property
    def diagnostics(self) -> Diagnostics:
        """Conditioning, strict complementarity, uniqueness and solver reports, as arrays of one element."""
        return self._stack.diagnostics


class Solution:
    """The solution of one cone program.

    Attributes
    ----------
    x, y, s : arrays, shape (n,), (m,), (m,)
        Primal, dual and slack. Of an infeasible program y is a certificate, of an unbounded one x and s are.
    status : str
        solved, inaccurate, infeasible, unbounded or failed.
    info : dict
        iterations, refinements, residual, setup_time, solve_time, refine_time (seconds).
    """

    def __init__(self, parent: Solutions, index: int) -> None:
        self._parent, self._index = parent, index
        stack = parent._stack
        self.x, self.y, self.s = stack.x[index], stack.y[index], stack.s[index]
        self.status = str(stack.status[index])
        self.info = {
            key: value[index].item() if isinstance(value, np.ndarray) else value
            for key, value in parent.info.items()
            if key != "status"
        }

    def derivative(self, method: str | None = None) -> Derivative:
        """Return the derivative of the solution map here.

        Parameters
        ----------
        method : {"auto", "direct", "lsqr", "lsmr", "dense"}, optional
            The one given to `solve` by default. "direct" solves the reduced system; "lsqr" and "lsmr" iterate
            on the derivative of the embedding; "dense" is the reference, by singular values; "auto" is direct, and
            LSQR where the reduced system is singular.

        Raises
        ------
        SolverError
            If there is no solution to differentiate at.
        """
        if self.status not in ("solved", "inaccurate"):
            raise SolverError(f"there is no derivative: the program is {self.status}", solutions=self)
        parent, index = self._parent, np.array([self._index])
        settings = parent._settings.updated({} if method is None else {"method": method})
        stack = StackDerivative(
            parent._engine.kkt,
            parent._data.take(index),
            self.x[None],
            self.y[None],
            self.s[None],
            settings.method,
            mapper(settings.threads),
        )
        return Derivative(stack)

    def __repr__(self) -> str:
        return f"Solution(status={self.status!r}, residual={self.info['residual']:.1e})"


class BatchDerivative:
    """Derivatives of the solution maps of a batch; NaN where there is no solution."""

    def __init__(self, partial: PartialDerivative) -> None:
        self._partial = partial

    def jvp(self, dP: Any = None, dA: Any = None, db: Any = None, dc: Any = None) -> tuple[Array, Array, Array]:
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


class Solutions:
    """The solutions of a batch of programs of one structure: a sequence of `Solution`, and stacked arrays.

    Attributes
    ----------
    x, y, s : arrays, shape (B, n), (B, m), (B, m)
    status : array of str, shape (B,)
    info : dict
        Per element: status, iterations, refinements, residual; for the batch: setup_time, solve_time and
        refine_time, in seconds.
    """

    def __init__(self, engine: Engine, data: ConeData, stack: StackSolution, settings: Settings) -> None:
        self._engine, self._data, self._stack, self._settings = engine, data, stack, settings
        self.x, self.y, self.s, self.status = stack.x, stack.y, stack.s, stack.status

    @cached_property
    def info(self) -> dict[str, Any]:
        """How the solve went."""
        return stack_info(self._stack)

    @property
    def failed(self) -> NDArray[np.bool_]:
        """Where there is no solution, shape (B,)."""
        return ~self._stack.usable

    def derivative(self, method: str | None = None) -> BatchDerivative:
        """Return the derivatives of all solution maps; see `Solution.derivative`."""
        settings = self._settings.updated({} if method is None else {"method": method})
        fill = 0.0 if settings.on_failure == "zero_grad" else np.nan
        return BatchDerivative(PartialDerivative(self._engine, self._data, self._stack, settings, fill))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Solution:
        return Solution(self, range(len(self))[index])

    def __iter__(self) -> Iterator[Solution]:
        return (self[i] for i in range(len(self)))


def stack_info(stack: StackSolution) -> dict[str, Any]:
    """Describe how the solve of a stack went."""
    return {
        "status": stack.status,
        "iterations": stack.iterations,
        "refinements": stack.refinements,
        "residual": stack.residual,
        "setup_time": stack.setup_time,
        "solve_time": stack.solve_time,
        "refine_time": stack.refine_time,
    }


def settle_failures(
    stack: StackSolution, settings: Settings, solutions: Any, shape: tuple[int, ...] | None = None
) -> str:
    """Do what the user wants done about elements without an accurate solution.

    Parameters
    ----------
    stack : StackSolution
    settings : Settings
        ``on_failure`` and ``tol`` are read.
    solutions : object
        What the error carries, and what a callable is given.
    shape : tuple of int, optional
        Batch shape in which elements are named; (B,) by default.

    Returns
    -------
    str
        "nan" or "zero_grad": what cotangents of failed elements are to be.

    Raises
    ------
    SolverError
        If elements failed and ``on_failure`` is "raise".

    Warns
    -----
    AccuracyWarning
        If a solution is less accurate than ``tol``.
    """
    inaccurate = np.flatnonzero(stack.status == "inaccurate")
    if inaccurate.size:
        worst = stack.residual[inaccurate].max()
        warnings.warn(
            f"{inaccurate.size} of {len(stack.x)} solutions are less accurate than tol={settings.tol:g}: relative "
            f"KKT residual up to {worst:.1e}; see info, scale the problem, or allow more iterations",
            AccuracyWarning,
            stacklevel=4,
        )
    failed = np.flatnonzero(~stack.usable)
    answer: Any = settings.on_failure
    if failed.size and callable(answer):
        answer = answer(solutions) or "nan"
        if answer not in ("raise", "nan", "zero_grad"):
            raise ValueError(f"on_failure must answer 'raise', 'nan' or 'zero_grad', not {answer!r}")
    if failed.size and answer == "raise":
        raise _solver_error(stack, failed, shape or (len(stack.x),), solutions)
    return "zero_grad" if answer == "zero_grad" else "nan"


def _solver_error(
    stack: StackSolution, failed: NDArray[np.intp], shape: tuple[int, ...], solutions: Any
) -> SolverError:
    indices = tuple(tuple(int(i) for i in np.unravel_index(k, shape)) for k in failed) if shape else ((),)
    statuses = tuple(str(status) for status in stack.status[failed])
    if len(stack.x) == 1 and shape in ((), (1,)):
        what = f"the problem is {statuses[0]}"
    else:
        listed = [f"{index[0] if len(index) == 1 else index} ({status})" for index, status in zip(indices, statuses)]
        what = f"{len(failed)} of {len(stack.x)} elements have no solution: " + ", ".join(listed[:10])
        what += ", ..." if len(listed) > 10 else ""
    return SolverError(
        f"{what}; certificates are in .solutions of this error. Pass on_failure='nan' or 'zero_grad' to keep the "
        "other elements",
        indices,
        statuses,
        solutions,
    )


def _shaped(name: str, value: Any, shape: tuple[int, int]) -> Any:
    matrix = value if sp.issparse(value) else np.asarray(value, dtype=np.float64)
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
