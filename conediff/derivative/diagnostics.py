"""How well a derivative is defined at a solution: conditioning, uniqueness, kinks, and who would notice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from conediff.cones import ProductDerivative
from conediff.kkt.least_squares import LinearSolution
from conediff.program import Array, ConeData

# Distance to a kink of the projection, relative to v, below which the map counts as not differentiable.
KINK = 1e-9
# An entry below this, relative to the largest, counts as zero: where K is singular, answers have its noise.
MOVED = 1e-6


@dataclass(frozen=True)
class Diagnostics:
    """How well the derivative is defined, and how it was computed, per program.

    Attributes
    ----------
    condition : array, shape (B,)
        Estimated condition number of the reduced system with scaled rows.
    strict_complementarity : array, shape (B,)
        Distance of v = y - s to the nearest kink of the projection, relative to the largest entry of v; where
        it is zero the solution map has a kink.
    primal_unique, dual_unique : bool arrays, shape (B,)
        False where the reduced system has a null vector that moves x, or y and s.
    differentiable : bool array, shape (B,)
        Whether none of the above stands in the way.
    reports : dict of int to LinearSolution
        Stop reason, iterations and residual of each program that went to an iterative or dense method.
    """

    condition: Array
    strict_complementarity: Array
    primal_unique: NDArray[np.bool_]
    dual_unique: NDArray[np.bool_]
    differentiable: NDArray[np.bool_]
    reports: dict[int, LinearSolution]


class Observability(Protocol):
    """What somebody sees of a cone program who knows it through maps only, as a layer's user does.

    A cone program may have auxiliary variables, or duals, that are not unique while all that the user sees
    is. Then K is singular, and yet the derivative that the user asks for is well defined.
    """

    def of_data(self, g: ConeData) -> NDArray[np.bool_]:
        """Whether a cotangent of the data reaches the user's parameters, shape (B,)."""

    def of_solution(self, dx: Array, dy: Array) -> NDArray[np.bool_]:
        """Whether a change of the solution reaches the user's outputs, shape (B,)."""

    def take(self, index: NDArray[np.intp]) -> Observability:
        """Return what is seen of the programs at these positions."""


def peak(stack: Array) -> Array:
    """Largest magnitudes of a stack of vectors, shape (B,)."""
    largest: Array = np.abs(stack).max(axis=1, initial=0.0)
    return largest


def rows_at_kinks(D: ProductDerivative, v: Array, h: Array) -> NDArray[np.bool_]:
    """Rows of cones at a kink of the projection in which h is not zero, shape (B, m).

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
            moved = np.abs(h[:, rows]).max(axis=-1) > MOVED * largest[:, None]
            kinked[:, rows] = (at_kink & moved)[..., None]
    return kinked
