r"""Equilibration: row and column scaling after which no number of a program is tiny or huge.

With diagonal matrices E and R and a number σ, all powers of two, the program of σ E P E, R A E, R b and σ E c
has the solution

.. math:: \hat x = E^{-1} x, \qquad \hat y = \sigma R^{-1} y, \qquad \hat s = R s,

as long as R keeps the cones: its entries are free in zero and nonnegative cones, and equal within each other
cone. E and R bring the largest entries of rows and columns of the KKT matrix [[P, A'], [A, 0]] to about one
(Ruiz 2001), σ those of σ E P E and σ E c. So residuals, ranks and distances to kinks do not depend on the
units of the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from conediff.program import Array, ConeData, Indices, Point, Products, Structure
from conediff.scaling.constants import ORDINARY_RATIO, RUIZ_ROUNDS
from conediff.scaling.magnitude import largest_entry, power_of_two


@dataclass(frozen=True, eq=False)
class Equilibration:
    """E, R and σ for a stack of programs.

    Parameters
    ----------
    structure : Structure
    columns : array, shape (B, n) or (1, n)
        E's diagonal.
    rows : array, shape (B, m) or (1, m)
        R's diagonal.
    objective : array, shape (B, 1) or (1, 1)
        σ.
    """

    structure: Structure
    columns: Array
    rows: Array
    objective: Array

    @cached_property
    def is_identity(self) -> bool:
        """Whether all factors are one."""
        return all(bool((part == 1).all()) for part in (self.columns, self.rows, self.objective))

    def take(self, index: NDArray[np.intp] | slice) -> Equilibration:
        """Return the equilibration of the programs at these positions."""
        parts = (self.columns, self.rows, self.objective)
        return Equilibration(self.structure, *(part if len(part) == 1 else part[index] for part in parts))

    def scale_data(self, data: ConeData) -> ConeData:
        """Return the equilibrated programs."""
        if self.is_identity:
            return data
        A = data.A * self._A_factors
        P = data.P * self._P_factors if data.P.shape[1] else data.P
        return ConeData(P, A, data.b * self.rows, data.c * (self.columns * self.objective))

    def scale_point(self, point: Point) -> Point:
        """Return the solutions of the equilibrated programs that belong to solutions of the given ones."""
        if self.is_identity:
            return point
        x, y, s = point
        return Point(x / self.columns, y * self.objective / self.rows, s * self.rows)

    def unscale_point(
        self,
        point: Point,
        infeasible: NDArray[np.bool_] | None = None,
        unbounded: NDArray[np.bool_] | None = None,
    ) -> Point:
        """Return the solutions of the given programs that belong to solutions of the equilibrated ones.

        Parameters
        ----------
        point : Point
        infeasible, unbounded : bool arrays, shape (B,), optional
            Where a program is infeasible, y is a certificate with b'y = -1; where it is unbounded, x and s
            are one with c'x = -1. Certificates have factors of their own.
        """
        if self.is_identity:
            return point
        x, y, s = point
        of_y, of_x = 1 / self.objective, np.ones_like(self.objective)
        if infeasible is not None:
            of_y = np.where(infeasible[:, None], 1.0, of_y)
        if unbounded is not None:
            of_x = np.where(unbounded[:, None], self.objective, of_x)
        return Point(x * self.columns * of_x, y * self.rows * of_y, s / self.rows * of_x)

    def scale_products(self, change: Products) -> Products:
        """Return the products of a perturbation of the equilibrated programs."""
        if self.is_identity:
            return change
        of_x = self.columns * self.objective
        Px, Ax, Aty, b, c = change
        return Products(Px * of_x, Ax * self.rows, Aty * of_x, b * self.rows, c * of_x)

    def scale_cotangent(self, gx: Array, gy: Array, gs: Array) -> tuple[Array, Array, Array]:
        """Return a cotangent of the solutions of the equilibrated programs."""
        if self.is_identity:
            return gx, gy, gs
        return gx * self.columns, gy * self.rows / self.objective, gs / self.rows

    def unscale_multipliers(self, r1: Array, r2: Array) -> tuple[Array, Array]:
        """Return multipliers of the given programs; `program.outer` makes cotangents of data of them."""
        if self.is_identity:
            return r1, r2
        return r1 * self.columns * self.objective, r2 * self.rows

    def unscale_cotangent(self, gx: Array, gy: Array, gs: Array) -> tuple[Array, Array, Array]:
        """Undo `scale_cotangent`."""
        if self.is_identity:
            return gx, gy, gs
        return gx / self.columns, gy * self.objective / self.rows, gs * self.rows

    def scale_multipliers(self, r1: Array, r2: Array) -> tuple[Array, Array]:
        """Undo `unscale_multipliers`."""
        if self.is_identity:
            return r1, r2
        return r1 / self.columns / self.objective, r2 / self.rows

    def unscale_data_cotangent(self, g: ConeData) -> ConeData:
        """Return cotangents of the data of the given programs."""
        if self.is_identity:
            return g
        P = g.P * self._P_factors if g.P.shape[1] else g.P
        return ConeData(P, g.A * self._A_factors, g.b * self.rows, g.c * (self.columns * self.objective))

    @property
    def _A_factors(self) -> Array:
        A = self.structure.A
        return self.rows[:, A.indices] * self.columns[:, A.columns]

    @property
    def _P_factors(self) -> Array:
        return _P_factors(self.structure, self.columns) * self.objective


def _P_factors(structure: Structure, columns: Array) -> Array:
    P = structure.P
    return columns[:, P.indices] * columns[:, P.columns]


class Equilibrator:
    """Finds the equilibrations of programs of one structure.

    Parameters
    ----------
    structure : Structure
    """

    def __init__(self, structure: Structure) -> None:
        A, P = structure.A, structure.P
        self.structure = structure
        self._rows, self._A_columns = _Largest(A.indices, A.shape[0]), _Largest(A.columns, A.shape[1])
        self._P_columns = _Largest(P.columns, P.shape[1])
        self._blocks = [rows for cone, rows in structure.cone.groups if cone.dim > 1]

    def equilibration(self, data: ConeData) -> Equilibration:
        """Return the equilibration of a stack; E and R have one row where the programs share A and P.

        Programs whose rows and columns, and those of the objective, are of about one size already have
        E = I, and R a multiple of I.
        """
        A, P, c = np.abs(data.A), np.abs(data.P), np.abs(data.c)
        of_row, of_A, of_P = self._of_rows(A), self._A_columns(A), self._P_columns(P)
        linear = _counted(c, of_P)
        count = max(len(A), len(P), len(linear))
        columns, rows = np.ones((count, self.structure.n)), np.ones((count, self.structure.m))
        rows *= power_of_two(largest_entry(A))
        even = np.broadcast_to(_is_even(of_row) & _is_even(of_A) & _is_even(of_P + linear), count)
        if not even.all():
            uneven = np.flatnonzero(~even)
            given = [part if len(part) == 1 else part[uneven] for part in (A, P, linear)]
            columns[uneven], rows[uneven] = self._ruiz(given[0], given[1], given[2], uneven.size)
            P, c = P * _P_factors(self.structure, columns), c * columns
            of_P = self._P_columns(P)
        parts = (columns, rows, power_of_two(_mean_size(np.maximum(of_P, c))))
        return Equilibration(self.structure, *(_shared(part) for part in parts))

    def _of_rows(self, A: Array) -> Array:
        """Return the largest entries of the rows, one for each cone."""
        of_row = self._rows(A)
        for rows in self._blocks:
            of_row[:, rows] = of_row[:, rows].max(axis=-1, keepdims=True)
        return of_row

    def _ruiz(self, A: Array, P: Array, c: Array, count: int) -> tuple[Array, Array]:
        """Return E and R, powers of two, for absolute values of A, P and the part of c that counts."""
        structure = self.structure
        columns, rows = np.ones((count, structure.n)), np.ones((count, structure.m))
        A, P, c = (np.array(np.broadcast_to(part, (count, part.shape[1]))) for part in (A, P, c))
        for _ in range(RUIZ_ROUNDS):
            # The objective is divided by its size in each round, as it will be at the end.
            size = _mean_size(np.maximum(self._P_columns(P), c))
            P, c = P / size, c / size
            sizes = self._of_rows(A), np.maximum(self._A_columns(A), self._P_columns(P))
            r, e = (1 / np.sqrt(np.where((part > 0) & np.isfinite(part), part, 1)) for part in sizes)
            columns, rows = columns * e, rows * r
            A = A * (r[:, structure.A.indices] * e[:, structure.A.columns])
            P, c = P * _P_factors(structure, e), c * e
        return np.exp2(np.round(np.log2(columns))), np.exp2(np.round(np.log2(rows)))


def _counted(c: Array, of_P: Array) -> Array:
    """Return c where P's columns are zero, in programs in which its mean size there is not about that of P.

    Zero in others and in linear programs, in which c has a size of its own: so programs that share A and P
    share E and R as well.

    Parameters
    ----------
    c : array, shape (B, n) or (1, n)
        Absolute values.
    of_P : array, shape (B, n) or (1, n)
        Largest entries of P's columns.
    """
    linear = np.where(of_P == 0, c, 0.0)
    if not (of_P.any() and linear.any()):
        return np.zeros_like(of_P)
    ratio = _mean_size(linear) / _mean_size(of_P)
    counts = (ratio > ORDINARY_RATIO) | (ratio < 1 / ORDINARY_RATIO)
    counts &= of_P.any(axis=1, keepdims=True) & linear.any(axis=1, keepdims=True)
    return linear * counts if counts.any() else np.zeros_like(of_P)


def _shared(rows: Array) -> Array:
    """Return one row if all are equal."""
    return rows[:1] if len(rows) > 1 and (rows == rows[:1]).all() else rows


class _Largest:
    """The largest entry in each row, or column, of a matrix: a function of its absolute values."""

    def __init__(self, place: Indices, size: int) -> None:
        self._order = np.argsort(place, kind="stable")
        self._is_ordered = bool((np.diff(self._order) == 1).all())
        ordered = place[self._order]
        self._starts = np.flatnonzero(np.diff(ordered, prepend=-1))
        self._place, self._size = ordered[self._starts], size

    def __call__(self, values: Array) -> Array:
        if not self._starts.size:
            return np.zeros((len(values), self._size))
        ordered = values if self._is_ordered else values.take(self._order, axis=1)
        runs: Array = np.maximum.reduceat(ordered, self._starts, axis=1)
        if runs.shape[1] == self._size:
            return runs
        result = np.zeros((len(values), self._size))
        result[:, self._place] = runs
        return result


def _is_even(sizes: Array) -> NDArray[np.bool_]:
    """Return whether the nonzero sizes of each program are within ORDINARY_RATIO of each other."""
    largest, smallest = sizes.max(axis=1, initial=0.0), np.where(sizes > 0, sizes, np.inf)
    return np.asarray(~(largest > ORDINARY_RATIO * smallest.min(axis=1, initial=np.inf)))


def _mean_size(sizes: Array) -> Array:
    """Return the geometric mean of the nonzero sizes of each program, shape (B, 1); 1 where all are zero.

    The mean, not the largest: where sizes differ by many orders of magnitude, so do y and s of the cones, in
    both directions, which cone scalings make up for.
    """
    used = (sizes > 0) & np.isfinite(sizes)
    logarithms = np.log2(sizes, where=used, out=np.zeros(sizes.shape))
    count = np.maximum(used.sum(axis=1, keepdims=True), 1)
    return np.asarray(np.exp2(logarithms.sum(axis=1, keepdims=True) / count))
