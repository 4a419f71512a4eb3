r"""Power cones and their duals, of rows (x, y, z).

.. math:: K_a = \{(x, y, z) : x^a y^{1-a} \ge |z|,\ x, y \ge 0\}

Projection after Hien 2015 (Differential properties of Euclidean projection onto power cone): with
ζ = |z0| and r = |z| the projection is at

.. math:: x = \tfrac12 (x_0 + \sqrt{x_0^2 + 4 a μ}), \quad y = \tfrac12 (y_0 + \sqrt{y_0^2 + 4 (1-a) μ}),
          \quad μ = r (ζ - r),

where r solves a log x + (1 - a) log y = log r. In θ = log(r / (ζ - r)) this is monotone on the whole
line, and close to linear for large |θ|.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conediff.cones.automorphism import ROUNDING, Automorphism, equalising_factor
from conediff.cones.base import Array, BlockDerivative, ConeDefaults
from conediff.cones.roots import increasing_root
from conediff.cones.surface import Eigenvalues, norm3, scaled, unit3

# Entries below this fraction of the largest count as zero, so that μ, a product of two entries and a factor
# down to exp(-400), does not underflow. Far below the unit roundoff of 1e-16, so that no digit is lost.
_NEGLIGIBLE = 1e-60
# Bracket of θ. At its ends r / ζ, or 1 - r / ζ, is exp(-400) = 1e-174; its square root, which enters x and y,
# is 1e-87, far below rounding.
_RANGE = (-400.0, 400.0)


@dataclass(frozen=True, eq=False)
class _Split:
    """v = primal + polar at N points, the projections onto K_a and onto its polar.

    Parameters
    ----------
    alpha : array, shape (N,)
    v, primal, polar : array, shape (N, 3)
        All over ``scale`` (N,).
    inside, outside : bool array, shape (N,)
        Which are in K_a, or in its polar.
    surface, theta : array, shape (k,)
        Which points project onto the surface off its edges, and θ there.
    """

    alpha: Array
    v: Array
    scale: Array
    primal: Array
    polar: Array
    inside: NDArray[np.bool_]
    outside: NDArray[np.bool_]
    surface: NDArray[np.intp]
    theta: Array

    def eigenvalues(self) -> Eigenvalues:
        free = np.repeat(self.inside[:, None], 3, axis=1)
        edge = self._is_edge
        free[edge, :2] = self.v[edge, :2] > 0
        result = Eigenvalues.axes(free)
        result.primal[edge, 2] = self._edge_slope()[edge]
        result.polar[edge, 2] = 1 - result.primal[edge, 2]
        at = self.surface
        result.put(at, unit3(self.primal[at]), unit3(self.polar[at]), self._curvature())
        return result

    def third_derivative(self, eigenvalues: Eigenvalues) -> Array:
        r"""Return q of `conediff.cones.surface.Bending`, shape (N, 3).

        The rays p ~ (e^{(1-a)θ}, e^{-aθ}, ±1) and n turn at the rates p_x p_y / |n_z| and |n_x n_y| / |p_z|,
        and the logarithmic derivative of their quotient is (1 - 2a) + 3a t_y² - 3(1-a) t_x². On an edge
        (z = 0, x and y of different signs) p, n and t are the axes, and T[t, t, t] = 0.
        """
        at = self.surface
        a = self.alpha[at]
        p, n, t = np.moveaxis(eigenvalues.vectors[at], 2, 0)
        rates = p[:, 0] * p[:, 1] / np.abs(n[:, 2]), np.abs(n[:, 0] * n[:, 1] / p[:, 2])
        change = np.sign(n[:, 2]) * ((1 - 2 * a) + 3 * a * t[:, 1] ** 2 - 3 * (1 - a) * t[:, 0] ** 2)
        q = eigenvalues.third_derivative(at, (self.primal[at], self.polar[at]), rates, change)
        for up, down in ((0, 1), (1, 0)):
            edge = np.flatnonzero(self._is_edge & (self.v[:, up] > 0))
            product = eigenvalues.primal[edge, 2] * eigenvalues.polar[edge, 2]
            q[edge, up], q[edge, down] = product / self.v[edge, up], -product / self.v[edge, down]
        return q / self.scale[:, None]

    @property
    def _is_edge(self) -> NDArray[np.bool_]:
        return np.asarray((self.v[:, 2] == 0) & ~self.inside & ~self.outside)

    def _edge_slope(self) -> Array:
        """dz/dz0 at z0 = 0 where x0 and y0 differ in sign: the surface there is y = x (|z|/x)^(1/(1-a))."""
        x, y = self.v[:, 0], self.v[:, 1]
        exponent = np.where(x > 0, self.alpha, 1 - self.alpha)
        up, down = np.maximum(x, y), -np.minimum(x, y)
        half = up / np.where(up + 2 * down > 0, up + 2 * down, 1.0)
        return np.select([exponent > 0.5, exponent < 0.5], [1.0, 0.0], half)

    def _curvature(self) -> Array:
        r"""κ = (a BC + (1-a) AC + AB)/(a A + (1-a) B + C), with A = (x - x0)/x and so on.

        A, B, -C are the curvatures μ ∇²(-a log x - (1-a) log y + log z).
        """
        a = self.alpha[self.surface]
        x, y, z = self.v[self.surface].T
        mu, C = _multiplier(self.theta, np.abs(z)), np.exp(-self.theta)
        (_, A), (_, B) = _shifted(x, a * mu), _shifted(y, (1 - a) * mu)
        largest = np.maximum(np.maximum(A, B), C)
        A, B, C = A / largest, B / largest, C / largest
        return np.asarray(largest * ((a * B * C + (1 - a) * A * C + A * B) / (a * A + (1 - a) * B + C)))

    def margin(self) -> Array:
        """Distance to the nearest kink, shape (N,); an estimate from inside K_a or its polar."""
        between = np.minimum(norm3(self.primal), norm3(self.polar))
        a = self.alpha
        x, y, z = np.abs(self.v).T
        with np.errstate(all="ignore"):
            from_inside = _depth(a, 1.0, 1.0, x, y, z)
            from_outside = _depth(a, a, 1 - a, x, y, z)
        result = np.select([self.inside, self.outside], [from_inside, from_outside], between)
        return self.scale * np.where(result > 0, result, 0.0)


def _depth(a: Array, over_x: Array | float, over_y: Array | float, x: Array, y: Array, z: Array) -> Array:
    """Estimate the distance from a point with (x / over_x)^a (y / over_y)^(1-a) >= z to the boundary.

    It is the smaller of the distances to the boundary of the linearised inequality and to x = 0 or y = 0.
    """
    mean = (x / over_x) ** a * (y / over_y) ** (1 - a)
    flat = (mean - z) / np.sqrt(1 + (a * mean / x) ** 2 + ((1 - a) * mean / y) ** 2)
    return np.asarray(np.minimum(flat, np.minimum(x, y)))


def _multiplier(theta: Array, zeta: Array) -> Array:
    """μ = r (ζ - r)."""
    fall = np.exp(-np.abs(theta))
    return np.asarray((zeta / (1 + fall)) ** 2 * fall)


def _shifted(x0: Array, product: Array) -> tuple[Array, Array]:
    """Return the positive x with x (x - x0) = product > 0, and (x - x0)/x, both without cancellation."""
    larger = (np.abs(x0) + np.sqrt(x0 * x0 + 4 * product)) / 2
    smaller = product / larger
    up = x0 >= 0
    x, shift = np.where(up, larger, smaller), np.where(up, smaller, larger)
    return x, shift / x


def _split(v: Array, alpha: Array) -> _Split:
    """Split v, of shape (N, 3), for exponents (N,)."""
    v, scale = scaled(v)
    v[np.abs(v) < _NEGLIGIBLE] = 0.0
    x, y, z = v.T
    zeta = np.abs(z)
    up, down = np.maximum(v[:, :2], 0.0).T, np.maximum(-v[:, :2], 0.0).T
    inside = (x >= 0) & (y >= 0) & (up[0] ** alpha * up[1] ** (1 - alpha) >= zeta)
    dual_mean = (down[0] / alpha) ** alpha * (down[1] / (1 - alpha)) ** (1 - alpha)
    outside = ~inside & (x <= 0) & (y <= 0) & (dual_mean >= zeta)
    primal = np.where(outside[:, None], 0.0, np.stack([up[0], up[1], np.where(inside, z, 0.0)], axis=-1))
    surface = np.flatnonzero(~inside & ~outside & (zeta > 0))
    theta = _root(alpha[surface], x[surface], y[surface], zeta[surface])
    polar = v - primal
    _place(primal, polar, v, alpha, surface, theta)
    return _Split(alpha, v, scale, primal, polar, inside, outside, surface, theta)


def _place(
    primal: Array, polar: Array, v: Array, alpha: Array, surface: NDArray[np.intp], theta: Array
) -> None:
    """Write the two projections of the points on the surface."""
    a = alpha[surface]
    x0, y0, z0 = v[surface].T
    mu = _multiplier(theta, np.abs(z0))
    (x, A), (y, B) = _shifted(x0, a * mu), _shifted(y0, (1 - a) * mu)
    fall = np.exp(-np.abs(theta))
    near, far = z0 / (1 + fall), z0 * (fall / (1 + fall))
    z, rest = np.where(theta > 0, near, far), np.where(theta > 0, far, near)
    primal[surface] = np.stack([x, y, z], axis=-1)
    polar[surface] = np.stack([-x * A, -y * B, rest], axis=-1)


def _root(a: Array, x0: Array, y0: Array, zeta: Array) -> Array:
    """Find θ, for points (k,)."""
    log_zeta = np.log(zeta)

    def function(theta: Array, which: NDArray[np.intp]) -> tuple[Array, Array]:
        b = a[which]
        mu = _multiplier(theta, zeta[which])
        (x, A), (y, B) = _shifted(x0[which], b * mu), _shifted(y0[which], (1 - b) * mu)
        r = 1 / (1 + np.exp(-theta))
        value = log_zeta[which] - np.logaddexp(0.0, -theta) - b * np.log(x) - (1 - b) * np.log(y)
        slope = (1 - r) - (1 - 2 * r) * (b * A / (1 + A) + (1 - b) * B / (1 + B))
        return value, slope

    low, high = (np.full(a.shape, end) for end in _RANGE)
    with np.errstate(all="ignore"):
        return increasing_root(function, low, high, np.zeros(a.shape))


@dataclass(frozen=True, eq=False)
class PowerProjection:
    """Π(v) for power cones and their duals.

    Parameters
    ----------
    point : array, shape (..., count, 3)
    """

    point: Array
    _split: _Split
    _onto_polar: NDArray[np.bool_]

    def derivative(self) -> BlockDerivative:
        """Return D, by its eigenvalues: see `conediff.cones.surface`."""
        eigenvalues = self._split.eigenvalues()
        values = np.where(self._onto_polar[:, None], eigenvalues.polar, eigenvalues.primal)
        # T is K's at the point that was split, for both: see `ExponentialProjection`.
        third = partial(self._split.third_derivative, eigenvalues)
        return eigenvalues.blocks(values, self.point.shape[:-1], self._split.margin, third)


@dataclass(frozen=True)
class Power(ConeDefaults):
    """Power cones, each with its own exponent.

    Parameters
    ----------
    alphas : tuple of float
        In (0, 1), or in (-1, 0) for the dual of the cone with exponent -alpha, as in SCS.
    """

    alphas: tuple[float, ...]
    dim = 3
    diagonal = False

    @property
    def count(self) -> int:
        """How many cones the group holds."""
        return len(self.alphas)

    @property
    def group_key(self) -> Hashable:
        """The same for all power cones: each cone of a group has its own exponent."""
        return Power

    def join(self, others: Sequence[Any]) -> Power:
        """Return the group of all these cones."""
        return Power(sum((other.alphas for other in others), self.alphas))

    @cached_property
    def _exponents(self) -> Array:
        return np.array(self.alphas, dtype=float)

    def primal_dual_scaling(self, y: Array, s: Array, least_y: Array, least_s: Array) -> Automorphism | None:
        """Scale x and y by a power of two each, and z by the product of their powers.

        The projection has x and y to full precision however small they are, so that a ratio up to
        2^(2 ROUNDING) still counts.
        """
        y, s = np.maximum(y[..., :2], 0), np.maximum(s[..., :2], 0)
        factors = equalising_factor(y, s, least_y[..., :2], least_s[..., :2], 2 * ROUNDING)
        a = np.abs(self._exponents)
        last = factors[..., 0] ** a * factors[..., 1] ** (1 - a)
        return Automorphism(np.concatenate([factors, last[..., None]], axis=-1))

    def project_dual(self, v: Array, near: Array | None = None) -> PowerProjection:
        """Project v, of shape (..., count, 3).

        The result is minus the projection of -v onto the polar of K_a for a power cone, and the projection
        of v onto K_a for a dual one.
        """
        alpha = np.broadcast_to(self._exponents, v.shape[:-1]).ravel()
        dual = alpha > 0
        sign = np.where(dual, -1.0, 1.0)[:, None]
        split = _split(sign * v.reshape(-1, 3), np.abs(alpha))
        point = sign * split.scale[:, None] * np.where(dual[:, None], split.polar, split.primal)
        return PowerProjection(point.reshape(v.shape), split, dual)
