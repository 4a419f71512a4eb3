"""Kinks of the projection: where an answer depends on which one-sided derivative is taken for D."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from conediff.cones import ProductDerivative
from conediff.derivative.constants import KINK, NEGLIGIBLE, SIDE
from conediff.derivative.diagnostics import Observability, peak
from conediff.program import Array, ConeData, Indices, Point

# Parts of an answer (dx and dy, or the cotangents of P, A, b and c), and its size, shape (B,).
Answer = tuple[tuple[Array, ...], Array]


def margin(D: ProductDerivative, point: Point) -> Array:
    """Return the distance of v to the nearest kink relative to the largest entry of v, shape (B,)."""
    size = peak(point.y - point.s)
    size[size == 0] = 1
    relative: Array = D.margin / size
    return relative


def rows_at_kinks(D: ProductDerivative, v: Array, h: Array) -> NDArray[np.bool_]:
    """Return rows of cones at a kink of the projection in which h is not zero, shape (B, m).

    Parameters
    ----------
    D : ProductDerivative
        At v.
    v, h : arrays, shape (B, m)
    """
    size, largest = peak(v), peak(h)
    kinked = np.zeros(h.shape, dtype=bool)
    for _, rows, group in D.groups:
        at_kink = group.margin <= KINK * np.where(size > 0, size, 1)[:, None]
        if at_kink.any():
            moved = np.abs(h[:, rows]).max(axis=-1) > NEGLIGIBLE * largest[:, None]
            kinked[:, rows] = (at_kink & moved)[..., None]
    return kinked


def beside(point: Point, kinked: NDArray[np.bool_], sign: float) -> Point:
    """Return points a little to one side of the kinks in the rows ``kinked`` (B, m)."""
    y, s = point.y, point.s
    # Random entries: some cones have no kink along the line through equal ones.
    signs = sign * np.random.default_rng(0).uniform(0.5, 1.5, y.shape[1])
    step = SIDE * KINK * np.maximum(peak(y - s), KINK)[:, None] * signs * kinked
    return Point(point.x, y + step, s)


def changed_by_kinks(
    kinked: NDArray[np.bool_],
    one_sided: Callable[[Indices, NDArray[np.bool_], float], Answer],
    observability: Observability | None,
) -> NDArray[np.intp]:
    """Return the programs whose answer differs between the two sides of a kink, where the user observes it.

    Parameters
    ----------
    kinked : bool array, shape (B, m)
        See `rows_at_kinks`.
    one_sided : callable
        Returns the answer for some programs, kinked rows of these, and a side, 1.0 or -1.0.
    observability : Observability, optional
        Of all B programs.
    """
    elements = np.flatnonzero(kinked.any(axis=1))
    if elements.size == 0:
        return elements
    (first, size), (second, _) = (one_sided(elements, kinked[elements], sign) for sign in (1.0, -1.0))
    different = [a - b for a, b in zip(first, second, strict=True)]
    changed = np.max([peak(part) for part in different], axis=0) > NEGLIGIBLE * size
    if observability is not None and changed.any():
        observed = observability.take(elements)
        if len(different) == 2:
            changed &= observed.of_solution(*different)
        else:
            changed &= observed.of_data(ConeData(*different))
    return np.asarray(elements[changed])
