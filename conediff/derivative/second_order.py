r"""Second derivatives of the solution map.

A tangent (dx, dy, ds) = push(ω) and the multipliers (r1, r2) of pull(g) are two readings of one scalar,

.. math:: φ = \langle ω, \mathrm{pull}(g) \rangle = \langle \mathrm{push}(ω), g \rangle,

in which the data P and A, the point (x, y, s), ω and g are independent arguments. Its gradient needs no
solve. With J the Jacobian of the KKT residual, h = A r1 + r2 - gy - gs (J (r1, h) = (gx - A'gs, gy)), T(v)
the derivative of D (`ConeDerivative.bend`) and τ = T(v)[dy - ds, h], it is

.. math::
    \partial_P φ &= -\tfrac12 (r_1 dx^\top + dx\, r_1^\top), &
    \partial_A φ &= -(dy\, r_1^\top + r_2 dx^\top), \\
    \partial_x φ &= -(ω_P r_1 + ω_A^\top r_2), &
    \partial_y φ &= -ω_A r_1 - τ, \quad \partial_s φ = τ.

Every mode of second order follows from it (`StackDerivative.curve`); forward over forward solves with the
same K for the right-hand side that the changes of P, A and D make (`StackDerivative.turn`). τ is computed in
the cone scaling, where y and s are of one size; all else has the same form in every scaling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from conediff.derivative.first_order import FirstOrder, concatenated
from conediff.derivative.kkt_derivative import KKTDerivative, Multipliers, Tangent
from conediff.program import Array, ConeData, Point, Products, outer, scaled

Arrays = TypeVar("Arrays", Tangent, Multipliers)


class Curvature(NamedTuple):
    """Cotangents of the data and of the point.

    Attributes
    ----------
    data : ConeData
        Those of b and c are zero.
    point : Tangent
        Cotangents of x, y and s.
    """

    data: ConeData
    point: Tangent


def bent_cotangent(
    derivative: KKTDerivative, moved: Tangent, g: Tangent, r: Multipliers
) -> tuple[Array, Array]:
    """Return the part of the cotangents of y and s that comes from the curvature of the cones, (B, m) each.

    Parameters
    ----------
    derivative : KKTDerivative
        Of one part of a stack.
    moved : Tangent
        push(ω).
    g : Tangent
        Cotangents of x, y and s.
    r : Multipliers
        Those of pull(g).
    """
    scaling, linearised = derivative.scaling, derivative.linearised
    dv = _dv(derivative, moved)
    _, gy, gs = scaling.scale_cotangent(*g)
    r1, r2 = scaling.scale_multipliers(*r)
    h = linearised.structure.A.products(linearised.data.A)[0](r1) + r2 - gy - gs
    tau = _bend(derivative, dv, h)
    _, ny, ns = scaling.unscale_cotangent(np.zeros_like(r1), -tau, tau)
    return ny, ns


def bent_tangent(derivative: KKTDerivative, moved: Tangent, pushed: Tangent) -> tuple[Array, Array]:
    """Return T(v)[dv, dv'] of two tangents, as changes of y and of s, shape (B, m) each."""
    tau = _bend(derivative, _dv(derivative, moved), _dv(derivative, pushed))
    _, ty, ts = derivative.scaling.unscale_point(Point(np.zeros_like(moved.dx), tau, tau))
    return ty, ts


def _dv(derivative: KKTDerivative, moved: Tangent) -> Array:
    """dy - ds in the cone scaling."""
    _, dy, ds = derivative.scaling.scale_point(Point(*moved))
    return dy - ds


def _bend(derivative: KKTDerivative, h: Array, k: Array) -> Array:
    """T(v)[h, k], of directions brought to size one first, so that no product of small ones underflows."""
    count = len(h)
    ((h,), size_h), ((k,), size_k) = scaled(count, h), scaled(count, k)
    return np.asarray(derivative.linearised.D.bend(h, k) * size_h * size_k)


def added(*changes: Products) -> Products:
    """Return the sum of perturbations that are given by their products."""
    return Products(*(sum(parts[1:], parts[0]) for parts in zip(*changes, strict=True)))


class StackDerivative(FirstOrder):
    """The derivatives of first and second order of the solution maps of a stack; made as `FirstOrder` is."""

    def curve(self, bent: Products, moved: Tangent, g: Tangent, r: Multipliers) -> Curvature:
        """Return the gradient of <ω, pull(g)> = <push(ω), g> in the data and the point; see `second_order`.

        No linear system is solved.

        Parameters
        ----------
        bent : Products
            Of ω with the multipliers, ωP r1, ωA r1 and ωA'r2; its b and c are not read.
        moved : Tangent
            push(ω).
        g : Tangent
            Cotangents of x, y and s.
        r : Multipliers
            Those of pull(g).
        """
        n, m = self.structure.n, self.structure.m
        Pr, Ar, Atr = (self._taken(array) for array in bent[:3])
        moved, g = (Tangent(*map(self._taken, each)) for each in (moved, g))
        r = Multipliers(*map(self._taken, r))
        data = outer(self.structure, moved.dx, moved.dy, *r)
        data = ConeData(data.P, data.A, np.zeros((len(r.r1), m)), np.zeros((len(r.r1), n)))
        py, ps = -Ar, np.zeros_like(Ar)
        if not self.structure.cone.is_polyhedral and self._parts:
            found = self._map_here(
                lambda derivative, part: bent_cotangent(
                    derivative, _part(moved, part), _part(g, part), _part(r, part)
                )
            )
            ny, ns = (concatenated(rows) for rows in zip(*found, strict=True))
            py, ps = py + ny, ps + ns
        point = Tangent(*(self._filled(rows, self._fill) for rows in (-(Pr + Atr), py, ps)))
        parts = (self._filled(rows, self._fill) for rows in (data.P, data.A, data.b, data.c))
        return Curvature(ConeData(*parts), point)

    def turn(self, change: Products, moved: Tangent, pushed: Tangent) -> Tangent:
        """Return the change of push(ω) along a perturbation of the data, by one solve.

        Parameters
        ----------
        change : Products
            The sum of the products of ω with the tangent ``moved`` and of the perturbation with ``pushed``,
            their b and c left out, and the products of the change of ω itself with the solution.
        moved : Tangent
            Of the solution along the perturbation.
        pushed : Tangent
            push(ω).
        """
        ty = ts = np.zeros((1, self.structure.m))
        if not self.structure.cone.is_polyhedral and self._parts:
            moved, pushed = (Tangent(*map(self._taken, each)) for each in (moved, pushed))
            found = self._map_here(
                lambda derivative, part: bent_tangent(derivative, _part(moved, part), _part(pushed, part))
            )
            ty, ts = (concatenated(rows) for rows in zip(*found, strict=True))
            Aty = self.structure.A.products(self._data.A)[1](ty)
            ty, ts, Aty = (self._filled(rows, np.nan) for rows in (ty, ts, Aty))
            change = change._replace(Ax=change.Ax + ts, Aty=change.Aty + Aty)
        dx, dy, ds = self.jvp(change)
        return Tangent(dx, dy + ty, ds + ts)


def _part(arrays: Arrays, part: slice) -> Arrays:
    return type(arrays)(*(array if len(array) == 1 else array[part] for array in arrays))


def hvp(
    stack: StackDerivative,
    change: Callable[[Array, Array], Products],
    at: tuple[Array, Array],
    g: Tangent,
    curvature: Callable[[Tangent], Sequence[Array]] | None,
) -> ConeData:
    """Return the Hessian of a loss of (x, y, s), as a function of the data, times a perturbation of the data.

    Parameters
    ----------
    stack : StackDerivative
    change : callable
        The products of the perturbation with a pair of vectors, shapes (B, n) and (B, m).
    at : (x, y)
        The solution.
    g : Tangent
        The gradient of the loss in x, y and s.
    curvature : callable, optional
        The loss's own Hessian: from a tangent of the solution to that of the gradient. Zero by default.

    Notes
    -----
    Three solves with the factorised K, that of the gradient's multipliers included; that one is not repeated
    if the last pull-back was of the same g.
    """
    r = stack.multipliers(*g)
    moved = stack.jvp(change(*at))
    q, p = stack.curve(change(*r), moved, g, r)
    if curvature is not None:
        p = Tangent(*(part + own for part, own in zip(p, curvature(moved), strict=True)))
    return stack.pull(*p).plus(q)
