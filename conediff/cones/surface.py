r"""DΠ of three-dimensional cones with a smooth surface, by its eigenvalues.

A point v outside both K and its polar is the sum of its projections onto them, v = p + n with p
orthogonal to n. Π is homogeneous of degree one, so DΠ_K has the eigenvectors p and n with eigenvalues 1 and
0. Its third eigenvector is p x n with eigenvalue 1/(1 + κ), where κ is |n| times the curvature of the
surface at p in the direction p x n. The derivative of the projection onto the polar is the complement, with
eigenvalues 0, 1 and κ/(1 + κ).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from conediff.cones.base import Array, BlockDerivative


@dataclass(frozen=True, eq=False)
class Eigenvalues:
    """Eigenvectors and eigenvalues of DΠ_K at N points.

    Parameters
    ----------
    vectors : array, shape (N, 3, 3)
        Orthonormal columns, the eigenvectors.
    primal, polar : arrays, shape (N, 3)
        Eigenvalues of the derivatives of the projections onto K and onto its polar. They add to one; both are
        stored, because one minus a number near one loses digits.
    """

    vectors: Array
    primal: Array
    polar: Array

    @classmethod
    def axes(cls, free: NDArray[np.bool_]) -> Eigenvalues:
        """Start from diagonal derivatives: ``free`` (N, 3) holds ones and zeros."""
        vectors = np.zeros((len(free), 3, 3))
        vectors[:, (0, 1, 2), (0, 1, 2)] = 1.0
        primal = free.astype(np.float64)
        return cls(vectors, primal, 1 - primal)

    def put(self, where: NDArray[np.intp], p: Array, n: Array, kappa: Array) -> None:
        """Fill in points on the surface: unit vectors p and n, shape (k, 3), and κ, shape (k,)."""
        vectors = np.empty((len(p), 3, 3))
        vectors[:, :, 0], vectors[:, :, 1] = p, n
        vectors[:, 0, 2] = p[:, 1] * n[:, 2] - p[:, 2] * n[:, 1]
        vectors[:, 1, 2] = p[:, 2] * n[:, 0] - p[:, 0] * n[:, 2]
        vectors[:, 2, 2] = p[:, 0] * n[:, 1] - p[:, 1] * n[:, 0]
        self.vectors[where] = vectors
        with np.errstate(divide="ignore", over="ignore"):  # 1 / (1 + 1 / κ) is 0 for a κ near 0
            bent = np.stack([1 / (1 + kappa), 1 / (1 + 1 / kappa)])
        ones, zeros = np.ones_like(kappa), np.zeros_like(kappa)
        self.primal[where] = np.stack([ones, zeros, bent[0]], axis=-1)
        self.polar[where] = np.stack([zeros, ones, bent[1]], axis=-1)

    def blocks(
        self,
        values: Array,
        shape: tuple[int, ...],
        margin: Callable[[], Array],
        third: Callable[[], Array],
    ) -> BlockDerivative:
        """Return D and S with these eigenvalues (N, 3), in a shape (..., count).

        Parameters
        ----------
        margin, third : callables
            Return the margin (N,), and what `third_derivative` does.
        """
        root = np.sqrt(values)
        D, S = (_squared(self.vectors * part[:, None, :]) for part in (root, np.sqrt(root)))
        return BlockDerivative(
            D.reshape(*shape, 3, 3),
            S.reshape(*shape, 3, 3),
            lambda: margin().reshape(shape),
            Bending(self.vectors[:, :, 2].reshape(*shape, 3), third, shape),
        )

    def third_derivative(
        self, at: NDArray[np.intp], parts: tuple[Array, Array], rates: tuple[Array, Array], change: Array
    ) -> Array:
        """Return q of `Bending`, shape (N, 3); zero away from the surface.

        Parameters
        ----------
        at : int array, shape (k,)
            The points on the surface.
        parts : (primal, polar)
            Their projections onto K and its polar, shape (k, 3) each.
        rates : (a_p, a_n)
            Shape (k,) each.
        change : array, shape (k,)
            σ ℓ.
        """
        w, polar_w = self.primal[at, 2], self.polar[at, 2]
        product, bent = w * polar_w, w * polar_w > 0
        along_p, along_n = (np.where(bent, _length3(part), 1.0) for part in parts)
        # α a_p + β a_n by the larger of the two terms, whose fractions are w and w̄.
        first = w >= polar_w
        term = np.where(first, along_p * rates[0], along_n * rates[1])
        with np.errstate(divide="ignore", over="ignore"):  # subnormal lengths
            turn = -change * np.where(first, w, polar_w) / term
            coefficients = np.stack([product / along_p, -product / along_n, product * turn / 3], axis=-1)
        coefficients[~bent] = 0.0
        q = np.zeros((len(self.vectors), 3))
        q[at] = np.einsum("nij,nj->ni", self.vectors[at], coefficients)
        return q


@dataclass(frozen=True, eq=False)
class Bending:
    r"""T, the derivative of DΠ, at points v = α p + β n of a smooth surface, with unit vectors p and n.

    Moving v along p or n leaves both rays as they are, and changes the eigenvalue w = 1/(1 + κ) only through
    κ ~ β/α; moving it along t = p x n turns both rays. So, with w̄ = 1 - w, three numbers of the symmetric
    tensor T are not zero,

    .. math:: T_{ptt} = w \bar w / α, \qquad T_{ntt} = -w \bar w / β, \qquad T_{ttt},

    and with q = T_ptt p + T_ntt n + (T_ttt / 3) t

    .. math:: T[h, k] = q (t'h)(t'k) + t ((q'h)(t'k) + (t'h)(q'k)).

    T_ttt depends on the surface: with a_p and a_n the rates at which the two rays turn per unit of its
    parameter, α a_p : β a_n = w : w̄, and ℓ the logarithmic derivative of a_n / a_p along the parameter,
    T_ttt = -σ w w̄ ℓ / (α a_p + β a_n), σ the sign of the turning.

    Parameters
    ----------
    t : array, shape (..., 3)
    third : callable
        Returns q, shape (N, 3), over all cones and points. It is called only if second derivatives are
        asked for.
    shape : tuple of int
        Shape of the points, (..., count).
    """

    t: Array
    third: Callable[[], Array]
    shape: tuple[int, ...]

    @cached_property
    def q(self) -> Array:
        """The vector q, shape (..., 3)."""
        return self.third().reshape(*self.shape, 3)

    def __call__(self, h: Array, k: Array) -> Array:
        """Return T[h, k], for h and k of shape (..., 3)."""
        th, tk, qh, qk = (_dot(a, b)[..., None] for a in (self.t, self.q) for b in (h, k))
        return self.q * (th * tk) + self.t * (qh * tk + th * qk)


def _dot(a: Array, b: Array) -> Array:
    return np.asarray(np.einsum("...i,...i->...", a, b))


def _squared(blocks: Array) -> Array:
    """G G', which is symmetric to the last bit."""
    return np.asarray(blocks @ np.swapaxes(blocks, 1, 2))


def norm3(a: Array) -> Array:
    """|a| for a of shape (N, 3)."""
    return np.sqrt(a[:, 0] * a[:, 0] + a[:, 1] * a[:, 1] + a[:, 2] * a[:, 2])


def _length3(a: Array) -> Array:
    """|a| for a of shape (N, 3), however small: its square may underflow."""
    return np.asarray(np.hypot(np.hypot(a[:, 0], a[:, 1]), a[:, 2]))


def unit3(a: Array) -> Array:
    """a / |a| for a of shape (N, 3), however small |a|."""
    a = a / np.abs(a).max(axis=1, initial=0.0)[:, None]
    return a / norm3(a)[:, None]


def dot3(a: Array, b: Array) -> Array:
    """<a, b> for a and b of shape (N, 3)."""
    return np.asarray(a[:, 0] * b[:, 0] + a[:, 1] * b[:, 1] + a[:, 2] * b[:, 2])


def split_on_rays(v: Array, p: Array, n: Array) -> tuple[Array, Array]:
    """Return the projections of v onto the rays of the unit vectors p and n, all of shape (N, 3)."""
    primal = np.maximum(dot3(v, p), 0.0)[:, None] * p
    polar = np.maximum(dot3(v, n), 0.0)[:, None] * n
    return primal, polar


def scaled(v: Array) -> tuple[Array, Array]:
    """Return points (N, 3) over the power of two just above their largest entry, and that scale (N,)."""
    _, exponent = np.frexp(np.abs(v).max(axis=1, initial=0.0))
    scale = np.ldexp(1.0, np.minimum(exponent, 1023))
    return v / scale[:, None], scale
