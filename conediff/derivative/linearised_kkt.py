"""The KKT conditions linearised at the solutions of one part of a stack: D, K, and solves with K."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from conediff.cones import ProductDerivative
from conediff.derivative.constants import NEARBY, NEGLIGIBLE_ERROR
from conediff.derivative.diagnostics import peak
from conediff.kkt.constants import (
    DEFLATED,
    DEFLATION_LEAST,
    DEFLATION_REGULARISATION,
    DEFLATION_ROWS,
    DEFLATION_WORK,
    DEFLATION_WORK_TURNED,
    SINGULAR,
    SINGULAR_LIMIT,
    SINGULAR_RESIDUALS,
    SOLVED,
    SUSPICIOUS_SINGULAR_VALUE,
)
from conediff.kkt.deflation import Deflation, deflation
from conediff.kkt.factor import KKTFactor, norms
from conediff.kkt.minimum_norm import MinimumNorm
from conediff.kkt.residual import Residual
from conediff.kkt.system import KKTSystem
from conediff.program import Array, ConeData, Indices, Point


@dataclass(frozen=True)
class Deflated:
    """The programs whose K is singular or nearly so, without the small singular values.

    Parameters
    ----------
    index : int array, shape (k,)
        Their positions in the part.
    K : Deflation
    M : MinimumNorm
    """

    index: Indices
    K: Deflation
    M: MinimumNorm


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
        if self._nearby is not None and np.all(self._nearby.first_estimate >= SUSPICIOUS_SINGULAR_VALUE):
            return self._nearby, *self._nearby.smallest_singular_value()
        return self._exact.checked()

    @property
    def factor(self) -> KKTFactor:
        """The factor to solve with, where K is regular."""
        return self._checked[0]

    @cached_property
    def deflated(self) -> Deflated | None:
        """The programs whose smallest singular value is below DEFLATED, as far as it can be split off."""
        factor, estimate, _ = self._checked
        index = np.flatnonzero(~(estimate >= DEFLATED))
        if index.size == 0 or not factor.is_direct:
            return None
        data, point = self.data.take(index), self.point.take(index)
        D = self._D_at(point)
        near = self.system.factor(data, D, DEFLATION_REGULARISATION).checked()[0]
        pattern = self.system.pattern
        work = DEFLATION_WORK_TURNED if pattern.turned else DEFLATION_WORK
        most = max(DEFLATION_LEAST, int(work / (pattern.nnz + DEFLATION_ROWS * pattern.size)))
        K = deflation(near, most, self._null_below[index])
        return Deflated(index, K, MinimumNorm(self.structure, data, point, D, K))

    @cached_property
    def _null_below(self) -> Array:
        """Singular values below this count as zero, shape (B,)."""
        return np.asarray(np.clip(SINGULAR_RESIDUALS * self._residual, SINGULAR, SINGULAR_LIMIT))

    @cached_property
    def _residual(self) -> Array:
        """The relative KKT residual of the solutions, shape (B,)."""
        x, y, s = self.point
        return Residual(self.structure, self.data)(x, y - s, y).relative

    @cached_property
    def _singular_values(self) -> tuple[Array, Array]:
        """The smallest singular values, and random unit vectors of the null spaces."""
        _, value, vector = self._checked
        if self.deflated is not None:
            index, K = self.deflated.index, self.deflated.K
            value, vector = value.copy(), vector.copy()
            value[index] = np.where(K.is_complete, K.smallest_singular_value, value[index])
            weights = np.random.default_rng(2).standard_normal((K.theta.shape[1],))
            null = (K.null_vectors * weights[: K.null_vectors.shape[2]]).sum(axis=2)
            is_null = null.any(axis=1)
            vector[index[is_null]] = null[is_null] / norms(null[is_null])[:, None]
        return value, vector

    @property
    def smallest_singular_value(self) -> Array:
        """Of K with rows scaled to about one, shape (B,)."""
        return self._singular_values[0]

    @property
    def null_vector(self) -> Array:
        """A random unit vector (r, t) of K's null space, shape (B, n + m); meaningful where K is singular."""
        return self._singular_values[1]

    @cached_property
    def solution_error(self) -> Array:
        """Estimate of the relative error of the solutions, shape (B,); zero where K is far from singular.

        It is the size of a Newton step: the KKT residual times the inverse of K, without its null vectors. A
        relative residual of 1e-10 explains no error above 1e-6 unless a singular value is below 1e-4.
        """
        error, value = np.zeros(len(self.point.x)), self.smallest_singular_value
        if not np.any(value < SUSPICIOUS_SINGULAR_VALUE):
            return error
        if self.deflated is not None:
            value = value.copy()
            value[self.deflated.index] = self.deflated.K.smallest_regular_value
        index = np.flatnonzero(self._residual > NEGLIGIBLE_ERROR * value)
        if index.size == 0:
            return error
        x, y, s = self.point
        here = Residual(self.structure, self.data)(x, y - s, y)
        rhs = np.zeros((len(x), x.shape[1] + y.shape[1]))
        rhs[index] = np.hstack([-here.r1, -self.D.apply_root(here.r2)])[index]
        z, _ = self.solve(rhs)
        dx = z[:, : x.shape[1]]
        dv = self.D.apply_root(z[:, x.shape[1] :]) + self.A(dx) + here.r2
        with np.errstate(divide="ignore", invalid="ignore"):
            steps = [peak(dx) / peak(x), peak(dv) / peak(y - s)]
        error[index] = np.nan_to_num(np.fmax(*steps), posinf=0.0)[index]
        return error

    @property
    def singular(self) -> NDArray[np.bool_]:
        """Whether K is numerically singular, shape (B,)."""
        value = self.smallest_singular_value
        if not np.any(value < SINGULAR_LIMIT):
            return np.zeros(len(value), dtype=bool)
        return np.asarray(value < self._null_below)

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
        """Solve with K; return the answer and its relative residual, shapes (B, n + m) and (B,).

        Where K is singular or nearly so by K⁺, if its small singular values can be split off.
        """
        deflated = self.deflated
        if deflated is None:
            return self._solve_regular(rhs)
        index = deflated.index[deflated.K.is_complete]
        split, inconsistent, residual = deflated.K.solve(rhs[deflated.index])
        residual = np.hypot(inconsistent, residual)
        if index.size == len(rhs):
            return split, residual
        others = rhs.copy()
        others[index] = 0
        z, error = self._solve_regular(others)
        z[index], error[index] = split[deflated.K.is_complete], residual[deflated.K.is_complete]
        return z, error

    def _solve_regular(self, rhs: Array) -> tuple[Array, Array]:
        z, error = self.factor.solve(rhs)
        if self.factor.is_nearby and not np.all(error <= SOLVED):
            z, error = self._exact.solve(rhs)
        return z, error
