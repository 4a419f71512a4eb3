r"""ConeScalings: programs seen through automorphisms of their cones, in which y and s are of one size.

With T an automorphism of the cone (see `cones.automorphism`) and E a diagonal of powers of two, the program
of E P E, T A E, T b, E c has the solution

.. math:: \hat x = E^{-1} x, \qquad \hat y = T^{-\top} y, \qquad \hat s = T s.

v = y - s, which carries both, loses digits where one is much larger than the other; in the right frame it
does not. Interior point methods for symmetric cones know this as Nesterov-Todd scaling. E makes up for
what T does to the columns of A.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from conediff.cones import Cone
from conediff.program import Array, ConeData, Indices, Pattern, Structure, union
from conediff.scaling.automorphism import Automorphism, balancing, levelling, shear_rows

# A part of less than this fraction of its sum has lost digits, and is not worth more.
_CANCELLED = 2.0**6
# ConeScalings whose diagonals differ by no more than this many doublings are as good as each other.
_CLOSE = 4.0
# Columns of A in the frame whose largest entries are within this factor of one are left alone.
_ORDINARY = 2.0**4


@dataclass(frozen=True, eq=False)
class _Shears:
    """Where shears stand, k of them, and which entries of A they move.

    They add multiples of rows ``source`` (k,) to rows ``into`` (k,). ``taken`` (e,) are entries of A in rows
    ``source``, ``which`` (e,) the shear that each belongs to, and ``given`` (e,) where on the lifted sparsity
    it is added.
    """

    into: Indices
    source: Indices
    taken: Indices
    which: Indices
    given: Indices


class ConeScalings:
    """The frames of programs of one structure.

    Parameters
    ----------
    structure : Structure

    Attributes
    ----------
    given, structure : Structure
        As given, and with room in A for what shears fill in: mostly the same.
    identity : ConeScaling
        That of the programs as they are.
    """

    def __init__(self, structure: Structure) -> None:
        self.given = structure
        lifted, self._kept, self._shears = _lifted(structure)
        self._groups = [(cone, rows) for cone, rows in structure.cone.groups if not cone.diagonal]
        self.identity = ConeScaling(
            self,
            np.ones((1, structure.m)),
            np.zeros((1, self._shears.into.size)),
            np.ones((1, structure.n)),
        )
        self.structure = (
            structure if lifted is structure.A else Structure(structure.P, lifted, structure.cone)
        )

    def balancing(self, data: ConeData, x: Array, y: Array, s: Array) -> ConeScaling:
        """Return the frame in which y and s, of solutions (B, n), (B, m), (B, m), are of one size."""
        nothing = np.zeros((1, self.given.m))
        frame = self._balancing(data, y, s, nothing, nothing)
        if frame.trivial:
            return frame
        # A slack that is left over from larger terms has lost its digits before, and a dual that is small
        # beside the terms that it is added to has none that matter: there is nothing to gain.
        A = self.given.A
        matvec, rmatvec = A.products(np.abs(data.A))
        rows = matvec(np.abs(x)) + np.abs(data.b)
        columns = rmatvec(np.abs(y)) + np.abs(data.c) + self.given.P.products(np.abs(data.P))[0](np.abs(x))
        with np.errstate(divide="ignore"):
            shares = 1 / _largest(np.abs(data.A) / columns[:, A.columns], A.indices, A.shape[0])
        return self._balancing(data, y, s, shares / _CANCELLED, rows / _CANCELLED)

    def _balancing(self, data: ConeData, y: Array, s: Array, least_y: Array, least_s: Array) -> ConeScaling:
        def one(cone: Cone, rows: Indices) -> Automorphism | None:
            return balancing(cone, y[:, rows], s[:, rows], least_y[:, rows], least_s[:, rows])

        with np.errstate(invalid="ignore"):
            return self._frame(data, len(y), one)

    def levelling(self, data: ConeData) -> ConeScaling:
        """Return the frame in which rows of A in exponential cones are of ordinary size."""

        A = self.given.A

        def one(cone: Cone, rows: Indices) -> Automorphism | None:
            if shear_rows(cone) is None:
                return None
            # Only these rows are looked at, for every solve comes by here.
            place = np.full(A.shape[0], -1)
            place[rows[:, 2]] = np.arange(len(rows))
            mine = np.flatnonzero(place[A.indices] >= 0)
            return levelling(cone, _largest(np.abs(data.A[:, mine]), place[A.indices[mine]], len(rows)))

        return self._frame(data, len(data.A), one)

    def _frame(
        self, data: ConeData, count: int, find: Callable[[Cone, Indices], Automorphism | None]
    ) -> ConeScaling:
        """Put T together from what is found for each group of cones, and find E for it where T is not one."""
        found = [(rows, find(cone, rows)) for cone, rows in self._groups]
        parts = [(rows, part) for rows, part in found if part is not None]
        if all((part.diagonal == 1).all() for _, part in parts):
            return self.identity
        diagonal, shear = np.ones((count, self.given.m)), [np.zeros((count, 0))]
        for rows, part in parts:
            diagonal[:, rows] = part.diagonal
            shear += [] if part.shear is None else [part.shear]
        frame = replace(self.identity, diagonal=diagonal, shear=np.hstack(shear))
        size = _largest(np.abs(frame.data(data).A), self.structure.A.columns, self.given.n)
        strange = (size > 0) & ((size < 1 / _ORDINARY) | (size > _ORDINARY))
        strange &= (diagonal != 1).any(axis=1, keepdims=True)
        columns = np.exp2(np.where(strange, -np.round(np.log2(np.where(strange, size, 1.0))), 0.0))
        return replace(frame, columns=columns)

    def lift(self, A: Array) -> Array:
        """Lay values of A out on the sparsity of `structure`."""
        if self.structure is self.given:
            return A
        lifted = np.zeros((len(A), self.structure.A.nnz))
        lifted[:, self._kept] = A
        return lifted

    def settle(self, A: Array) -> Array:
        """Pick the values on the sparsity of `given` out of those on that of `structure`."""
        return A if self.structure is self.given else A[:, self._kept]


@dataclass(frozen=True, eq=False)
class ConeScaling:
    """T for a stack of programs.

    Parameters
    ----------
    frames : ConeScalings
    diagonal : array, shape (B, m) or (1, m)
    shear : array, shape (B, k) or (1, k)
        For each cone that has one.
    columns : array, shape (B, n) or (1, n)
        E's diagonal.
    """

    frames: ConeScalings
    diagonal: Array
    shear: Array
    columns: Array

    @cached_property
    def trivial(self) -> bool:
        """Whether T = I for the whole stack."""
        return bool((self.diagonal == 1).all() and (self.shear == 0).all())

    def differs(self, other: ConeScaling) -> NDArray[np.bool_]:
        """Which programs are seen quite differently in the other frame, shape (B,)."""
        apart = np.abs(np.log2(self.diagonal) - np.log2(other.diagonal))
        result: NDArray[np.bool_] = apart.max(axis=1, initial=0.0) > _CLOSE
        return result

    def take(self, index: NDArray[np.intp] | slice) -> ConeScaling:
        """Return the frame of the programs at these positions."""
        if len(self.diagonal) == 1:
            return self
        return ConeScaling(self.frames, self.diagonal[index], self.shear[index], self.columns[index])

    def data(self, data: ConeData) -> ConeData:
        """Return the data in this frame, on the sparsity of `Frames.structure`."""
        frames = self.frames
        A, shears = frames.lift(data.A), frames._shears
        if self.trivial:
            return ConeData(data.P, A, data.b, data.c)
        A = np.array(np.broadcast_to(A, (max(len(A), len(self.shear)), A.shape[1])))
        A[:, shears.given] += self.shear[:, shears.which] * data.A[:, shears.taken]
        return ConeData(data.P * self._both, A * self._sizes, self.rows(data.b), data.c * self.columns)

    def data_back(self, g: ConeData) -> ConeData:
        """Return cotangents of the data outside of the frame, on the sparsity of `Frames.given`."""
        frames, shears = self.frames, self.frames._shears
        if self.trivial:
            return ConeData(g.P, frames.settle(g.A), g.b, g.c)
        scaled = g.A * self._sizes
        A = np.array(frames.settle(scaled))
        A[:, shears.taken] += self.shear[:, shears.which] * scaled[:, shears.given]
        return ConeData(g.P * self._both, A, self.dual_back(g.b), g.c * self.columns)

    @property
    def _sizes(self) -> Array:
        """What entries of A are multiplied with, on the sparsity of `Frames.structure`."""
        A = self.frames.structure.A
        return self.diagonal[:, A.indices] * self.columns[:, A.columns]

    @property
    def _both(self) -> Array:
        """What entries of P are multiplied with."""
        P = self.frames.given.P
        return self.columns[:, P.indices] * self.columns[:, P.columns]

    def rows(self, w: Array) -> Array:
        """Return T w, for w of shape (B, m)."""
        if self.trivial:
            return w
        w = self._sheared(w, self.shear)
        return w * self.diagonal

    def rows_back(self, w: Array) -> Array:
        """Return the inverse of T, applied to w of shape (B, m)."""
        return w if self.trivial else self._sheared(w / self.diagonal, -self.shear)

    def dual(self, w: Array) -> Array:
        """Return the inverse of T', applied to w of shape (B, m)."""
        return w if self.trivial else self._sheared(w, -self.shear, transposed=True) / self.diagonal

    def dual_back(self, w: Array) -> Array:
        """Return T'w, for w of shape (B, m)."""
        return w if self.trivial else self._sheared(w * self.diagonal, self.shear, transposed=True)

    def _sheared(self, w: Array, shear: Array, transposed: bool = False) -> Array:
        """Return (I + shear) w, a new array."""
        shears = self.frames._shears
        into, source = (shears.source, shears.into) if transposed else (shears.into, shears.source)
        w = np.array(np.broadcast_to(w, (max(len(w), len(shear)), w.shape[1])))
        w[:, into] += shear * w[:, source]
        return w


def _largest(values: Array, place: Indices, size: int) -> Array:
    """Largest of the values (B, nnz) at each place (nnz,); zero where there is none; shape (B, size)."""
    result = np.zeros((len(values), size))
    if place.size:
        order = np.argsort(place, kind="stable")
        starts = np.flatnonzero(np.diff(place[order], prepend=-1))
        result[:, place[order[starts]]] = np.maximum.reduceat(values[:, order], starts, axis=1)
    return result


def _lifted(structure: Structure) -> tuple[Pattern, Indices, _Shears]:
    """Return A's sparsity with room for shears, where its entries stand there, and the shears."""
    A, m = structure.A, structure.m
    pairs = [
        (rows[:, ends[0]], rows[:, ends[1]])
        for cone, rows in structure.cone.groups
        if not cone.diagonal and (ends := shear_rows(cone)) is not None
    ]
    none = np.zeros(0, dtype=np.intp)
    into = np.concatenate([none, *(pair[0] for pair in pairs)])
    source = np.concatenate([none, *(pair[1] for pair in pairs)])
    shear_of = np.full(m, -1)
    shear_of[source] = np.arange(source.size)
    taken = np.flatnonzero(shear_of[A.indices] >= 0)
    which = shear_of[A.indices[taken]]
    pattern, (kept, given) = union(A.shape, [(A.indices, A.columns), (into[which], A.columns[taken])])
    if pattern.nnz == A.nnz:
        pattern = A
    return pattern, kept, _Shears(into, source, taken, which, given)
