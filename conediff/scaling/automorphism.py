r"""Automorphisms of cones: maps T with T K = K, under which s becomes T s and its dual y becomes T⁻ᵀ y.

One vector v = y - s carries a dual pair, so it loses digits of the smaller of the two; a good T makes both
about equally large. It is a diagonal matrix and, for exponential cones, one shear,

.. math:: T = \mathrm{diag}(d)\,(I + a\, e_\mathrm{into} e_\mathrm{from}^\top).

- Every cone may be scaled by a number.
- The exponential cone: (x, y, z) to (x + a y, y, e^a z), a shift of the logarithm's argument.
- The power cone: (x, y, z) to (p x, q y, p^α q^{1-α} z).

Factors are powers of two, up to the rounding of a and of the last, and one where y and s are of one size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conediff.cones.base import Array, Cone
from conediff.cones.exponential import DualExponential, Exponential
from conediff.cones.power import Power
from conediff.cones.psd import PSD, ComplexPSD
from conediff.cones.second_order import SecondOrder

# |y| / |s| within 2^±_EVEN is left alone, and so is what is beyond 2^±_NOISE: noise beside something.
_EVEN, _NOISE = 10.0, 45.0
# |log(z / y)| up to which an exponential cone's points are left alone, and beyond which they are on its face.
_LEVEL, _STEEP = 7.5, 100.0
# Rows of A whose largest entry is within 2^±_ORDINARY are ordinary.
_ORDINARY = 7.0


@dataclass(frozen=True)
class Automorphism:
    """T for a group of equal cones at a stack of points.

    Parameters
    ----------
    diagonal : array, shape (B, count, dim)
    shear : array, shape (B, count), or None
        a; None for cones that have none.
    """

    diagonal: Array
    shear: Array | None = None


def shear_rows(cone: Cone) -> tuple[int, int] | None:
    """Rows (into, from) of the shear within a cone of this group; None if it has none."""
    if isinstance(cone, Exponential):
        return 0, 1
    return (1, 0) if isinstance(cone, DualExponential) else None


def balancing(cone: Cone, y: Array, s: Array, least_y: Array, least_s: Array) -> Automorphism | None:
    """Return the T that makes y and s of one size; None for cones whose v loses nothing.

    Parameters
    ----------
    cone : Cone
    y, s : arrays, shape (B, count, dim)
    least_y, least_s : arrays, shape (B, count, dim) or (1, count, dim)
        What they count as where they are smaller: below that their digits do not matter.
    """
    if isinstance(cone, Exponential):
        return Automorphism(*_exponential(y, s, least_y, least_s))
    if isinstance(cone, DualExponential):
        diagonal, shear = _exponential(s, y, least_s, least_y)
        return Automorphism(1 / diagonal, -shear)
    if isinstance(cone, Power):
        return Automorphism(_power(np.array(cone.alphas), y, s, least_y, least_s))
    if isinstance(cone, (SecondOrder, PSD, ComplexPSD)):
        size_y, size_s = (np.linalg.norm(part, axis=-1) for part in (y, s))
        scale = _even(size_y, size_s, least_y.min(axis=-1), least_s.max(axis=-1))
        return Automorphism(np.broadcast_to(scale[..., None], y.shape))
    return None


def _even(y: Array, s: Array, least_y: Array, least_s: Array, noise: float = _NOISE) -> Array:
    """The power of two that makes two sizes even, those of y and s; one where they are, or one is nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log2(y) - np.log2(s)
        lowest = np.minimum(np.log2(np.maximum(y, least_y)) - np.log2(s), 0.0)
        highest = np.maximum(np.log2(y) - np.log2(np.maximum(s, least_s)), 0.0)
        there = np.abs(ratio) < noise
        ratio = np.clip(ratio, lowest, highest)
    uneven = there & (np.abs(ratio) > _EVEN)
    return np.exp2(np.where(uneven, np.round(np.where(uneven, ratio, 0.0) / 2), 0.0))


def _exponential(y: Array, s: Array, least_y: Array, least_s: Array) -> tuple[Array, Array]:
    """T for s in the exponential cone and y in its dual: diagonal (..., 3) and shear (...).

    On the surface s = α (ρ, 1, e^ρ) and y = β (-1, ρ - 1, e^-ρ): the shift takes ρ to about zero, and a
    factor α and β to one size.
    """
    alpha, beta = s[..., 1], -y[..., 0]
    size = np.maximum(np.abs(y).max(axis=-1), np.abs(s).max(axis=-1))
    surface = np.minimum(alpha, beta) > np.exp2(-_NOISE) * size
    alpha, beta = np.where(surface, alpha, 1.0), np.where(surface, beta, 1.0)
    rho = np.where(alpha > beta, s[..., 0] / alpha, 1 + y[..., 1] / beta)
    with np.errstate(divide="ignore"):
        highest = np.maximum(np.log(alpha) - np.log(least_s[..., 2]), 0.0)
        lowest = np.minimum(np.log(least_y[..., 2]) - np.log(beta), 0.0)
    shift = np.clip(-rho, lowest, highest)
    steep = surface & (np.abs(shift) > _LEVEL) & (np.abs(rho) < _STEEP)
    doublings = np.where(steep, np.round(np.where(steep, shift, 0.0) / np.log(2)), 0.0)
    diagonal = np.repeat(_even(beta, alpha, least_y[..., 0], least_s[..., 1])[..., None], 3, axis=-1)
    diagonal[..., 2] *= np.exp2(doublings)
    return diagonal, doublings * np.log(2)


def _power(alphas: Array, y: Array, s: Array, least_y: Array, least_s: Array) -> Array:
    """T for power cones, and for the duals of power cones, whose exponents are negative: shape (..., 3)."""
    # The projection has x and y to full precision however small, so that nothing is noise.
    y, s = np.maximum(y[..., :2], 0), np.maximum(s[..., :2], 0)
    factors = _even(y, s, least_y[..., :2], least_s[..., :2], 2 * _NOISE)
    a = np.abs(alphas)
    last = factors[..., 0] ** a * factors[..., 1] ** (1 - a)
    return np.concatenate([factors, last[..., None]], axis=-1)


def levelling(cone: Cone, size: Array) -> Automorphism | None:
    """Return the T that makes the last rows of exponential cones ordinary; None for other cones.

    Parameters
    ----------
    cone : Cone
    size : array, shape (B, count)
        Largest entry of A in the last row of each cone.
    """
    if shear_rows(cone) is None:
        return None
    with np.errstate(divide="ignore"):
        doublings = np.log2(size)
    strange = np.isfinite(doublings) & (np.abs(doublings) > _ORDINARY)
    doublings = np.where(strange, -np.round(np.where(strange, doublings, 0.0)), 0.0)
    diagonal = np.ones((*size.shape, cone.dim))
    diagonal[..., -1] = np.exp2(doublings)
    return Automorphism(diagonal, doublings * np.log(2))
