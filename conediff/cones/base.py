"""What a cone can do: project onto its dual, and differentiate that projection.

A `Cone` is a *group* of ``count`` equal cones of ``dim`` rows each, a small frozen value. Everything
is written once for arrays of shape ``(..., count, dim)``, so that a thousand equal cones and a
whole batch are one call.

Π is the Euclidean projection onto the dual cone K*, D = DΠ(v) its derivative (symmetric,
0 <= D <= I) and S = D^(1/2) its symmetric root.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


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


class Projection(Protocol):
    """Π(v) for a group of equal cones, with what its derivative needs kept beside it."""

    @property
    def point(self) -> Array:
        """The projection Π(v), shape (..., count, dim)."""

    def derivative(self) -> ConeDerivative:
        """Return the derivative of the projection at the same v."""


class Cone(Protocol):
    """A group of equal cones."""

    @property
    def count(self) -> int:
        """How many cones the group holds."""

    @property
    def dim(self) -> int:
        """Rows of one cone."""

    @property
    def diagonal(self) -> bool:
        """Whether D is always diagonal, so that S A has the sparsity of A."""

    def project_dual(self, v: Array, near: Array | None = None) -> Projection:
        """Project v, of shape (..., count, dim), onto the dual cone.

        ``near``, of the same shape, is about where the projection is, if that is known: a cone may begin
        its search there.
        """


@dataclass(frozen=True, eq=False)
class DiagonalDerivative:
    """D = diag(d) with d in {0, 1}, so that S = D."""

    d: Array
    margin: Array

    def apply(self, h: Array) -> Array:
        return self.d * h

    def apply_root(self, h: Array) -> Array:
        return self.d * h

    def dense(self) -> tuple[Array, Array]:
        block = self.d[..., None] * np.eye(self.d.shape[-1])
        return block, block


@dataclass(frozen=True, eq=False)
class BlockDerivative:
    """D and S as small dense blocks of shape (..., count, dim, dim).

    ``distance`` is called when the margin is asked for: Newton's method never does.
    """

    D: Array
    S: Array
    distance: Callable[[], Array]

    @cached_property
    def margin(self) -> Array:
        """Distance of v to the nearest kink, shape (..., count)."""
        return self.distance()

    def apply(self, h: Array) -> Array:
        return np.asarray(np.einsum("...ij,...j->...i", self.D, h))

    def apply_root(self, h: Array) -> Array:
        return np.asarray(np.einsum("...ij,...j->...i", self.S, h))

    def dense(self) -> tuple[Array, Array]:
        return self.D, self.S
