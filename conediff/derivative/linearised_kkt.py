"""The KKT conditions linearised at the solutions of one part of a stack: D, K, and solves with K."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from conediff.cones import ProductDerivative
from conediff.derivative.constants import NEARBY, SINGULAR
from conediff.kkt.constants import SOLVED, SUSPICIOUS_SINGULAR_VALUE
from conediff.kkt.factor import KKTFactor
from conediff.kkt.system import KKTSystem
from conediff.program import Array, ConeData, Point


class LinearisedKKT:
    """K at the solutions of one part of a stack, factorised when it is first needed.

    All answers depend on the arguments of the constructor alone, not on what was asked before.

    Parameters
    ----------
    system : KKTSystem
    data : ConeData
    point : Point
        The programs' solutions.
    nearby : KKTFactor, optional
        Of K for the same data, at points nearby: used if S has hardly changed since.
    """

    def __init__(
        self, system: KKTSystem, data: ConeData, point: Point, nearby: KKTFactor | None = None
    ) -> None:
        self.system, self.data, self.point, self._given = system, data, point, nearby
        self.structure = system.pattern.structure

    @cached_property
    def D(self) -> ProductDerivative:
        """Derivative of the projection at v = y - s."""
        return self._D_at(self.point)

    def _D_at(self, point: Point) -> ProductDerivative:
        return self.structure.cone.project_dual(point.y - point.s, point.y).derivative()

    @cached_property
    def _exact(self) -> KKTFactor:
        """The factor of K at the solutions."""
        return self.system.factor(self.data, self.D)

    @cached_property
    def _nearby(self) -> KKTFactor | None:
        """The given factor, with new rows where S has changed; None if S has changed for most programs."""
        if self._given is None:
            return None
        changed = np.flatnonzero(~(self._given.projection_change(self.D) <= NEARBY))
        if 2 * changed.size > len(self.point.x):
            return None
        factor = self._given.with_derivative(self.D)
        if changed.size:
            D = self._D_at(self.point.take(changed))
            factor = factor.with_rows_from(changed, self.system.factor(self.data.take(changed), D))
        return factor

    @cached_property
    def _checked(self) -> tuple[KKTFactor, Array, Array]:
        """The factor to solve with, and its smallest singular values and null vectors.

        The nearby factor gives way to the exact one if one of its singular values is suspicious.
        """
        if self._nearby is not None:
            value, vector = self._nearby.smallest_singular_value()
            if np.all(value >= SUSPICIOUS_SINGULAR_VALUE):
                return self._nearby, value, vector
        return self._exact.checked()

    @property
    def factor(self) -> KKTFactor:
        """The factor to solve with."""
        return self._checked[0]

    @property
    def smallest_singular_value(self) -> Array:
        """Of K with rows scaled to about one, shape (B,)."""
        return self._checked[1]

    @property
    def null_vector(self) -> Array:
        """The unit vector (r, t) that shows it, shape (B, n + m); meaningful where K is singular."""
        return self._checked[2]

    @property
    def singular(self) -> NDArray[np.bool_]:
        """Whether K is numerically singular, shape (B,)."""
        return np.asarray(self.smallest_singular_value < SINGULAR)

    def A(self, x: Array) -> Array:
        """Return A x."""
        return self._any_factor.operator.A(x)

    def At(self, y: Array) -> Array:
        """Return A'y."""
        return self._any_factor.operator.At(y)

    @property
    def _any_factor(self) -> KKTFactor:
        return self._nearby or self._exact

    def solve(self, rhs: Array) -> tuple[Array, Array]:
        """Solve with K; return the answer and its relative residual, shapes (B, n + m) and (B,)."""
        z, error = self.factor.solve(rhs)
        if self.factor.is_nearby and not np.all(error <= SOLVED):
            z, error = self._exact.solve(rhs)
        return z, error
