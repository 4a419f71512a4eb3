r"""The exponential cone and its dual, in SCS's row order (x, y, z).

.. math:: K = \mathrm{cl}\{(x, y, z) : y > 0,\ y e^{x/y} \le z\}

Projection after Friberg 2021 (Projection onto the exponential cone: a univariate root-finding problem).
A point outside K and its polar is v = p + n with, for some ρ = x/y,

.. math:: p \parallel (\rho, 1, e^\rho), \qquad n \parallel (1, 1 - \rho, -e^{-\rho}).

Only ρ is searched for: given ρ, p and n are the projections of v onto these two rays, and as accurate as v.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from conediff.cones.automorphism import ROUNDING, Automorphism, equalising_factor
from conediff.cones.base import Array, BlockDerivative, ConeDefaults
from conediff.cones.roots import increasing_root
from conediff.cones.surface import Eigenvalues, norm3, scaled, split_on_rays

# Entries below this fraction of the largest count as zero, so that no ratio of two entries overflows. Far
# below the unit roundoff of 1e-16, so that no digit is lost.
_NEGLIGIBLE = 1e-100
# Points (ρ, 1, e^ρ) with |ρ| <= _LEVEL are not shifted: z and y are within e^7.5 = 2^10.8 of each other,
# about the ratio that `EVEN` allows.
_LEVEL = 7.5
# Points with |ρ| >= _STEEP count as points on the face x <= 0 = y <= z and are not shifted: e^-100 is far
# below rounding.
_STEEP = 100.0
# Third rows of A whose largest entry is within 2^±7 of one are not scaled. The threshold is that of
# `Magnitude` for whole programs. Larger: SCS sees rows that are more uneven; smaller: more programs are
# scaled.
_ORDINARY = 7.0


@dataclass(frozen=True, eq=False)
class _Split:
    """v = primal + polar at N points, the projections onto K and onto its polar.

    Parameters
    ----------
    v, primal, polar : array, shape (N, 3)
        All over ``scale`` (N,).
    surface : int array, shape (k,)
        Which points project onto the smooth surface; ``rays`` belong to them, see `_rays`.
    inside, outside, face : bool array, shape (N,)
        Which are in K, in its polar, or project onto the face x <= 0 = y <= z.
    """

    v: Array
    scale: Array
    primal: Array
    polar: Array
    surface: NDArray[np.intp]
    rays: tuple[Array, Array, Array]
    inside: NDArray[np.bool_]
    outside: NDArray[np.bool_]
    face: NDArray[np.bool_]

    def eigenvalues(self) -> Eigenvalues:
        free = np.repeat(self.inside[:, None], 3, axis=1)
        free[:, 0] |= self.face
        free[:, 2] |= self.face & (self.v[:, 2] > 0)
        result = Eigenvalues.axes(free)
        at = self.surface
        p, n, factor = self.rays
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            kappa = norm3(self.polar[at]) * (factor / norm3(self.primal[at]))
        result.put(at, p, n, np.where(np.isnan(kappa), 0.0, kappa))
        return result

    def third_derivative(self, eigenvalues: Eigenvalues) -> Array:
        """Return q of `conediff.cones.surface.Bending`, shape (N, 3).

        In the scalings of `_rays` they turn at rates |N|/|P|² and |P|/|N|², and ℓ = 1 - 3 (t_x t_y + t_z²).
        """
        at = self.surface
        p, n, t = np.moveaxis(eigenvalues.vectors[at], 2, 0)
        left = p[:, 1] >= p[:, 2]  # ρ <= 0
        size_p = 1 / np.where(left, p[:, 1], p[:, 2])
        size_n = 1 / np.where(left, -n[:, 2], n[:, 0])
        fall = np.where(left, p[:, 2], p[:, 1]) * size_p
        rates = size_n / size_p**2 * np.where(left, 1, fall), size_p / size_n**2 * np.where(left, fall, 1)
        change, parts = 3 * (t[:, 0] * t[:, 1] + t[:, 2] ** 2) - 1, (self.primal[at], self.polar[at])
        return eigenvalues.third_derivative(at, parts, rates, change) / self.scale[:, None]

    def margin(self) -> Array:
        """Distance to the nearest kink, shape (N,); an estimate from inside K or its polar."""
        x, y, z = self.v.T
        to_face = np.hypot(np.maximum(x, 0), np.maximum(y, 0))
        between = np.minimum(np.minimum(norm3(self.primal), norm3(self.polar)), to_face)
        with np.errstate(all="ignore"):
            from_inside = _depth(x / y, y, z)
            from_outside = _depth(y / x - 1, x, -z)
        on_face = np.minimum(np.minimum(-x, -y), np.abs(z))
        result = np.select(
            [self.face, self.inside, self.outside], [on_face, from_inside, from_outside], between
        )
        return np.asarray(self.scale * np.maximum(result, 0.0))


def _depth(ratio: Array, y: Array, z: Array) -> Array:
    """Estimate the distance from a point with y exp(x/y) <= z, y > 0 to the boundary of that set.

    It is the smaller of the distances to the boundary of the linearised inequality and to y = 0.
    """
    power = np.exp(np.minimum(ratio, 700.0))
    gradient = np.sqrt(1 + power**2 * (1 + np.maximum((1 - ratio) ** 2, ratio**2)))
    return np.asarray(np.minimum((z - y * power) / gradient, y))


def _split(v: Array, near: Array | None) -> _Split:
    """Split v, of shape (N, 3); ``near`` (N, 3) is a guess of its projection onto K."""
    start = np.full(len(v), np.nan) if near is None else _known_ratio(near, near - v)
    v, scale = scaled(v)
    v[np.abs(v) < _NEGLIGIBLE] = 0.0
    x, y, z = v.T
    face = (x <= 0) & (y <= 0)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        inside = ~face & (y > 0) & (y * np.exp(np.minimum(x / y, 700.0)) <= z)
        outside = ~face & (x > 0) & (x * np.exp(np.minimum(y / x - 1, 700.0)) <= -z)
    primal = np.where(inside[:, None], v, 0.0)
    primal[face] = np.stack([x, np.zeros_like(x), np.maximum(z, 0.0)], axis=-1)[face]
    polar = np.where((inside | outside | face)[:, None], v - primal, 0.0)
    surface = np.flatnonzero(~(inside | outside | face))
    rays = _rays(_ratio(x[surface], y[surface], z[surface], start[surface]))
    primal[surface], polar[surface] = split_on_rays(v[surface], *rays[:2])
    return _Split(v, scale, primal, polar, surface, rays, inside, outside, face)


def _known_ratio(p: Array, n: Array) -> Array:
    """Estimate ρ of points on the surface from p and -n (N, 3), whichever is larger; arbitrary elsewhere."""
    with np.errstate(all="ignore"):
        return np.where(p[:, 1] > n[:, 0], p[:, 0] / p[:, 1], 1 + n[:, 1] / n[:, 0])


def _rays(rho: Array) -> tuple[Array, Array, Array]:
    """Unit vectors along p and n, shape (k, 3), and κ |p| / |n|, shape (k,)."""
    fall = np.exp(-np.abs(rho))
    left, one = rho <= 0, np.ones_like(rho)
    p = np.stack([rho, one, fall], axis=-1)
    n = np.stack([one, 1 - rho, -fall], axis=-1)
    p[~left] = np.stack([rho * fall, fall, one], axis=-1)[~left]
    n[left] = np.stack([fall, (1 - rho) * fall, -one], axis=-1)[left]
    size_p, size_n = norm3(p), norm3(n)
    # κ = (|n| / |p|) e^(-2ρ) (|(ρ, 1, e^ρ)| / |(1, 1 - ρ, -e^-ρ)|)^3, in the two scalings used above.
    with np.errstate(divide="ignore", over="ignore"):
        factor = (size_p / size_n) ** 3 * np.where(left, fall, 1 / fall)
    return p / size_p[:, None], n / size_n[:, None], factor


def _ratio(x: Array, y: Array, z: Array, start: Array) -> Array:
    r"""Find ρ = x/y of the projection onto K, for points (k,) with no entry above one.

    The search begins at ``start`` (k,) where that is inside the bracket.

    From v = p + n follow |p|, |n| ∝ a = (ρ - 1) x + y and d = x - ρ y, over q = ρ² - ρ + 1, and
    (a e^ρ - d e^-ρ)/q = z, an increasing function while a, d > 0. It is solved in the form

    .. math:: \rho + \tfrac12 \log(a/d) - \mathrm{asinh}(z q / 2\sqrt{ad}) = 0,

    which has the same sign and root, and is close to linear for large |ρ|. The ends of the bracket are the
    zeros of a and d or, where tighter, points at which a e^ρ / q > 2 or d e^-ρ / q > 2, which exceeds the sum
    of the other terms.
    """
    with np.errstate(all="ignore"):
        up = np.where(y > 0, x / y, np.inf)
        down = np.where(x > 0, 1 - y / x, -np.inf)
        high = np.where(x > 0, np.minimum(up, np.maximum(down + 1, 2 * np.log(2 / x) + 2)), up)
        low = np.where(y > 0, np.maximum(down, np.minimum(up - 1, -2 * np.log(6 / y) - 2)), down)

        def function(rho: Array, which: NDArray[np.intp]) -> tuple[Array, Array]:
            xs, ys = x[which], y[which]
            a, d, q = (rho - 1) * xs + ys, xs - rho * ys, rho * (rho - 1) + 1
            grow, fall = xs / a, ys / d
            height = z[which] * q / (2 * np.sqrt(a) * np.sqrt(d))
            value = rho + (np.log(a) - np.log(d)) / 2 - np.arcsinh(height)
            bend = height / np.hypot(1.0, height) * ((2 * rho - 1) / q - (grow - fall) / 2)
            value = np.where(a <= 0, -np.inf, np.where(d <= 0, np.inf, value))
            return value, 1 + (grow + fall) / 2 - bend

        middle = np.where(high - low > 2, np.clip(0.0, low + 1, high - 1), (low + high) / 2)
        start = np.where((start > low) & (start < high), start, middle)
        return increasing_root(function, low, high, start)


@dataclass(frozen=True, eq=False)
class ExponentialProjection:
    """Π(v) for exponential cones, or for their duals.

    Parameters
    ----------
    point : array, shape (..., count, 3)
    """

    point: Array
    _split: _Split
    _onto_polar: bool

    def derivative(self) -> BlockDerivative:
        """Return D, by its eigenvalues: see `conediff.cones.surface`."""
        eigenvalues = self._split.eigenvalues()
        values = eigenvalues.polar if self._onto_polar else eigenvalues.primal
        # D of the polar is I - D of K, and the dual's v is minus the split point: T is that of K for both.
        third = partial(self._split.third_derivative, eigenvalues)
        return eigenvalues.blocks(values, self.point.shape[:-1], self._split.margin, third)


def _scaling(y: Array, s: Array, least_y: Array, least_s: Array) -> Automorphism:
    """Return T for s in the exponential cone and y in its dual.

    On the surface s = α (ρ, 1, e^ρ) and y = β (-1, ρ - 1, e^-ρ). The shift takes ρ to about zero, and a
    number makes α and β about equal.
    """
    alpha, beta = s[..., 1], -y[..., 0]
    size = np.maximum(np.abs(y).max(axis=-1), np.abs(s).max(axis=-1))
    surface = np.minimum(alpha, beta) > np.exp2(-ROUNDING) * size
    alpha, beta = np.where(surface, alpha, 1.0), np.where(surface, beta, 1.0)
    rho = np.where(alpha > beta, s[..., 0] / alpha, 1 + y[..., 1] / beta)
    with np.errstate(divide="ignore"):
        highest = np.maximum(np.log(alpha) - np.log(least_s[..., 2]), 0.0)
        lowest = np.minimum(np.log(least_y[..., 2]) - np.log(beta), 0.0)
    shift = np.clip(-rho, lowest, highest)
    steep = surface & (np.abs(shift) > _LEVEL) & (np.abs(rho) < _STEEP)
    doublings = np.where(steep, np.round(np.where(steep, shift, 0.0) / np.log(2)), 0.0)
    number = equalising_factor(beta, alpha, least_y[..., 0], least_s[..., 1])
    diagonal = np.repeat(number[..., None], 3, axis=-1)
    diagonal[..., 2] *= np.exp2(doublings)
    return Automorphism(diagonal, doublings * np.log(2))


class _ExponentialDefaults(ConeDefaults):
    """Shared by the exponential cone and its dual."""

    dim = 3
    diagonal = False
    equilibrated_row = 2

    def row_equilibration(self, size: Array) -> Automorphism | None:
        """Bring the largest entry of A in each third row to about one, by a shift of the logarithm."""
        with np.errstate(divide="ignore"):
            doublings = np.log2(size)
        strange = np.isfinite(doublings) & (np.abs(doublings) > _ORDINARY)
        doublings = np.where(strange, -np.round(np.where(strange, doublings, 0.0)), 0.0)
        diagonal = np.ones((*size.shape, 3))
        diagonal[..., -1] = np.exp2(doublings)
        return Automorphism(diagonal, doublings * np.log(2))


@dataclass(frozen=True)
class Exponential(_ExponentialDefaults):
    """``count`` exponential cones.

    Parameters
    ----------
    count : int
    """

    count: int
    shear_rows = (0, 1)

    def primal_dual_scaling(self, y: Array, s: Array, least_y: Array, least_s: Array) -> Automorphism | None:
        """Shift the logarithm's argument and scale by a number."""
        return _scaling(y, s, least_y, least_s)

    def project_dual(self, v: Array, near: Array | None = None) -> ExponentialProjection:
        """Project v, of shape (..., count, 3), onto the dual: minus the projection of -v onto the polar."""
        split = _split(-v.reshape(-1, 3), None if near is None else (near - v).reshape(-1, 3))
        point = -split.scale[:, None] * split.polar
        return ExponentialProjection(point.reshape(v.shape), split, True)


@dataclass(frozen=True)
class DualExponential(_ExponentialDefaults):
    """``count`` duals of the exponential cone.

    Parameters
    ----------
    count : int
    """

    count: int
    shear_rows = (1, 0)

    def primal_dual_scaling(self, y: Array, s: Array, least_y: Array, least_s: Array) -> Automorphism | None:
        """Use the inverse transpose of the exponential cone's T, with y and s exchanged."""
        T = _scaling(s, y, least_s, least_y)
        assert T.shear is not None
        return Automorphism(1 / T.diagonal, -T.shear)

    def project_dual(self, v: Array, near: Array | None = None) -> ExponentialProjection:
        """Project v, of shape (..., count, 3), onto the exponential cone."""
        split = _split(v.reshape(-1, 3), None if near is None else near.reshape(-1, 3))
        point = split.scale[:, None] * split.primal
        return ExponentialProjection(point.reshape(v.shape), split, False)
