r"""Kinks of the projection: where an answer depends on which one-sided derivative is taken for D.

A cone is at a kink if its y and s are, up to their errors. Both are measured in the cone itself, whatever
stands beside it: a multiplier of 1e-12 is zero in a program that gives it to 1e-12, and is not zero in one
that gives it to 1e-28. The errors are those that the residual and rounding cause to first order, estimated
with random numbers σ, of both signs and about one, by

.. math:: J\, (δx, δv) = σ ∘ (|R| + ε\, (\text{sum of the absolute terms of } R)),

entry by entry (Skeel 1979, Scaling for numerical stability in Gaussian elimination).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from conediff.cones import Cone
from conediff.derivative.constants import ERRORS, INWARDS, KINK, NEAR, NEGLIGIBLE, SIDE, SIGNS
from conediff.derivative.diagnostics import Observability, peak
from conediff.derivative.linearised_kkt import LinearisedKKT
from conediff.program import Array, ConeData, Indices, Point

# Parts of an answer (dx and dy, or the cotangents of P, A, b and c), and the last two's size, (B,).
Answer = tuple[tuple[Array, ...], Array]

_EPS = float(np.finfo(np.float64).eps)


class Kinks:
    """Which cones are at a kink of the projection, at the solutions of one part of a stack.

    Parameters
    ----------
    linearised : LinearisedKKT
    """

    def __init__(self, linearised: LinearisedKKT) -> None:
        self._linearised = linearised

    @cached_property
    def found(self) -> NDArray[np.bool_]:
        """Which programs have a cone at a kink, shape (B,)."""
        found = np.zeros(len(self._linearised.point.x), dtype=bool)
        for at_kink in self._by_group:
            found |= at_kink.any(axis=1)
        return found

    def rows(self, h: Array) -> NDArray[np.bool_]:
        """Return the rows of cones at a kink, if h, of shape (B, m), is not zero in one of these; (B, m).

        Where h = 0 in all, the choice of D does not matter. If it matters in one, it may then in the others.
        """
        kinked, largest = np.zeros(h.shape, dtype=bool), peak(h)
        for (_, rows, _), at_kink in zip(self._linearised.D.groups, self._by_group, strict=True):
            kinked[:, rows] = at_kink[..., None]
        matters = peak(np.where(kinked, h, 0.0)) > NEGLIGIBLE * largest
        return kinked & matters[:, None]

    def distance(self) -> Array:
        """Return the distance to the nearest kink, as `Diagnostics.strict_complementarity` has it, (B,)."""
        y, s = self._linearised.point.y, self._linearised.point.s
        result = np.full(len(y), np.inf)
        for cone, rows, derivative in self._linearised.D.groups:
            if cone.dim == 1:
                size = np.abs(y[:, rows] - s[:, rows]).max(axis=(1, 2))
                relative = derivative.margin / np.where(size > 0, size, 1.0)[:, None]
            else:
                relative = _margin(cone, _unit(y[:, rows], 0.0) - _unit(s[:, rows], 0.0))
            result = np.minimum(result, relative.min(axis=-1))
        return np.where(self.found, 0.0, result)

    def beside(self, index: Indices, kinked: NDArray[np.bool_], sign: float) -> Point:
        """Return the points of some programs a little to one side of their kinks in the rows ``kinked``."""
        x, y, s = self._linearised.point.take(index)
        limit = np.maximum(self._near[index], KINK**2)[:, None]
        dy, ds = (ERRORS * part[index] for part in self._errors)
        step = np.empty_like(y)
        for _, rows in self._linearised.structure.cone.groups:
            own = KINK * np.maximum(np.abs(y[:, rows]), np.abs(s[:, rows])).max(axis=-1)
            error = np.maximum(dy[:, rows], ds[:, rows]).max(axis=-1)
            length = np.maximum(own, np.where(error < limit, error, limit))
            step[:, rows] = np.where(length > 0, length, limit)[..., None]
        return Point(x, y + sign * SIDE * step * self._inwards * kinked, s)

    @cached_property
    def _inwards(self) -> Array:
        """A direction for each cone, of entries up to one, shape (m,): into K* and K, away from -K and -K*.

        Along it all constraints at a kink become active together, and inactive against it. In mixed choices
        the kinks of a constraint that cvxpy states by several cones need not show: t <= 1 and |z| <= t.
        The sum of the projections of many points is inside; the points go in pairs w and -w.
        """
        cone = self._linearised.structure.cone
        w = np.random.default_rng(0).standard_normal((INWARDS, cone.dim))
        into_dual = cone.project_dual(np.vstack([w, -w])).point
        into_cone = into_dual - np.vstack([w, -w])
        inwards = np.zeros(cone.dim)
        for part in (into_dual, into_cone):
            total = part.sum(axis=0)
            for _, rows in cone.groups:
                size = np.abs(total[rows]).max(axis=-1, keepdims=True)
                inwards[rows] += total[rows] / np.where(size > 0, 2 * size, 1.0)
        return inwards

    @cached_property
    def _by_group(self) -> list[NDArray[np.bool_]]:
        """Which cones are at a kink: for each group of cones, shape (B, count)."""
        groups = self._linearised.D.groups
        return [
            close & self._undecided(cone, rows) if close.any() else close
            for (cone, rows, _), close in zip(groups, self._close, strict=True)
        ]

    @cached_property
    def _close(self) -> list[NDArray[np.bool_]]:
        """Which cones are so close to a kink that the errors are asked: for each group, shape (B, count)."""
        y, s = self._linearised.point.y, self._linearised.point.s
        result = []
        for cone, rows, derivative in self._linearised.D.groups:
            limit = np.broadcast_to(self._near[:, None], derivative.margin.shape)
            if cone.dim > 1:
                limit = np.maximum(limit, NEAR * np.abs(y[:, rows] - s[:, rows]).max(axis=-1))
            result.append(~(derivative.margin > limit))
        return result

    @cached_property
    def _near(self) -> Array:
        """KINK, times the largest entry of v, x, b and c: not of v alone, which may be all rounding; (B,)."""
        (x, y, s), data = self._linearised.point, self._linearised.data
        return np.asarray(
            KINK * np.max(np.broadcast_arrays(*(peak(part) for part in (y - s, x, data.b, data.c))), axis=0)
        )

    def _undecided(self, cone: Cone, rows: Indices) -> NDArray[np.bool_]:
        """Return where the errors of y and s leave open on which side of a kink they are, (B, count)."""
        y, s = self._linearised.point.y[:, rows], self._linearised.point.s[:, rows]
        dy, ds = (ERRORS * _norm(part[:, rows]) for part in self._errors)
        v = _unit(y, dy) - _unit(s, ds)
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = [error / _norm(part) for part, error in ((y, dy), (s, ds))]
        # Where the error is larger than y or s, that part of v is zero, and has no share in its error.
        error = np.maximum(*(np.where(share < 1, share, 0.0) for share in shares))
        return ~(_margin(cone, v) > error)

    @cached_property
    def _errors(self) -> tuple[Array, Array]:
        """Estimated errors of y and s, entry by entry, (B, m), of the programs that are close to a kink.

        They are infinite where K does not tell.
        """
        linearised, (x, y, s) = self._linearised, self._linearised.point
        structure, data, D = linearised.structure, linearised.data, linearised.D
        P, (A, At) = structure.P.products(data.P)[0], structure.A.products(data.A)
        of_P, (of_A, of_At) = structure.P.products(abs(data.P))[0], structure.A.products(abs(data.A))
        terms1 = of_P(abs(x)) + of_At(abs(y)) + abs(data.c)
        terms2 = of_A(abs(x)) + abs(s) + abs(data.b)
        r1 = abs(P(x) + At(y) + data.c) + _EPS * terms1
        r2 = abs(A(x) + s - data.b) + _EPS * terms2
        # Of v = y - s rounding leaves the smaller one less accurate than it is by itself.
        again = structure.cone.project_dual(y - s, y).point
        dy = np.maximum(_EPS * abs(y), abs(y - again))
        ds = np.maximum(_EPS * abs(s), abs(s - (again - (y - s))))
        for cone, rows in structure.cone.groups:
            if cone.dim > 1:  # a projection is as accurate as the whole of v
                rounding = _EPS * _norm(y[:, rows] - s[:, rows])[..., None]
                dy[:, rows], ds[:, rows] = (np.maximum(part[:, rows], rounding) for part in (dy, ds))
        random = np.random.default_rng(0)
        asked = np.any([close.any(axis=1) for close in self._close], axis=0)[:, None]
        for _ in range(SIGNS):
            h1, h2 = (asked * _weights(random, part.shape[1]) * part for part in (r1, r2))
            rhs = np.hstack([h1, D.apply_root(h2)])
            z, _ = linearised.factor.solve(rhs, tol=1e-3)
            dv = D.apply_root(z[:, x.shape[1] :]) + A(z[:, : x.shape[1]]) - h2
            moved = D.apply(dv)
            dy, ds = np.maximum(dy, abs(moved)), np.maximum(ds, abs(moved - dv))
        return np.nan_to_num(dy, nan=np.inf, posinf=np.inf), np.nan_to_num(ds, nan=np.inf, posinf=np.inf)


def _weights(random: np.random.Generator, count: int) -> Array:
    """Return random numbers of both signs; their sizes differ, so that they do not cancel on simple data."""
    return random.choice([-1.0, 1.0], count) * random.uniform(0.5, 1.5, count)


def _margin(cone: Cone, v: Array) -> Array:
    """Distance of v, of shape (B, count, dim), to the nearest kink, shape (B, count)."""
    return cone.project_dual(v).derivative().margin


def _norm(part: Array) -> Array:
    """2-norm of the last axis, without overflow or underflow."""
    largest = np.abs(part).max(axis=-1)
    with np.errstate(invalid="ignore"):
        unit = part / np.where(largest > 0, largest, 1.0)[..., None]
        return np.asarray(largest * np.sqrt((unit * unit).sum(axis=-1)))


def _unit(part: Array, error: Array | float) -> Array:
    """Return vectors over their norms; zero where the norm does not exceed ``error``."""
    size = _norm(part)
    clear = size > error
    return np.where(clear[..., None], part / np.where(clear, size, 1.0)[..., None], 0.0)


def changed_by_kinks(
    kinked: NDArray[np.bool_],
    one_sided: Callable[[Indices, NDArray[np.bool_], float], Answer],
    observability: Observability | None,
) -> NDArray[np.intp]:
    """Return the programs whose answer differs between the two sides of a kink, where the user observes it.

    Parameters
    ----------
    kinked : bool array, shape (B, m)
        See `rows_at_kinks`.
    one_sided : callable
        Returns the answer for some programs, kinked rows of these, and a side, 1.0 or -1.0.
    observability : Observability, optional
        Of all B programs.
    """
    elements = np.flatnonzero(kinked.any(axis=1))
    if elements.size == 0:
        return elements
    (first, size), (second, _) = (one_sided(elements, kinked[elements], sign) for sign in (1.0, -1.0))
    different = [a - b for a, b in zip(first, second, strict=True)]
    # dx and dy, or the cotangents of b and c; those of P and A are products of these with x and y, whose size
    # would hide a change.
    changed = np.max([peak(part) for part in different[-2:]], axis=0) > NEGLIGIBLE * size
    if observability is not None and changed.any():
        observed = observability.take(elements)
        # The smaller of the two answers, so that a large one on one side hides nothing.
        sizes = (np.max([peak(part) for part in parts[-2:]], axis=0) for parts in (first, second))
        smaller = np.less_equal(*sizes)[:, None]
        answer = [np.where(smaller, a, b) for a, b in zip(first, second, strict=True)]
        if len(different) == 2:
            changed &= observed.of_solution(different[0], different[1], (answer[0], answer[1]))
        else:
            changed &= observed.of_data(ConeData(*different), ConeData(*answer))
    return np.asarray(elements[changed])
