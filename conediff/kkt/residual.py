r"""The KKT residual of a stack of programs, and its size relative to its terms.

One vector v = y - s represents the dual pair: y = Π(v) and s = Π(v) - v (Moreau), so that y in K*, s in K and
y's = 0 hold by construction. Two residuals remain,

.. math:: R_1 = P x + A^\top \Pi(v) + c, \qquad R_2 = A x + \Pi(v) - v - b,

and a zero of R = (R_1, R_2) is a solution, because the program is convex.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from conediff.cones import ProductProjection
from conediff.kkt.constants import (
    CANCELLED_LIMIT,
    CANCELLED_SHARE,
    NEGLIGIBLE_ROW,
    RESIDUAL_FLOOR,
    ROW_SHARE,
    ROW_TOLERANCE,
)
from conediff.program import Array, ConeData, Structure

Product = Callable[[Array], Array]


@dataclass(frozen=True)
class Evaluation:
    """The residual at one point (x, v) of every program.

    Attributes
    ----------
    of : Residual
    x, v : arrays, shape (B, n), (B, m)
    products : tuple of arrays
        P x, A'y and A x.
    projection : ProductProjection
        Π(v), and on demand its derivative.
    r1, r2 : arrays, shape (B, n), (B, m)
    scale1, scale2 : arrays, shape (B, 1), (B, m)
        The sizes that residuals are relative to. For R_1 it is the largest entry of its terms. For a row of
        R_2 it is the largest entry of A x, or this row's b if that is larger, so that a distant bound hides
        no residual but its own; and at least the largest entry of b or one, whichever is smaller. Where the
        terms of a product cancel, at least CANCELLED_SHARE of the largest term counts: of the largest
        |A_ij y_i|, not of the largest entries of A and y, which need not meet.
    """

    of: Residual
    x: Array
    v: Array
    products: tuple[Array, Array, Array]
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

    @cached_property
    def judged(self) -> Array:
        """What a tolerance is compared with, shape (B,): the relative residual, and rows by themselves.

        A row that is violated by more than ROW_TOLERANCE of its own terms counts with ROW_SHARE of that, so
        that the large terms of other rows do not hide it.
        """
        relative = self.relative
        if not (relative < ROW_SHARE).any():  # no row is violated by more than the sum of its terms
            return relative
        # Bounds come first, because they cost no products.
        for terms in (self._term_bounds, self.of.terms):
            rows = self.of.largest_violation((self.r1, self.r2), terms(self.x, self.y, self.s), self.x)
            if not (rows > ROW_TOLERANCE).any():
                return relative
        return np.where(rows > ROW_TOLERANCE, np.maximum(relative, ROW_SHARE * rows), relative)

    def _term_bounds(self, x: Array, y: Array, s: Array) -> tuple[Array, Array]:
        """Lower bounds of `Residual.terms`, which do not see what cancels within a product."""
        data, (Px, Aty, Ax) = self.of.data, (np.abs(product) for product in self.products)
        return _scale(Px, Aty, np.abs(data.c)), _scale(Ax, np.abs(s), np.abs(data.b))

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
        # Sizes of the terms that do not depend on the point, and factors of bounds for those that do.
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
        return Evaluation(
            of=self,
            x=x,
            v=v,
            products=(Px, Aty, Ax),
            projection=projection,
            r1=Px + Aty + self.data.c,
            r2=Ax + s - self.data.b,
            scale1=self._or_terms(
                _scale(_largest(Px), _largest(Aty), self._of_c),
                np.maximum(self._of_P * of_x, self._of_A * of_y),
                # x may be the difference of larger numbers in a row of A, so that P counts by the whole of x.
                lambda: np.maximum(self._of_P * of_x, _largest(self._A_rows * y)),
            ),
            scale2=self._or_terms(
                _scale(_largest(Ax), self._of_b),
                self._of_A * of_x,
                lambda: _largest(self._A_columns * x),
            ),
        )

    def _or_terms(self, scale: Array, bound: Array, terms: Callable[[], Array]) -> Array:
        """Return ``scale``, or a share of the largest term of a product if that is larger.

        ``terms`` returns this share, which takes a pass over the entries of a matrix, and is no more than
        ``bound``.
        """
        if not (np.minimum(bound, self._most) > scale).any():
            return scale
        return np.maximum(scale, np.minimum(terms(), self._most))

    @cached_property
    def _A_rows(self) -> Array:
        """CANCELLED_SHARE of the largest entries of the rows of A, shape (B, m)."""
        return CANCELLED_SHARE * self.structure.A.row_peaks(np.abs(self.data.A))

    @cached_property
    def _A_columns(self) -> Array:
        """The same of the columns, shape (B, n)."""
        return CANCELLED_SHARE * self.structure.A.column_peaks(np.abs(self.data.A))

    def by_rows(self, x: Array, y: Array, s: Array) -> Array:
        """Return the largest residual of a row relative to that row's own terms, shape (B,).

        Terms below NEGLIGIBLE_ROW of the largest row's count as that.
        """
        residual = self.P(x) + self.At(y) + self.data.c, self.A(x) + s - self.data.b
        return self.largest_violation(residual, self.terms(x, y, s), x)

    def largest_violation(self, residual: tuple[Array, Array], terms: tuple[Array, Array], x: Array) -> Array:
        """Return what `by_rows` does, of R_1 and R_2, the sizes of their terms, and x.

        A row that is small in rounding only is judged relative to what its rounding errors come from. These
        are the largest row's terms; in R_1 also the largest entries of P and x, whether they meet or not,
        since x may be the difference of large numbers in a row of A; and in R_2 the x that P makes of the
        terms of R_1, since x may be what is left of these.
        """
        (r1, r2), (terms1, terms2), of_P = residual, terms, _largest(self.data.P)
        size1 = np.maximum(_largest(terms1), of_P * _largest(x))
        through_P = _largest(self.data.A) * size1 / np.where(of_P > 0, of_P, np.inf)
        size2 = np.maximum(_largest(terms2), through_P)
        parts = []
        for r, size, largest in ((r1, terms1, size1), (r2, terms2, size2)):
            least = np.maximum(NEGLIGIBLE_ROW * largest, np.finfo(float).tiny)
            parts.append(_largest(r / np.maximum(size, least))[:, 0])
        return np.asarray(np.maximum(*parts))

    def terms(self, x: Array, y: Array, s: Array) -> tuple[Array, Array]:
        """Return the sum of the absolute terms of every row of R, shapes (B, n) and (B, m).

        An entry of y or s counts as the largest of its cone, and as CANCELLED_SHARE of the other one there:
        errors of v = y - s are relative to that.
        """
        P, A, At = self._absolute
        x, y, s = np.abs(x), np.abs(y), np.abs(s)
        for cone, rows in self.structure.cone.groups:
            if cone.dim > 1:
                of_y, of_s = (part[:, rows].max(axis=-1, keepdims=True) for part in (y, s))
                y[:, rows] = np.maximum(of_y, CANCELLED_SHARE * of_s)
                s[:, rows] = np.maximum(of_s, CANCELLED_SHARE * of_y)
        return P(x) + At(y) + np.abs(self.data.c), A(x) + s + np.abs(self.data.b)

    @cached_property
    def _absolute(self) -> tuple[Product, Product, Product]:
        """Products with the absolute values of P, A and A'."""
        P = self.structure.P.products(np.abs(self.data.P))[0]
        return P, *self.structure.A.products(np.abs(self.data.A))


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
