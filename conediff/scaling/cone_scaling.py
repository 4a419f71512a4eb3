r"""Cone scalings: automorphisms of the cones, under which y and s have about one size.

With T an automorphism of the cone (see `conediff.cones.automorphism`) and E a diagonal of powers of two, the
program of E P E, T A E, T b, E c has the solution

.. math:: \hat x = E^{-1} x, \qquad \hat y = T^{-\top} y, \qquad \hat s = T s.

v = y - s, which carries both, loses digits if one is much larger than the other; in a suitable scaling it
does not. In interior-point methods for symmetric cones this is Nesterov-Todd scaling. E undoes what T does to
the size of the columns of A.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from conediff.cones import Automorphism, Cone
from conediff.program import Array, ConeData, Indices, Point, Products, Structure
from conediff.scaling.constants import CANCELLED, CLOSE, ORDINARY_COLUMN
from conediff.scaling.shears import fill_in


class ConeScalings:
    """Finds scalings for programs of one structure.

    Parameters
    ----------
    structure : Structure

    Attributes
    ----------
    structure : Structure
        As given.
    scaled_structure : Structure
        That of the scaled programs: the same, unless shears fill in entries of A.
    shears : Shears
    identity : ConeScaling
        T = I, E = I.
    """

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        A, self._kept, self.shears = fill_in(structure)
        self._groups = [(cone, rows) for cone, rows in structure.cone.groups if not cone.diagonal]
        no_shear = np.zeros((1, self.shears.into.size))
        self.identity = ConeScaling(self, np.ones((1, structure.m)), no_shear, np.ones((1, structure.n)))
        self.scaled_structure = structure if A is structure.A else Structure(structure.P, A, structure.cone)

    def primal_dual(self, data: ConeData, x: Array, y: Array, s: Array) -> ConeScaling:
        """Return the scaling under which y and s have about one size, cone by cone.

        Parameters
        ----------
        data : ConeData
        x, y, s : arrays, shapes (B, n), (B, m), (B, m)
            Solutions.
        """
        if not self._groups:
            return self.identity
        zero = np.zeros((1, self.structure.m))
        scaling = self._primal_dual(data, y, s, zero, zero)
        if scaling.is_identity:
            return scaling
        # A slack that is the difference of larger terms has lost its digits already, and the small digits of
        # a dual do not matter beside larger terms that it is added to. No scaling is made for those.
        A = self.structure.A
        matvec, rmatvec = A.products(np.abs(data.A))
        P_matvec = self.structure.P.products(np.abs(data.P))[0]
        rows = matvec(np.abs(x)) + np.abs(data.b)
        columns = rmatvec(np.abs(y)) + np.abs(data.c) + P_matvec(np.abs(x))
        with np.errstate(divide="ignore"):
            shares = 1 / _largest(np.abs(data.A) / columns[:, A.columns], A.indices, A.shape[0])
        return self._primal_dual(data, y, s, shares / CANCELLED, rows / CANCELLED)

    def _primal_dual(self, data: ConeData, y: Array, s: Array, least_y: Array, least_s: Array) -> ConeScaling:
        def find(cone: Cone, rows: Indices) -> Automorphism | None:
            return cone.primal_dual_scaling(y[:, rows], s[:, rows], least_y[:, rows], least_s[:, rows])

        with np.errstate(invalid="ignore"):
            return self._scaling(data, len(y), find)

    def exponential_row_equilibration(self, data: ConeData) -> ConeScaling:
        """Return the scaling that brings the last rows of exponential cones in A to ordinary size."""
        A = self.structure.A

        def find(cone: Cone, rows: Indices) -> Automorphism | None:
            if cone.equilibrated_row is None:
                return None
            # Every solve passes here, so only entries of A in these rows are read.
            place = np.full(A.shape[0], -1)
            place[rows[:, cone.equilibrated_row]] = np.arange(len(rows))
            entries = np.flatnonzero(place[A.indices] >= 0)
            size = _largest(np.abs(data.A[:, entries]), place[A.indices[entries]], len(rows))
            return cone.row_equilibration(size)

        return self._scaling(data, len(data.A), find)

    def _scaling(
        self, data: ConeData, count: int, find: Callable[[Cone, Indices], Automorphism | None]
    ) -> ConeScaling:
        """Assemble T from the results of ``find`` for each group; choose E for programs with T != I."""
        found = [(rows, find(cone, rows)) for cone, rows in self._groups]
        parts = [(rows, part) for rows, part in found if part is not None]
        if all((part.diagonal == 1).all() for _, part in parts):
            return self.identity
        diagonal, shear = np.ones((count, self.structure.m)), [np.zeros((count, 0))]
        for rows, part in parts:
            diagonal[:, rows] = part.diagonal
            shear += [] if part.shear is None else [part.shear]
        scaling = replace(self.identity, diagonal=diagonal, shear=np.hstack(shear))
        size = _largest(np.abs(scaling.scale_data(data).A), self.scaled_structure.A.columns, self.structure.n)
        strange = (size > 0) & ((size < 1 / ORDINARY_COLUMN) | (size > ORDINARY_COLUMN))
        strange &= (diagonal != 1).any(axis=1, keepdims=True)
        columns = np.exp2(np.where(strange, -np.round(np.log2(np.where(strange, size, 1.0))), 0.0))
        return replace(scaling, columns=columns)

    def insertfill_in(self, A: Array) -> Array:
        """Move values of A, (B, nnz), from its own sparsity to that of `scaled_structure`, with zeros."""
        if self.scaled_structure is self.structure:
            return A
        filled = np.zeros((len(A), self.scaled_structure.A.nnz))
        filled[:, self._kept] = A
        return filled

    def dropfill_in(self, A: Array) -> Array:
        """Select from values on the sparsity of `scaled_structure` those on A's own sparsity."""
        return A if self.scaled_structure is self.structure else A[:, self._kept]


@dataclass(frozen=True, eq=False)
class ConeScaling:
    """T and E for a stack of programs.

    T acts on slacks s, on b and on cotangents of y; its inverse transpose acts on duals y and on cotangents
    of s.

    Parameters
    ----------
    scalings : ConeScalings
        Of the structure of the programs.
    diagonal : array, shape (B, m) or (1, m)
        T's diagonal factor.
    shear : array, shape (B, k) or (1, k)
        The multiple that each of `ConeScalings.shears` adds.
    columns : array, shape (B, n) or (1, n)
        E's diagonal.
    """

    scalings: ConeScalings
    diagonal: Array
    shear: Array
    columns: Array

    @cached_property
    def is_identity(self) -> bool:
        """Whether T = I for the whole stack."""
        return bool((self.diagonal == 1).all() and (self.shear == 0).all())

    def differs(self, other: ConeScaling) -> NDArray[np.bool_]:
        """Return which programs have a diagonal that differs by more than a factor of 16, shape (B,)."""
        apart = np.abs(np.log2(self.diagonal) - np.log2(other.diagonal))
        result: NDArray[np.bool_] = apart.max(axis=1, initial=0.0) > CLOSE
        return result

    def without(self, index: NDArray[np.bool_]) -> ConeScaling:
        """Return the scaling with T = I and E = I for the programs that the mask (B,) selects."""
        if not index.any():
            return self
        if index.all():
            return self.scalings.identity
        one = index[:, None]
        return ConeScaling(
            self.scalings,
            np.where(one, 1.0, self.diagonal),
            np.where(one, 0.0, self.shear),
            np.where(one, 1.0, self.columns),
        )

    def take(self, index: NDArray[np.intp] | slice) -> ConeScaling:
        """Return the scaling of the programs at these positions."""
        if len(self.diagonal) == 1:
            return self
        return ConeScaling(self.scalings, self.diagonal[index], self.shear[index], self.columns[index])

    def scale_data(self, data: ConeData) -> ConeData:
        """Return the data of the scaled programs, on the sparsity of `ConeScalings.scaled_structure`."""
        A, shears = self.scalings.insertfill_in(data.A), self.scalings.shears
        if self.is_identity:
            return ConeData(data.P, A, data.b, data.c)
        A = np.array(np.broadcast_to(A, (max(len(A), len(self.shear)), A.shape[1])))
        A[:, shears.targets] += self.shear[:, shears.shear_of] * data.A[:, shears.entries]
        return ConeData(
            data.P * self._P_factors,
            A * self._A_factors,
            self.scale_slack(data.b),
            data.c * self.columns,
        )

    def unscale_data_cotangent(self, g: ConeData) -> ConeData:
        """Return cotangents of the given data from those of the scaled data: the adjoint of `scale_data`.

        Parameters
        ----------
        g : ConeData
            On the sparsity of `ConeScalings.scaled_structure`; the result is on that of
            `ConeScalings.structure`.
        """
        scalings, shears = self.scalings, self.scalings.shears
        if self.is_identity:
            return ConeData(g.P, scalings.dropfill_in(g.A), g.b, g.c)
        scaled = g.A * self._A_factors
        A = np.array(scalings.dropfill_in(scaled))
        A[:, shears.entries] += self.shear[:, shears.shear_of] * scaled[:, shears.targets]
        return ConeData(g.P * self._P_factors, A, self.unscale_dual(g.b), g.c * self.columns)

    def scale_point(self, point: Point) -> Point:
        """Return the solutions of the scaled programs that belong to solutions of the given ones."""
        x, y, s = point
        return Point(x / self.columns, self.scale_dual(y), self.scale_slack(s))

    def unscale_point(self, point: Point) -> Point:
        """Return the solutions of the given programs that belong to solutions of the scaled ones."""
        x, y, s = point
        return Point(x * self.columns, self.unscale_dual(y), self.unscale_slack(s))

    def scale_products(self, change: Products) -> Products:
        """Return the products of a perturbation of the scaled programs."""
        E, (Px, Ax, Aty, b, c) = self.columns, change
        return Products(Px * E, self.scale_slack(Ax), Aty * E, self.scale_slack(b), c * E)

    def scale_cotangent(self, gx: Array, gy: Array, gs: Array) -> tuple[Array, Array, Array]:
        """Return a cotangent of the solutions of the scaled programs."""
        return gx * self.columns, self.scale_slack(gy), self.scale_dual(gs)

    def unscale_multipliers(self, r1: Array, r2: Array) -> tuple[Array, Array]:
        """Return multipliers of the given programs; `program.outer` makes cotangents of the data of them."""
        return r1 * self.columns, self.unscale_dual(r2)

    def unscale_cotangent(self, gx: Array, gy: Array, gs: Array) -> tuple[Array, Array, Array]:
        """Undo `scale_cotangent`."""
        return gx / self.columns, self.unscale_slack(gy), self.unscale_dual(gs)

    def scale_multipliers(self, r1: Array, r2: Array) -> tuple[Array, Array]:
        """Undo `unscale_multipliers`."""
        return r1 / self.columns, self.scale_dual(r2)

    @property
    def _A_factors(self) -> Array:
        """Factors of the entries of A, on the sparsity of `ConeScalings.scaled_structure`."""
        A = self.scalings.scaled_structure.A
        return self.diagonal[:, A.indices] * self.columns[:, A.columns]

    @property
    def _P_factors(self) -> Array:
        """Factors of the entries of P."""
        P = self.scalings.structure.P
        return self.columns[:, P.indices] * self.columns[:, P.columns]

    def scale_slack(self, w: Array) -> Array:
        """Return T w, for w of shape (B, m)."""
        if self.is_identity:
            return w
        w = self.scalings.shears.apply(w, self.shear)
        return w * self.diagonal

    def unscale_slack(self, w: Array) -> Array:
        """Return T⁻¹ w, for w of shape (B, m)."""
        return w if self.is_identity else self.scalings.shears.apply(w / self.diagonal, -self.shear)

    def scale_dual(self, w: Array) -> Array:
        """Return T⁻ᵀ w, for w of shape (B, m)."""
        if self.is_identity:
            return w
        return self.scalings.shears.apply(w, -self.shear, transposed=True) / self.diagonal

    def unscale_dual(self, w: Array) -> Array:
        """Return Tᵀ w, for w of shape (B, m)."""
        if self.is_identity:
            return w
        return self.scalings.shears.apply(w * self.diagonal, self.shear, transposed=True)


def _largest(values: Array, place: Indices, size: int) -> Array:
    """Return the largest of the values (B, nnz) at each place (nnz,), or zero if there is none; (B, size)."""
    result = np.zeros((len(values), size))
    if place.size:
        order = np.argsort(place, kind="stable")
        starts = np.flatnonzero(np.diff(place[order], prepend=-1))
        result[:, place[order[starts]]] = np.maximum.reduceat(values[:, order], starts, axis=1)
    return result
