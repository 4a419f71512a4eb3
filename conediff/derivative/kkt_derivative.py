r"""The derivative of the solution map, forward and reverse, at the solutions of one part of a stack.

With J the Jacobian of the KKT residual (see `kkt.residual`), a perturbation of the data moves the solution by
J (dx, dv) = -(dP x + dA'y + dc, dA x - db), and dy = D dv, ds = D dv - dv. Both modes go through the reduced
symmetric system (see `kkt.matrix`):

.. math::
    \text{JVP:}\quad & K (dx, t) = (h_1, S h_2), & dv &= S t + A\,dx - h_2, \\
    \text{VJP:}\quad & K (r_1, t) = (g_x - A^\top g_s, S g_y), & r_2 &= S t + g_s,

after which g_c = -r1, g_b = r2, g_A = -(y r1' + r2 x') and g_P = -(r1 x' + x r1')/2.

Where K is singular the map is not differentiable, and the answer is the least-squares one of least norm on M,
the derivative of the homogeneous self-dual embedding (see `kkt.embedding`). There r has a third part, along
the left null vector (x, y, 1) of M; subtracting it turns M's r into K's. Sources: Agrawal, Barratt, Boyd,
Busseti, Moursi (2019); Healey, Nobel, Boyd (2025).

All of this happens in the cone scaling (E, T) in which y and s are of one size (see `scaling`), where

.. math::
    \hat g_x = E g_x, \quad \hat g_y = T g_y, \quad \hat g_s = T^{-\top} g_s, \qquad
    r_1 = E \hat r_1, \quad r_2 = T^\top \hat r_2.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from conediff.derivative.constants import SCALED_RESIDUAL, SOLUTION_ERROR
from conediff.derivative.diagnostics import Diagnostics, Observability, ScaledObservability, peak
from conediff.derivative.kinks import Answer, Kinks, changed_by_kinks
from conediff.derivative.least_squares import LeastSquares
from conediff.derivative.linearised_kkt import LinearisedKKT
from conediff.derivative.report import KINKED, NOT_UNIQUE, Report
from conediff.kkt.constants import SOLVED
from conediff.kkt.factor import KKTFactor
from conediff.kkt.residual import Residual
from conediff.kkt.system import KKTSystem
from conediff.program import Array, ConeData, Indices, Point, Products, Structure, outer, scaled
from conediff.scaling import ComposedScaling, ConeScaling, Equilibration
from conediff.solver.batch_solver import BatchSolver


class Tangent(NamedTuple):
    """A tangent of the solutions, shapes (B, n), (B, m), (B, m)."""

    dx: Array
    dy: Array
    ds: Array


class Multipliers(NamedTuple):
    """Multipliers of a linearised KKT system, (B, n) and (B, m); `program.outer` makes cotangents of them."""

    r1: Array
    r2: Array


class KKTDerivative:
    """Derivative of the solution map at the solutions of one part of a stack; pure: it never warns.

    Parameters
    ----------
    linearised : LinearisedKKT
        In the cone scaling.
    scaling : ComposedScaling
    method : {"auto", "direct", "lsqr", "lsmr", "dense"}
        "direct" solves with K alone; "lsqr" and "lsmr" iterate on M; "dense" is the reference, a singular
        value decomposition of M; "auto" is direct, and by a damped factorisation of M where
        K is singular.
    observability : Observability, optional
        Which data and which parts of the solution matter, in the cone scaling; all by default.
    """

    def __init__(
        self,
        linearised: LinearisedKKT,
        scaling: ComposedScaling,
        method: str = "auto",
        observability: Observability | None = None,
    ) -> None:
        self.linearised, self.scaling = linearised, scaling
        self.method, self.observability, self.kinks = method, observability, Kinks(linearised)
        self._least_squares = LeastSquares(linearised, method)

    @classmethod
    def at(
        cls,
        solver: BatchSolver,
        data: ConeData,
        point: Point,
        method: str = "auto",
        observability: Observability | None = None,
        nearby: KKTFactor | None = None,
        equilibration: Equilibration | None = None,
    ) -> KKTDerivative:
        """Return the derivative at solutions, in the cone scaling in which y and s are of one size.

        Parameters
        ----------
        solver : BatchSolver
            Of the programs' structure.
        data : ConeData
        point : Point
            The solutions.
        method, observability
            See `KKTDerivative`; the observability is that of the unscaled programs.
        nearby : KKTFactor, optional
            K at points nearby, of the equilibrated programs.
        equilibration : Equilibration, optional
            Of the data; computed if it is not given.
        """
        scalings = solver.scalings
        if equilibration is None:
            equilibration = solver.equilibrator.equilibration(data)
        data, point = equilibration.scale_data(data), equilibration.scale_point(point)
        cone_scaling = _accepted(scalings.primal_dual(data, *point), solver.system, data, point)
        scaling, is_plain = ComposedScaling(equilibration, cone_scaling), cone_scaling.is_identity
        if observability is not None and not (
            equilibration.is_identity and is_plain and scalings.scaled_structure is scalings.structure
        ):
            observability = ScaledObservability(observability, scaling)
        there, scaled_data = cone_scaling.scale_point(point), cone_scaling.scale_data(data)
        linearised = LinearisedKKT(solver.system, scaled_data, there, nearby if is_plain else None)
        return cls(linearised, scaling, method, observability)

    def jvp(self, products: Products) -> tuple[Tangent, Report]:
        """Apply the derivative to a perturbation of the data.

        Parameters
        ----------
        products : Products
            dP x, dA x, dA'y, db and dc.
        """
        report = self._new_report()
        tangent = self._jvp(self.scaling.scale_products(products), report)
        return Tangent(*self.scaling.unscale_point(Point(*tangent))), report

    def vjp(self, gx: Array, gy: Array, gs: Array) -> tuple[Multipliers, Report]:
        """Apply the adjoint to cotangents of the solutions, shapes (B, n), (B, m), (B, m)."""
        report = self._new_report()
        multipliers = self._vjp(*self.scaling.scale_cotangent(gx, gy, gs), report)
        return Multipliers(*self.scaling.unscale_multipliers(*multipliers)), report

    def diagnostics(self) -> Diagnostics:
        """Return how well the derivative is defined."""
        linearised, n = self.linearised, self._structure.n
        value, vector, singular = (
            linearised.smallest_singular_value,
            linearised.null_vector,
            linearised.singular,
        )
        unit = np.sqrt(np.finfo(float).eps)
        return Diagnostics(
            condition=1 / np.maximum(value, np.finfo(float).tiny),
            strict_complementarity=self.kinks.distance(),
            primal_unique=~singular | (np.abs(vector[:, :n]).max(axis=1, initial=0) < unit),
            dual_unique=~singular | (np.abs(vector[:, n:]).max(axis=1, initial=0) < unit),
            differentiable=~singular & ~self.kinks.found,
            degenerate=np.zeros(len(value), dtype=bool),
            reports={},
        )

    def _new_report(self) -> Report:
        """Return a report of the programs whose solution may be inaccurate though its residual is small."""
        report = Report()
        if self.method in ("auto", "direct"):  # the others do without K
            error = self.linearised.solution_error
            report.add_uncertain(np.flatnonzero(error > SOLUTION_ERROR), error)
        return report

    @property
    def _structure(self) -> Structure:
        return self.linearised.structure

    def _jvp(self, products: Products, report: Report, at_kink: bool = True) -> Tangent:
        """Apply the derivative within the cone scaling; with ``at_kink`` also look for kinks that matter."""
        linearised, (x, y, s) = self.linearised, self.linearised.point
        D, n = linearised.D, self._structure.n
        (dPx, dAx, dAty, db, dc), size = scaled(len(x), *products)
        h1, h2 = -(dPx + dAty + dc), db - dAx
        dx, dv = np.zeros_like(h1), np.zeros_like(h2)
        pending = np.arange(len(dx))
        if self.method in ("auto", "direct"):
            z, pending = self._direct(np.hstack([h1, D.apply_root(h2)]), report, adjoint=False)
            dx = z[:, :n]
            dv = D.apply_root(z[:, n:]) + linearised.A(dx) - h2
        if pending.size:
            # M dz = -dq; h2 changes its sign because M's middle row is minus K's.
            last = (x * (dPx + dc)).sum(axis=1) + (y * db).sum(axis=1)
            rhs = np.column_stack([h1, -h2, last])
            for i, (du, dv_i, dw) in self._least_squares.solve(pending, rhs, report, adjoint=False):
                dx[i], dv[i] = du - x[i] * dw, dv_i - (y[i] - s[i]) * dw
        dy = D.apply(dv)
        if at_kink and self.kinks.found.any():

            def one_sided(index: Indices, kinked: NDArray[np.bool_], sign: float) -> Answer:
                parts = Products(dPx[index], dAx[index], dAty[index], db[index], dc[index])
                answer = self._beside(index, kinked, sign)._jvp(parts, Report(), at_kink=False)
                return answer[:2], np.maximum(peak(dx[index]), peak(dy[index]))

            kinked = self.kinks.rows(dv)
            report.add_degenerate(changed_by_kinks(kinked, one_sided, self.observability), KINKED)
        return Tangent(dx * size, dy * size, (dy - dv) * size)

    def _vjp(self, gx: Array, gy: Array, gs: Array, report: Report, at_kink: bool = True) -> Multipliers:
        """Apply the adjoint within the cone scaling; with ``at_kink`` also look for kinks that matter."""
        linearised, (x, y, s) = self.linearised, self.linearised.point
        D, n = linearised.D, self._structure.n
        (gx, gy, gs), size = scaled(len(x), gx, gy, gs)
        r1, r2 = np.zeros_like(gx), np.zeros_like(gy)
        pending = np.arange(len(gx))
        if self.method in ("auto", "direct"):
            rhs = np.hstack([gx - linearised.At(gs), D.apply_root(gy)])
            z, pending = self._direct(rhs, report, adjoint=True)
            r1, r2 = z[:, :n], D.apply_root(z[:, n:]) + gs
        if pending.size:
            last = -(x * gx).sum(axis=1) - (y * gy).sum(axis=1) - (s * gs).sum(axis=1)
            rhs = np.column_stack([gx, D.apply(gy + gs) - gs, last])
            for i, (r1_i, r2_i, r3) in self._least_squares.solve(pending, rhs, report, adjoint=True):
                r1[i], r2[i] = r1_i - r3 * x[i], r3 * y[i] - r2_i
        if at_kink and self.kinks.found.any():

            def one_sided(index: Indices, kinked: NDArray[np.bool_], sign: float) -> Answer:
                side = self._beside(index, kinked, sign)
                multipliers = side._vjp(gx[index], gy[index], gs[index], Report(), at_kink=False)
                g = outer(self._structure, *side.linearised.point[:2], *multipliers)
                parts = (g.P, g.A, g.b, g.c)
                return parts, np.maximum(peak(g.b), peak(g.c))

            # J'(r1, r2) = g says r2 = gs + D h with this h: where h = 0 the choice of D does not matter.
            h = self._structure.A.products(linearised.data.A)[0](r1) + r2 - gy - gs
            kinked = self.kinks.rows(h)
            report.add_degenerate(changed_by_kinks(kinked, one_sided, self.observability), KINKED)
        return Multipliers(r1 * size, r2 * size)

    def _direct(self, rhs: Array, report: Report, adjoint: bool) -> tuple[Array, NDArray[np.intp]]:
        """Solve with K; return the answer and the programs for which M has to answer instead.

        M answers where K is singular and that matters, which does not depend on the right-hand side unless it
        is outside K's range. Where K is regular M has the same answer, and another way to it.
        """
        if self.method == "direct":
            z, error = self.linearised.solve(rhs)
            short = ~(error <= SOLVED)
            if short.any():
                residual = float(error[short].max())
                report.add_inaccurate(np.flatnonzero(short), residual, "the reduced system is singular")
            return z, np.zeros(0, dtype=np.intp)
        singular = self.linearised.singular
        not_unique = singular
        if singular.any() and self.observability is not None:
            not_unique = singular & self._null_vector_is_observed(adjoint)
        z, short = np.zeros_like(rhs), np.zeros(len(rhs), dtype=bool)
        if not not_unique.all():
            z, error = self.linearised.solve(rhs)
            short = ~(error <= SOLVED)
        not_unique = not_unique | (singular & short)
        report.add_degenerate(np.flatnonzero(not_unique), NOT_UNIQUE)
        return z, np.flatnonzero(short | not_unique)

    def _null_vector_is_observed(self, adjoint: bool) -> NDArray[np.bool_]:
        """Return whether adding a null vector of K to the answer would change what the user observes."""
        assert self.observability is not None
        linearised, n = self.linearised, self._structure.n
        vector, (x, y, _) = linearised.null_vector, linearised.point
        first, second = vector[:, :n], linearised.D.apply_root(vector[:, n:])
        if adjoint:
            return self.observability.of_data(outer(self._structure, x, y, first, second))
        return self.observability.of_solution(first, linearised.D.apply(second + linearised.A(first)))

    def _beside(self, index: Indices, kinked: NDArray[np.bool_], sign: float) -> KKTDerivative:
        """Return the derivative of some programs a little to one side of their kinks."""
        point = self.kinks.beside(index, kinked, sign)
        linearised = LinearisedKKT(self.linearised.system, self.linearised.data.take(index), point)
        observability = None if self.observability is None else self.observability.take(index)
        return KKTDerivative(linearised, self.scaling.take(index), self.method, observability)


def _accepted(scaling: ConeScaling, system: KKTSystem, data: ConeData, point: Point) -> ConeScaling:
    """Return the cone scaling, without it for programs whose solution does not hold in it.

    A solution that satisfies the KKT conditions, but not the scaled ones, has lost the digits that the
    scaling would need: the forward pass has not reached its tolerance in the scaling, where K may be singular
    though it is not singular without.
    """
    if scaling.is_identity:
        return scaling
    R = Residual(system.pattern.structure, scaling.scale_data(data))
    x, y, s = scaling.scale_point(point)
    return scaling.without(~(R(x, y - s, y).relative <= SCALED_RESIDUAL))
