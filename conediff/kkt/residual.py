r"""The KKT residual of a stack of programs, and its size relative to its terms.

One vector v = y - s represents the dual pair: y = Π(v) and s = Π(v) - v (Moreau), so that y in K*, s in K and
y's = 0 hold by construction. Two residuals remain,

.. math:: R_1 = P x + A^\top \Pi(v) + c, \qquad R_2 = A x + \Pi(v) - v - b,

and a zero of R = (R_1, R_2) is a solution, because the program is convex.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from conediff.cones import ProductProjection
from conediff.kkt.constants import CANCELLED_LIMIT, CANCELLED_SHARE, NEGLIGIBLE_ROW, RESIDUAL_FLOOR
from conediff.program import Array, ConeData, Structure


@dataclass(frozen=True)
class Evaluation:
    """The residual at one point (x, v) of every program.

    Attributes
    ----------
    x, v : arrays, shape (B, n), (B, m)
    projection : ProductProjection
        Π(v), and on demand its derivative.
    r1, r2 : arrays, shape (B, n), (B, m)
    scale1, scale2 : arrays, shape (B, 1), (B, m)
        The sizes that residuals are relative to. For R_1 it is the largest entry of its terms. For a row of
        R_2 it is the largest entry of A x, or this row's b if that is larger, so that a distant bound hides
        no residual but its own; and at least the largest entry of b or one, whichever is smaller. Where the
        terms of a product cancel, at least CANCELLED_SHARE of the largest term counts.
    """

    x: Array
    v: Array
    projection: ProductProjection
    r1: Array
    r2: Array
    scale1: Array
    scale2: Array

    @property
    def y(self) -> Array:
        """Dual variable, shape (B, m)."""
        return self.projection.point

    @property
    def s(self) -> Array:
        """Slack, shape (B, m)."""
        return self.projection.point - self.v

    @cached_property
    def relative(self) -> Array:
        """Larger of the two relative residuals, shape (B,); infinite where it is not finite."""
        dual, primal = _largest(self.r1 / self.scale1), _largest(self.r2 / self.scale2)
        relative: Array = np.maximum(dual, primal)[:, 0]
        relative[np.isnan(relative)] = np.inf
        return relative

    def merit(self, scale1: Array, scale2: Array) -> Array:
        """Return the 2-norm of the residual relative to given scales, shape (B,)."""
        squares = ((self.r1 / scale1) ** 2).sum(axis=1) + ((self.r2 / scale2) ** 2).sum(axis=1)
        merit: Array = np.nan_to_num(np.sqrt(squares), nan=np.inf)
        return merit


class Residual:
    """R for a stack of programs.

    Parameters
    ----------
    structure : Structure
    data : ConeData
    """

    def __init__(self, structure: Structure, data: ConeData) -> None:
        self.structure, self.data = structure, data
        self.P = structure.P.products(data.P)[0]
        self.A, self.At = structure.A.products(data.A)
        # Sizes of the terms that do not depend on the point, and factors for those that do.
        self._of_A, self._of_P = CANCELLED_SHARE * _largest(data.A), CANCELLED_SHARE * _largest(data.P)
        self._most = CANCELLED_LIMIT * np.maximum(_largest(data.b), _largest(data.c))
        self._of_c = np.maximum(_largest(data.c), RESIDUAL_FLOOR)
        self._of_b = np.maximum(np.abs(data.b), np.clip(_largest(data.b), RESIDUAL_FLOOR, 1.0))

    def __call__(self, x: Array, v: Array, near: Array | None = None) -> Evaluation:
        """Evaluate R at x (B, n) and v (B, m); ``near`` (B, m) is an estimate of y, to begin from."""
        projection = self.structure.cone.project_dual(v, near)
        y = projection.point
        Px, Aty, Ax, s = self.P(x), self.At(y), self.A(x), y - v
        of_x, of_y = _largest(x), _largest(y)
        terms1 = np.maximum(self._of_P * of_x, self._of_A * of_y)
        return Evaluation(
            x=x,
            v=v,
            projection=projection,
            r1=Px + Aty + self.data.c,
            r2=Ax + s - self.data.b,
            scale1=_scale(_largest(Px), _largest(Aty), self._of_c, np.minimum(terms1, self._most)),
            scale2=_scale(_largest(Ax), self._of_b, np.minimum(self._of_A * of_x, self._most)),
        )

    def by_rows(self, x: Array, y: Array, s: Array) -> Array:
        """Return the largest residual of a row relative to the sum of that row's own terms, shape (B,).

        Terms below NEGLIGIBLE_ROW of the largest row's count as that.
        """
        tiny = np.finfo(float).tiny
        structure, data = self.structure, self.data
        A, At = structure.A.products(np.abs(data.A))
        P = structure.P.products(np.abs(data.P))[0]
        dual = np.abs(self.P(x) + self.At(y) + data.c), P(np.abs(x)) + At(np.abs(y)) + np.abs(data.c)
        primal = np.abs(self.A(x) + s - data.b), A(np.abs(x)) + np.abs(s) + np.abs(data.b)
        parts = [
            _largest(residual / np.maximum(terms, np.maximum(NEGLIGIBLE_ROW * _largest(terms), tiny)))
            for residual, terms in (dual, primal)
        ]
        return np.asarray(np.maximum(*parts)[:, 0])


def _largest(stack: Array) -> Array:
    """Largest absolute entry of every vector, shape (B, 1)."""
    largest: Array = np.abs(stack).max(axis=1, initial=0.0, keepdims=True)
    return largest


def _scale(*sizes: Array | float) -> Array:
    """Elementwise maximum; sizes broadcast."""
    scale = sizes[0]
    for size in sizes[1:]:
        scale = np.maximum(scale, size)
    return np.asarray(scale)
