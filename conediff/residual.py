r"""The KKT residual of a stack of programs, and how large it is.

One vector carries the dual pair, v = y - s with y = Π(v) and s = Π(v) - v, so that y in K*, s in K and
y's = 0 hold by construction. What is left are the two residuals

.. math:: R_1 = P x + A^\top \Pi(v) + c, \qquad R_2 = A x + \Pi(v) - v - b,

and a zero of R = (R_1, R_2) is a solution (the program being convex).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from conediff.cones import ProductProjection
from conediff.structure import Array, ConeData, Structure

# Below this, what a residual is measured against counts as zero.
_FLOOR = 1e-10


@dataclass(frozen=True)
class Evaluation:
    """The residual at one point (x, v) of every program.

    Attributes
    ----------
    x, v : arrays, shape (B, n), (B, m)
    projection : ProductProjection
        Π(v), and on demand its derivative.
    r1, r2 : arrays, shape (B, n), (B, m)
    scale1, scale2 : arrays, shape (B,)
        What the residuals are measured against: the largest of their terms.
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
        dual, primal = _largest(self.r1) / self.scale1, _largest(self.r2) / self.scale2
        return np.nan_to_num(np.maximum(dual, primal), nan=np.inf)

    def merit(self, scale1: Array, scale2: Array) -> Array:
        """2-norm of the residual measured against given scales, shape (B,)."""
        squares = (self.r1**2).sum(axis=1) / scale1**2 + (self.r2**2).sum(axis=1) / scale2**2
        return np.nan_to_num(np.sqrt(squares), nan=np.inf)


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

    def __call__(self, x: Array, v: Array) -> Evaluation:
        """Evaluate R at x (B, n) and v (B, m)."""
        projection = self.structure.cone.project_dual(v)
        y = projection.point
        Px, Aty, Ax, s = self.P(x), self.At(y), self.A(x), y - v
        return Evaluation(
            x=x,
            v=v,
            projection=projection,
            r1=Px + Aty + self.data.c,
            r2=Ax + s - self.data.b,
            scale1=_scale(Px, Aty, self.data.c),
            scale2=_scale(Ax, s, self.data.b),
        )


def _largest(stack: Array) -> Array:
    return np.abs(stack).max(axis=1, initial=0.0)


def _scale(*terms: Array) -> Array:
    scale = _largest(terms[0])
    for term in terms[1:]:
        scale = np.maximum(scale, _largest(term))
    return np.maximum(scale, _FLOOR)
