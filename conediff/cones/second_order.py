"""Second-order cones {(v0, v1): |v1| <= v0}."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conediff.cones.base import Array

_SAFE = 1e-280  # squares outside [_SAFE, 1 / _SAFE] have lost digits, or are about to


@dataclass(frozen=True, eq=False)
class SecondOrderDerivative:
    r"""D of second-order cones by its eigenvalues: O(dim) to hold and to apply.

    With u = v1/|v1|, D has the eigenvectors (1, u)/√2 and (1, -u)/√2 with eigenvalues ``along`` and
    ``across``, and (0, w) for all w orthogonal to u with the eigenvalue ``around``.

    Parameters
    ----------
    u : array, shape (..., count, dim - 1)
        Unit vectors, or zero where v1 = 0 (there the three eigenvalues are equal).
    along, across, around : array, shape (..., count)
    margin : array, shape (..., count)
    """

    u: Array
    along: Array
    across: Array
    around: Array
    margin: Array

    def apply(self, h: Array) -> Array:
        """Return D h, for h of shape (..., count, dim)."""
        return _apply(self.u, self.along, self.across, self.around, h)

    def apply_root(self, h: Array) -> Array:
        """Return S h; ``along`` and ``across`` are 0 or 1, their own roots."""
        return _apply(self.u, self.along, self.across, np.sqrt(self.around), h)

    def dense(self) -> tuple[Array, Array]:
        """Return D and S as blocks of shape (..., count, dim, dim)."""
        D = _block(self.u, self.along, self.across, self.around)
        return D, _block(self.u, self.along, self.across, np.sqrt(self.around))


def _apply(u: Array, along: Array, across: Array, around: Array, h: Array) -> Array:
    h0, h1 = h[..., 0], h[..., 1:]
    radial = _dot(u, h1)
    plus, minus = along * (h0 + radial) / 2, across * (h0 - radial) / 2
    result = np.empty(np.broadcast_shapes(h.shape, (*u.shape[:-1], h.shape[-1])))
    result[..., 0] = plus + minus
    result[..., 1:] = (plus - minus - around * radial)[..., None] * u + around[..., None] * h1
    return result


def _block(u: Array, along: Array, across: Array, around: Array) -> Array:
    dim = u.shape[-1] + 1
    block = np.empty((*u.shape[:-1], dim, dim))
    mean, half = (along + across) / 2, (along - across) / 2
    block[..., 0, 0] = np.where(_dot(u, u) > 0, mean, around)
    block[..., 0, 1:] = block[..., 1:, 0] = half[..., None] * u
    block[..., 1:, 1:] = ((mean - around)[..., None] * u)[..., None] * u[..., None, :]
    diagonal = np.arange(1, dim)
    block[..., diagonal, diagonal] += around[..., None]
    return block


def _dot(a: Array, b: Array) -> Array:
    return np.asarray(np.einsum("...i,...i->...", a, b))


def _norm(v: Array) -> Array:
    """|v| along the last axis, without overflow or underflow."""
    square = _dot(v, v)
    if ((square > _SAFE) & (square < 1 / _SAFE)).all():
        return np.sqrt(square)
    scale = np.abs(v).max(axis=-1, initial=0.0)
    unit = v / np.where(scale > 0, scale, 1.0)[..., None]
    return np.asarray(scale * np.sqrt(_dot(unit, unit)))


@dataclass(frozen=True, eq=False)
class SecondOrderProjection:
    """Π(v) for second-order cones.

    Parameters
    ----------
    v, point : array, shape (..., count, dim)
    norm : array, shape (..., count)
        |v1|.
    inside, outside : bool array, shape (..., count)
        Whether v is in the interior of K (Π = v), or in -K (Π = 0).
    """

    v: Array
    point: Array
    norm: Array
    inside: NDArray[np.bool_]
    outside: NDArray[np.bool_]

    def derivative(self) -> SecondOrderDerivative:
        """Return D: I inside, 0 outside, and eigenvalues 1, 0, (1 + v0/|v1|)/2 between."""
        v0, norm = self.v[..., 0], self.norm
        positive = np.where(norm > 0, norm, 1.0)
        u = self.v[..., 1:] / positive[..., None]
        inside, outside = self.inside.astype(np.float64), self.outside.astype(np.float64)
        settled = self.inside | self.outside
        around = np.where(settled, inside, (1 + v0 / np.where(settled, 1.0, norm)) / 2)
        margin = np.abs(np.abs(v0) - norm) / np.sqrt(2)
        return SecondOrderDerivative(u, 1 - outside, inside, np.clip(around, 0, 1), margin)


@dataclass(frozen=True)
class SecondOrder:
    """``count`` second-order cones of ``dim`` rows (v0, v1), each its own dual.

    Parameters
    ----------
    count : int
    dim : int
        At least 1; a cone of one row is a half-line.
    """

    count: int
    dim: int

    @property
    def diagonal(self) -> bool:
        """Only cones of one row have a diagonal D."""
        return self.dim == 1

    def project_dual(self, v: Array, near: Array | None = None) -> SecondOrderProjection:
        """Project v, of shape (..., count, dim)."""
        v0, v1 = v[..., 0], v[..., 1:]
        norm = _norm(v1)
        inside, outside = v0 > norm, v0 <= -norm
        height = v0 / 2 + norm / 2
        settled = inside | outside
        stretch = np.where(settled, 1.0, height / np.where(settled, 1.0, norm))
        point = v * np.where(outside, 0.0, stretch)[..., None]
        point[..., 0] = np.where(inside, v0, np.where(outside, 0.0, height))
        return SecondOrderProjection(v, point, norm, inside, outside)
