"""The protocol of a cone: projection onto its dual, the derivative of that projection, and its scaling.

A `Cone` is a *group* of ``count`` equal cones of ``dim`` rows each, a small frozen value. All methods work on
arrays of shape ``(..., count, dim)``, so that one call serves all equal cones of a whole batch.

Π is the Euclidean projection onto the dual cone K*, D = DΠ(v) its derivative (symmetric,
0 <= D <= I) and S = D^(1/2) its symmetric root.

A new cone writes ``count``, ``dim``, ``diagonal`` and ``project_dual``, and inherits the rest from
`ConeDefaults`; a derivative writes ``margin``, ``apply``, ``apply_root``, ``dense`` and, for second
derivatives, ``bend``, and inherits the rest from `DerivativeDefaults`. See docs/extending.md.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np

from conediff.cones.automorphism import Array as Array
from conediff.cones.automorphism import Automorphism, scaling_by_a_number
from conediff.cones.forms import Eigenbasis
from conediff.cones.forms import LowRankPart as LowRankPart
from conediff.errors import ConeError


class ConeDerivative(Protocol):
    """D = DΠ(v) and its root S, for a group of equal cones at a batch of points."""

    @property
    def margin(self) -> Array:
        """Distance of v to the nearest kink of Π, shape (..., count); 0 where Π has no derivative."""

    def apply(self, h: Array) -> Array:
        """Return D h, for h of shape (..., count, dim)."""

    def apply_root(self, h: Array) -> Array:
        """Return S h, for h of shape (..., count, dim)."""

    def dense(self) -> tuple[Array, Array]:
        """Return D and S as blocks of shape (..., count, dim, dim)."""

    def bend(self, h: Array, k: Array) -> Array:
        """Return T[h, k], the derivative of D along h applied to k; h and k of shape (..., count, dim).

        <T[h, k], l> is symmetric in all three arguments, and T[v, .] = 0. At a kink T belongs to the side
        whose D is taken; the jump of D is left out.
        """

    @property
    def low_rank(self) -> LowRankPart | None:
        """D as a multiple of the identity and a matrix of low rank; None if it is not of this form."""

    @property
    def eigenbasis(self) -> Eigenbasis | None:
        """Coordinates in which D is diagonal; None if the cone has none (`Cone.has_eigenbasis`)."""

    def replacement_eigenvalue(self, shape: tuple[int, ...]) -> Array:
        """Return the a whose a I replaces D where D's block is too large to be formed.

        Parameters
        ----------
        shape : tuple of int
            (count, dim).

        Returns
        -------
        array, shape (..., count, 1)
        """


class Projection(Protocol):
    """Π(v) for a group of equal cones, with the values that its derivative needs."""

    @property
    def point(self) -> Array:
        """The projection Π(v), shape (..., count, dim)."""

    def derivative(self) -> ConeDerivative:
        """Return the derivative of the projection at the same v."""


class Cone(Protocol):
    """A group of equal cones."""

    @property
    def count(self) -> int:
        """Number of cones in the group."""

    @property
    def dim(self) -> int:
        """Rows of one cone."""

    @property
    def diagonal(self) -> bool:
        """Whether D is always diagonal, so that S A has the sparsity of A."""

    def project_dual(self, v: Array, near: Array | None = None) -> Projection:
        """Project v, of shape (..., count, dim), onto the dual cone.

        ``near``, of the same shape, is a guess of the projection. A cone may start an iterative search from
        it. The result must not depend on it, beyond rounding.
        """

    @property
    def group_key(self) -> Hashable:
        """Cones with equal keys join into one group."""

    def join(self, others: Sequence[Any]) -> Cone:
        """Return the group of this group's cones and those of ``others``, in this order."""

    @property
    def is_polyhedral(self) -> bool:
        """Whether Π is piecewise linear, so that `ConeDerivative.bend` is zero."""

    @property
    def dense_limit(self) -> int:
        """Rows of one cone above which its block of D and S A is not formed in K."""

    @property
    def is_large(self) -> bool:
        """Whether the blocks of these cones are not formed in K."""

    @property
    def has_eigenbasis(self) -> bool:
        """Whether the derivatives of the projection have an `Eigenbasis`."""

    def primal_dual_scaling(self, y: Array, s: Array, least_y: Array, least_s: Array) -> Automorphism | None:
        """Return the automorphism under which y and s have about one size; None if none is used.

        Parameters
        ----------
        y, s : arrays, shape (B, count, dim)
        least_y, least_s : arrays, shape (B, count, dim) or (1, count, dim)
            Entries of y and s below these count as these: digits below do not matter.
        """

    @property
    def shear_rows(self) -> tuple[int, int] | None:
        """Rows (into, from) of the shear within one cone; None if its automorphisms have no shear."""

    @property
    def equilibrated_row(self) -> int | None:
        """The row of one cone that `row_equilibration` scales; None for cones without it."""

    def row_equilibration(self, size: Array) -> Automorphism | None:
        """Return the automorphism that brings one row of A to ordinary size before the first solve.

        Parameters
        ----------
        size : array, shape (B, count)
            Largest absolute entry of A in row ``equilibrated_row`` of each cone.
        """


class ConeDefaults:
    """Everything that a cone has by default. Its subclass is a frozen dataclass."""

    # Rows above which a cone's block is not formed in K. It has dim^2 / 2 entries, 125,000 at 500 rows; a
    # larger limit costs memory and factorisation time with its square, a smaller one leaves more cones to
    # GMRES, which may take hundreds of steps.
    dense_limit: ClassVar[int] = 500
    has_eigenbasis: ClassVar[bool] = False
    shear_rows: ClassVar[tuple[int, int] | None] = None
    equilibrated_row: ClassVar[int | None] = None

    @property
    def group_key(self) -> Hashable:
        """The cone itself with ``count`` = 1: all fields but ``count`` have to agree."""
        return replace(self, count=1)  # type: ignore[type-var]

    def join(self: Cone, others: Sequence[Any]) -> Cone:
        """Return the same cone with the sum of all counts."""
        count = self.count + sum(other.count for other in others)
        joined: Cone = replace(self, count=count)  # type: ignore[type-var]
        return joined

    @property
    def is_polyhedral(self: Cone) -> bool:
        """Whether D is always diagonal: then K is a product of half-lines, lines and points."""
        return self.diagonal

    @property
    def is_large(self: Cone) -> bool:
        """Whether D is not diagonal and has more than ``dense_limit`` rows."""
        return not self.diagonal and self.dim > self.dense_limit

    def primal_dual_scaling(self, y: Array, s: Array, least_y: Array, least_s: Array) -> Automorphism | None:
        """Scale each cone by a number, which is an automorphism of every cone."""
        return scaling_by_a_number(y, s, least_y, least_s)

    def row_equilibration(self, size: Array) -> Automorphism | None:
        """Scale no row."""
        return None


class DerivativeDefaults:
    """Everything that a derivative has by default."""

    def bend(self, h: Array, k: Array) -> Array:
        """Raise ConeError: second derivatives of programs with this cone are not available."""
        what = f"{type(self).__name__}.bend(h, k), see docs/extending.md"
        raise ConeError(f"second derivatives need the derivative of D: write {what}")

    @property
    def low_rank(self) -> LowRankPart | None:
        """None: D is not known to be a multiple of the identity and a matrix of low rank."""
        return None

    @property
    def eigenbasis(self) -> Eigenbasis | None:
        """None: no coordinates in which D is diagonal are known."""
        return None

    def replacement_eigenvalue(self: ConeDerivative, shape: tuple[int, ...]) -> Array:
        """Estimate the mean eigenvalue of D from one vector of random signs (Hutchinson 1990)."""
        signs = np.random.default_rng(0).choice([-1.0, 1.0], shape)
        mean: Array = np.clip((signs * self.apply(signs)).mean(axis=-1, keepdims=True), 0, 1)
        return mean


@dataclass(frozen=True, eq=False)
class DiagonalDerivative(DerivativeDefaults):
    """D = diag(d) with d in {0, 1}, so that S = D.

    Parameters
    ----------
    d : array of 0 and 1, shape (..., count, dim)
    margin : array, shape (..., count)
    """

    d: Array
    margin: Array

    def apply(self, h: Array) -> Array:
        """Return D h, for h of shape (..., count, dim)."""
        return self.d * h

    def apply_root(self, h: Array) -> Array:
        """Return S h = D h."""
        return self.d * h

    def bend(self, h: Array, k: Array) -> Array:
        """Return zero: D is constant on each side of a kink."""
        return np.zeros(np.broadcast_shapes(self.d.shape, h.shape, k.shape))

    def dense(self) -> tuple[Array, Array]:
        """Return D and S = D as blocks of shape (..., count, dim, dim)."""
        block = self.d[..., None] * np.eye(self.d.shape[-1])
        return block, block


@dataclass(frozen=True, eq=False)
class BlockDerivative(DerivativeDefaults):
    """D and S as small dense blocks.

    Parameters
    ----------
    D, S : arrays, shape (..., count, dim, dim)
    distance : callable
        Returns the margin, shape (..., count). It is called only if the margin is asked for, which Newton's
        method never does.
    bending : callable, optional
        ``bending(h, k)`` returns T[h, k]; without it second derivatives are refused.
    """

    D: Array
    S: Array
    distance: Callable[[], Array]
    bending: Callable[[Array, Array], Array] | None = None

    @cached_property
    def margin(self) -> Array:
        """Distance of v to the nearest kink, shape (..., count)."""
        return self.distance()

    def apply(self, h: Array) -> Array:
        """Return D h, for h of shape (..., count, dim)."""
        return np.asarray(np.einsum("...ij,...j->...i", self.D, h))

    def apply_root(self, h: Array) -> Array:
        """Return S h, for h of shape (..., count, dim)."""
        return np.asarray(np.einsum("...ij,...j->...i", self.S, h))

    def dense(self) -> tuple[Array, Array]:
        """Return D and S as blocks of shape (..., count, dim, dim)."""
        return self.D, self.S

    def bend(self, h: Array, k: Array) -> Array:
        """Return T[h, k] as ``bending`` does."""
        return super().bend(h, k) if self.bending is None else self.bending(h, k)
