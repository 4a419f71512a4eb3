"""Second-order cones {(v0, v1): |v1| <= v0}."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from conediff.cones.base import Array, ConeDefaults, DerivativeDefaults, LowRankPart

# Squared norms outside [_SAFE, 1 / _SAFE] are computed again with scaled entries, because squares of single
# entries below 2e-308 or above 2e308 have lost digits. 1e-280 leaves 28 decades for entries smaller than the
# largest.
_SAFE = 1e-280


@dataclass(frozen=True, eq=False)
class SecondOrderDerivative(DerivativeDefaults):
    r"""D of second-order cones by its eigenvalues: O(dim) numbers, O(dim) operations to apply.

    With u = v1/|v1|, D has the eigenvector (1, u)/√2 with eigenvalue ``eig_plus``, the eigenvector (1, -u)/√2
    with eigenvalue ``eig_minus``, and all (0, w) with w orthogonal to u with eigenvalue ``eig_orthogonal``.

    Parameters
    ----------
    u : array, shape (..., count, dim - 1)
        Unit vectors, or zero where v1 = 0 (there the three eigenvalues are equal).
    eig_plus, eig_minus, eig_orthogonal : array, shape (..., count)
    margin : array, shape (..., count)
    v0, norm : array, shape (..., count)
        v0 and |v1|.
    linear : bool array, shape (..., count)
        Whether v is in K or -K, where D is constant.
    """

    u: Array
    eig_plus: Array
    eig_minus: Array
    eig_orthogonal: Array
    margin: Array
    v0: Array
    norm: Array
    linear: NDArray[np.bool_]

    def apply(self, h: Array) -> Array:
        """Return D h, for h of shape (..., count, dim)."""
        return _apply(self.u, self.eig_plus, self.eig_minus, self.eig_orthogonal, h)

    def apply_root(self, h: Array) -> Array:
        """Return S h; ``eig_plus`` and ``eig_minus`` are 0 or 1 and so equal their roots."""
        return _apply(self.u, self.eig_plus, self.eig_minus, np.sqrt(self.eig_orthogonal), h)

    def dense(self) -> tuple[Array, Array]:
        """Return D and S as blocks of shape (..., count, dim, dim)."""
        D = _block(self.u, self.eig_plus, self.eig_minus, self.eig_orthogonal)
        return D, _block(self.u, self.eig_plus, self.eig_minus, np.sqrt(self.eig_orthogonal))

    def bend(self, h: Array, k: Array) -> Array:
        r"""Return T[h, k], the derivative of D along h applied to k.

        It is zero in K and -K. Between them, with slope = v0 / |v1|, h_r = u'h1, h_t = h1 - h_r u and
        h_o = h0 - slope h_r,

        .. math:: T[h, k] = \tfrac{1}{2|v_1|}
                  (h_t^\top k_t,\; k_o h_t + h_o k_t - \mathrm{slope}\, (h_t^\top k_t) u).
        """
        norm = np.where(self.linear, 1.0, self.norm)
        slope = np.where(self.linear, 0.0, self.v0 / norm)
        with np.errstate(over="ignore"):  # |v1| subnormal
            curvature = np.where(self.linear, 0.0, 0.5 / norm)
        (h_o, h_t), (k_o, k_t) = self._split(slope, h), self._split(slope, k)
        across = curvature * _dot(h_t, k_t)
        result = np.empty((*across.shape, self.u.shape[-1] + 1))
        result[..., 0] = across
        result[..., 1:] = (curvature * k_o)[..., None] * h_t + (curvature * h_o)[..., None] * k_t
        result[..., 1:] -= (slope * across)[..., None] * self.u
        return result

    def _split(self, slope: Array, h: Array) -> tuple[Array, Array]:
        """h0 - slope u'h1, and the part of h1 that is orthogonal to u."""
        radial = _dot(self.u, h[..., 1:])
        return h[..., 0] - slope * radial, h[..., 1:] - radial[..., None] * self.u

    @property
    def low_rank(self) -> LowRankPart:
        """``eig_orthogonal`` I, and the two eigenvectors (1, u)/√2 and (1, -u)/√2."""
        return LowRankPart(
            self.eig_orthogonal, np.stack([self.eig_plus, self.eig_minus], axis=-1), self._eigenvectors
        )

    def _eigenvectors(self) -> Array:
        """(1, u)/√2 and (1, -u)/√2, shape (..., count, 2, dim)."""
        vectors = np.empty((*self.u.shape[:-1], 2, self.u.shape[-1] + 1))
        vectors[..., 0] = np.sqrt(0.5)
        vectors[..., 0, 1:], vectors[..., 1, 1:] = np.sqrt(0.5) * self.u, -np.sqrt(0.5) * self.u
        return vectors

    def replacement_eigenvalue(self, shape: tuple[int, ...]) -> Array:
        """Return ``eig_orthogonal``, so that a I differs from D by a matrix of rank two for each cone."""
        return self.eig_orthogonal[..., None]


def _apply(u: Array, eig_plus: Array, eig_minus: Array, eig_orthogonal: Array, h: Array) -> Array:
    h0, h1 = h[..., 0], h[..., 1:]
    radial = _dot(u, h1)
    plus, minus = eig_plus * (h0 + radial) / 2, eig_minus * (h0 - radial) / 2
    result = np.empty(np.broadcast_shapes(h.shape, (*u.shape[:-1], h.shape[-1])))
    result[..., 0] = plus + minus
    result[..., 1:] = (plus - minus - eig_orthogonal * radial)[..., None] * u + eig_orthogonal[..., None] * h1
    return result


def _block(u: Array, eig_plus: Array, eig_minus: Array, eig_orthogonal: Array) -> Array:
    dim = u.shape[-1] + 1
    block = np.empty((*u.shape[:-1], dim, dim))
    mean, half = (eig_plus + eig_minus) / 2, (eig_plus - eig_minus) / 2
    block[..., 0, 0] = np.where(_dot(u, u) > 0, mean, eig_orthogonal)
    block[..., 0, 1:] = block[..., 1:, 0] = half[..., None] * u
    block[..., 1:, 1:] = ((mean - eig_orthogonal)[..., None] * u)[..., None] * u[..., None, :]
    diagonal = np.arange(1, dim)
    block[..., diagonal, diagonal] += eig_orthogonal[..., None]
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
        linear = self.inside | self.outside
        eig_orthogonal = np.where(linear, inside, (1 + v0 / np.where(linear, 1.0, norm)) / 2)
        margin = np.abs(np.abs(v0) - norm) / np.sqrt(2)
        eig_orthogonal = np.clip(eig_orthogonal, 0, 1)
        return SecondOrderDerivative(u, 1 - outside, inside, eig_orthogonal, margin, v0, norm, linear)


@dataclass(frozen=True)
class SecondOrder(ConeDefaults):
    """``count`` second-order cones of ``dim`` rows (v0, v1), each its own dual.

    Parameters
    ----------
    count : int
    dim : int
        At least 1; a cone of one row is a half-line.
    """

    count: int
    dim: int

    # Rows above which a cone's block is not formed in K. Lower than for other cones, because the matrix
    # formed instead differs from K by a low rank, so that no GMRES is needed. Larger: more memory and
    # factorisation time, which grow with its square; smaller: more corrections by low rank.
    dense_limit: ClassVar[int] = 100

    @property
    def diagonal(self) -> bool:
        """Whether the cones have one row."""
        return self.dim == 1

    def project_dual(self, v: Array, near: Array | None = None) -> SecondOrderProjection:
        """Project v, of shape (..., count, dim)."""
        v0, v1 = v[..., 0], v[..., 1:]
        norm = _norm(v1)
        inside, outside = v0 > norm, v0 <= -norm
        height = v0 / 2 + norm / 2
        linear = inside | outside
        stretch = np.where(linear, 1.0, height / np.where(linear, 1.0, norm))
        point = v * np.where(outside, 0.0, stretch)[..., None]
        point[..., 0] = np.where(inside, v0, np.where(outside, 0.0, height))
        return SecondOrderProjection(v, point, norm, inside, outside)
