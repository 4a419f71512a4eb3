"""Derivatives as a user sees them: of one program, or of a batch in which some elements may have failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from conediff.api.given import (
    COTANGENTS,
    TANGENTS,
    Curvature,
    Given,
    listed,
    own_curvature,
    row,
    rows,
    shaped,
)
from conediff.derivative import Diagnostics, StackDerivative
from conediff.derivative.kkt_derivative import Tangent
from conediff.derivative.second_order import hvp
from conediff.program import Array, ConeData, Products, products


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

    def __repr__(self) -> str:
        return f"Derivative(n={len(self._x)}, m={len(self._y)})"

    def jvp(
        self, dP: Any = None, dA: Any = None, db: ArrayLike | None = None, dc: ArrayLike | None = None
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
        change = self._change((dP, dA, db, dc))
        dx, dy, ds = self._stack.jvp(change(self._x[None], self._y[None]))
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
        return self._data(self._stack.pull(*self._cotangent((dx, dy, ds))))

    def hvp(self, cotangents: Given, tangents: Given, curvature: Curvature | None = None) -> DataTangent:
        r"""Multiply the Hessian of a loss of the solution, as a function of the data, with a perturbation.

        .. math:: \nabla^2 (\ell \circ S)(P, A, b, c)\,(dP, dA, db, dc)

        Parameters
        ----------
        cotangents : sequence or mapping
            The gradient of the loss at the solution, as `vjp` takes it: (dx, dy, ds), or a mapping with some
            of these names. None means zero.
        tangents : sequence or mapping
            The perturbation, as `jvp` takes it: (dP, dA, db, dc), or a mapping with some of these names.
        curvature : callable, optional
            The loss's own Hessian, zero by default: ``curvature(dx, dy, ds)`` is given a tangent of the
            solution and returns that of the gradient, in the form of ``cotangents``.

        Returns
        -------
        DataTangent
            As of `vjp`.

        Raises
        ------
        ConeError
            If a cone that was added to the registry has no ``bend``.
        ValueError
            If a shape does not fit the program's, or a name is unknown.

        Warns
        -----
        DegeneracyWarning, AccuracyWarning
            As `vjp`; "Second derivatives" in the guide says what is returned.

        Notes
        -----
        Three solves with the factorised reduced system, two if the last call was of the same cotangents.

        Examples
        --------
        The projection of -c onto x >= 0, and the Hessian of the sum of x² / 2 in c:

        >>> import numpy as np, conediff as cd
        >>> program = cd.ConeProgram(-np.eye(2), np.zeros(2), [-1.0, 1.0], {"l": 2}, np.eye(2))
        >>> solution = cd.solve(program)
        >>> derivative, direction = solution.derivative(), {"dc": np.ones(2)}
        >>> product = derivative.hvp({"dx": solution.x}, direction, lambda dx, dy, ds: {"dx": dx})
        >>> product.dc.round(6) + 0.0
        array([1., 0.])
        """
        own = own_curvature(curvature, lambda part: part[0], self._cotangent)
        g = Tangent(*self._cotangent(listed(COTANGENTS, cotangents)))
        change = self._change(listed(TANGENTS, tangents))
        return self._data(hvp(self._stack, change, (self._x[None], self._y[None]), g, own))

    def _change(self, tangent: Sequence[Any]) -> Callable[[Array, Array], Products]:
        """Return the products of a perturbation of the data with any two vectors, each a stack of one."""
        dP, dA, db, dc = tangent
        n, m = self._stack.structure.n, self._stack.structure.m
        if dP is not None:
            dP = shaped("dP", dP, (n, n))
        if dA is not None:
            dA = shaped("dA", dA, (m, n))
        b, c = row("db", db, m), row("dc", dc, n)

        def change(x: Array, y: Array) -> Products:
            Px, Ax, Aty = np.zeros(n), np.zeros(m), np.zeros(n)
            if dP is not None:
                Px = (dP @ x[0] + dP.T @ x[0]) / 2
            if dA is not None:
                Ax, Aty = dA @ x[0], dA.T @ y[0]
            return Products(Px[None], Ax[None], Aty[None], b, c)

        return change

    def _cotangent(self, cotangents: Sequence[Any]) -> list[Array]:
        n, m = self._stack.structure.n, self._stack.structure.m
        given = zip(COTANGENTS, cotangents, (n, m, m), strict=True)
        return [row(name, value, size) for name, value, size in given]

    def _data(self, g: ConeData) -> DataTangent:
        structure = self._stack.structure
        # Copies: the sparsity is the program's own, and SciPy has methods that change it in place.
        dP, dA = structure.P.matrix(g.P[0]).copy(), structure.A.matrix(g.A[0]).copy()
        return DataTangent(dP, dA, g.b[0], g.c[0])

    @property
    def diagnostics(self) -> Diagnostics:
        """Conditioning, strict complementarity, uniqueness and solver reports, as arrays of one element."""
        return self._stack.diagnostics


class BatchDerivative:
    """Derivatives of the solution maps of a batch; NaN where there is no solution."""

    def __init__(self, stack: StackDerivative, x: Array, y: Array) -> None:
        self._stack, self._at = stack, (x, y)

    def __repr__(self) -> str:
        return f"BatchDerivative({self._stack.count} programs)"

    def jvp(self, dP: Any = None, dA: Any = None, db: Any = None, dc: Any = None) -> Tangent:
        """Apply the derivatives; see `Derivative.jvp`, also for errors and warnings.

        Parameters
        ----------
        dP, dA : arrays, shape (B, nnz), optional
            Values on the sparsity of P (both triangles, of which the symmetric part counts) and of A, in CSC
            order.
        db, dc : arrays, shape (B, m), (B, n), optional

        Returns
        -------
        dx, dy, ds : arrays, shape (B, n), (B, m), (B, m)
        """
        return self._stack.push(self._change((dP, dA, db, dc)))

    def vjp(self, dx: Any = None, dy: Any = None, ds: Any = None) -> DataTangent:
        """Apply the adjoints; see `Derivative.vjp`, also for errors and warnings.

        Parameters
        ----------
        dx, dy, ds : arrays, shape (B, n), (B, m), (B, m), optional

        Returns
        -------
        DataTangent
            ``dP`` and ``dA`` as values (B, nnz) on the sparsity of P and A, in CSC order; ``db`` (B, m);
            ``dc`` (B, n).
        """
        g = self._stack.pull(*self._cotangent((dx, dy, ds)))
        return DataTangent(g.P, g.A, g.b, g.c)

    def hvp(self, cotangents: Given, tangents: Given, curvature: Curvature | None = None) -> DataTangent:
        """Multiply Hessians with perturbations, element by element; see `Derivative.hvp`, also for errors.

        Parameters
        ----------
        cotangents, tangents : sequence or mapping
            Of arrays as `vjp` and `jvp` take them.
        curvature : callable, optional
            Is given the tangents of all solutions, shapes (B, n), (B, m), (B, m).

        Returns
        -------
        DataTangent
            As of `vjp`.
        """
        own = own_curvature(curvature, lambda part: part, self._cotangent)
        change, structure = self._change(listed(TANGENTS, tangents)), self._stack.structure
        g = Tangent(*self._cotangent(listed(COTANGENTS, cotangents)))
        found = hvp(self._stack, partial(products, structure, change), self._at, g, own)
        return DataTangent(found.P, found.A, found.b, found.c)

    def _change(self, tangent: Sequence[Any]) -> ConeData:
        """Read a perturbation; of dP its symmetric part."""
        (dP, dA, db, dc), structure, count = tangent, self._stack.structure, self._stack.count
        P = rows("dP", dP, count, structure.P.nnz)
        return ConeData(
            (P + P[:, structure.P.mirror]) / 2,
            rows("dA", dA, count, structure.A.nnz),
            rows("db", db, count, structure.m),
            rows("dc", dc, count, structure.n),
        )

    def _cotangent(self, cotangents: Sequence[Any]) -> list[Array]:
        n, m, count = self._stack.structure.n, self._stack.structure.m, self._stack.count
        given = zip(COTANGENTS, cotangents, (n, m, m), strict=True)
        return [rows(name, value, count, size) for name, value, size in given]

    @property
    def diagnostics(self) -> Diagnostics:
        """Of the elements that have a solution, in order."""
        return self._stack.diagnostics
