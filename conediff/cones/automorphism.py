r"""Automorphisms of cones: maps T with T K = K, under which s becomes T s and its dual y becomes T⁻ᵀ y.

The vector v = y - s carries a dual pair and loses digits of the smaller one. A suitable T makes both about
equally large. T is a diagonal matrix times, for exponential cones, one shear:

.. math:: T = \mathrm{diag}(d)\,(I + a\, e_\mathrm{into} e_\mathrm{from}^\top).

- Every cone admits scaling by a positive number.
- The exponential cone: (x, y, z) to (x + a y, y, e^a z), a shift of the logarithm's argument.
- The power cone: (x, y, z) to (p x, q y, p^α q^{1-α} z).

All factors are powers of two, except that e^a and p^α q^{1-α} are rounded. Each cone chooses its T in its own
file (`Cone.primal_dual_scaling`); this module has the parts that several cones use.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# No rescaling if |log2(|y| / |s|)| <= EVEN: at most 10 of 53 bits are lost then. Larger: fewer programs are
# solved again in a scaling, with less accurate derivatives. The gradient of `minimise c x - log x` was off by
# 4e-4 at c = 1e6 without rescaling (docs/design.md).
EVEN = 10.0
# No rescaling if |log2(|y| / |s|)| >= ROUNDING: the smaller one is rounding error of the larger one then.
# 45 of 53 bits leave a factor of 256 for accumulated rounding; with more, noise would be blown up.
ROUNDING = 45.0


@dataclass(frozen=True)
class Automorphism:
    """T for a group of equal cones and a stack of points.

    Parameters
    ----------
    diagonal : array, shape (B, count, dim)
        d.
    shear : array, shape (B, count), or None
        a, in the rows `Cone.shear_rows`; None for cones without a shear.
    """

    diagonal: Array
    shear: Array | None = None


def equalising_factor(
    y: Array, s: Array, least_y: Array, least_s: Array, rounding: float = ROUNDING
) -> Array:
    """Return the power of two t that makes s t and y / t about equally large.

    The result is 1 where |log2(y / s)| is at most `EVEN` or at least ``rounding``.

    Parameters
    ----------
    y, s : arrays, shape (...)
        Sizes, not negative.
    least_y, least_s : arrays, broadcast to shape (...)
        Sizes below these count as these: digits below do not matter.
    rounding : float
        In doublings.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log2(y) - np.log2(s)
        lowest = np.minimum(np.log2(np.maximum(y, least_y)) - np.log2(s), 0.0)
        highest = np.maximum(np.log2(y) - np.log2(np.maximum(s, least_s)), 0.0)
        both_count = np.abs(ratio) < rounding
        ratio = np.clip(ratio, lowest, highest)
    uneven = both_count & (np.abs(ratio) > EVEN)
    return np.exp2(np.where(uneven, np.round(np.where(uneven, ratio, 0.0) / 2), 0.0))


def scaling_by_a_number(y: Array, s: Array, least_y: Array, least_s: Array) -> Automorphism:
    """Return the multiple of the identity that makes |y| and |s| about equal, cone by cone.

    Parameters
    ----------
    y, s : arrays, shape (B, count, dim)
    least_y, least_s : arrays, shape (B, count, dim) or (1, count, dim)
        Entries below these count as these.
    """
    size_y, size_s = (np.linalg.norm(part, axis=-1) for part in (y, s))
    scale = equalising_factor(size_y, size_s, least_y.min(axis=-1), least_s.max(axis=-1))
    return Automorphism(np.broadcast_to(scale[..., None], y.shape))
