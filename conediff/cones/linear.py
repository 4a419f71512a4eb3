"""The zero cone and the nonnegative cone: groups of ``count`` cones of one row each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conediff.cones.base import Array, ConeDefaults, DiagonalDerivative


@dataclass(frozen=True, eq=False)
class FreeProjection:
    """The identity: the dual of the zero cone is the whole line.

    Parameters
    ----------
    point : array, shape (..., count, 1)
    """

    point: Array

    def derivative(self) -> DiagonalDerivative:
        """Return the identity, which has no kink: its margin is infinite."""
        ones = np.ones_like(self.point)
        return DiagonalDerivative(ones, np.full(self.point.shape[:-1], np.inf))


@dataclass(frozen=True, eq=False)
class NonNegativeProjection:
    """max(v, 0).

    Parameters
    ----------
    v, point : arrays, shape (..., count, 1)
    """

    v: Array
    point: Array

    def derivative(self) -> DiagonalDerivative:
        """Return diag(v > 0); the kink is at v = 0."""
        return DiagonalDerivative((self.v > 0).astype(np.float64), np.abs(self.v[..., 0]))


@dataclass(frozen=True)
class Zero(ConeDefaults):
    """``count`` zero cones {0}. The dual of each is the line, so Π is the identity.

    Parameters
    ----------
    count : int
    """

    count: int
    dim = 1
    diagonal = True

    def project_dual(self, v: Array, near: Array | None = None) -> FreeProjection:
        """Return v itself, shape (..., count, 1)."""
        return FreeProjection(v)


@dataclass(frozen=True)
class NonNegative(ConeDefaults):
    """``count`` half-lines {v >= 0}, each its own dual.

    Parameters
    ----------
    count : int
    """

    count: int
    dim = 1
    diagonal = True

    def project_dual(self, v: Array, near: Array | None = None) -> NonNegativeProjection:
        """Return max(v, 0), for v of shape (..., count, 1)."""
        return NonNegativeProjection(v, np.maximum(v, 0.0))
