r"""The derivative of the solution map, taken in the frame in which y and s are of one size.

With T an automorphism of the cone and E a diagonal (see `frames`), data and solutions go to the frame, and
tangents with them; cotangents go by the transposed inverse,

.. math::
    \hat g_x = E g_x, \quad \hat g_y = T g_y, \quad \hat g_s = T^{-\top} g_s, \qquad
    g_P = E \hat g_P E, \quad g_A = T^\top \hat g_A E, \quad g_b = T^\top \hat g_b, \quad g_c = E \hat g_c.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conediff.derivative.diagnostics import Diagnostics, Observability
from conediff.derivative.kkt_derivative import StackDerivative
from conediff.kkt.factor import KKTFactor
from conediff.kkt.system import KKTSystem
from conediff.parallel.threads import one_blas_thread
from conediff.program import Array, ConeData
from conediff.scaling.cone_scaling import ConeScaling, ConeScalings


class FramedDerivative:
    """Derivative of the solution map at the solutions of a stack of programs.

    Parameters
    ----------
    frames : ConeScalings
        Of the programs' structure.
    kkt : KKTSystem
        Of ``frames.structure``.
    data, x, y, s, method, visibility, factor, strict
        See `StackDerivative`.
    """

    def __init__(
        self,
        frames: ConeScalings,
        kkt: KKTSystem,
        data: ConeData,
        x: Array,
        y: Array,
        s: Array,
        method: str = "auto",
        visibility: Observability | None = None,
        factor: KKTFactor | None = None,
        strict: bool = False,
    ) -> None:
        self.structure, self.x, self.y = frames.given, x, y
        self.frame = frame = frames.balancing(data, x, y, s)
        if visibility is not None and not (frame.trivial and frames.structure is frames.given):
            visibility = _ScaledObservability(visibility, frame)
        point = x / frame.columns, frame.dual(y), frame.rows(s)
        known = factor if frame.trivial else None
        self._inner = StackDerivative(kkt, frame.data(data), *point, method, visibility, known, strict)

    @property
    def diagnostics(self) -> Diagnostics:
        """How well the derivative is defined, and how it was computed."""
        return self._inner.diagnostics

    def push(self, tangent: ConeData) -> tuple[Array, Array, Array]:
        """Apply the derivative to a perturbation of the data on its own sparsity."""
        with one_blas_thread():
            return self._back(*self._inner.push(self.frame.data(tangent)))

    def jvp(self, dPx: Array, dAx: Array, dAty: Array, db: Array, dc: Array) -> tuple[Array, Array, Array]:
        """Apply the derivative to a perturbation given by its products; see `StackDerivative.jvp`."""
        E = self.frame.columns
        db, dAx = self.frame.rows(db), self.frame.rows(dAx)
        with one_blas_thread():
            return self._back(*self._inner.jvp(dPx * E, dAx, dAty * E, db, dc * E))

    def pull(self, gx: Array, gy: Array, gs: Array) -> ConeData:
        """Apply the adjoint; cotangents of P and A on their own sparsity, that of P symmetric."""
        gx, gy, gs = gx * self.frame.columns, self.frame.rows(gy), self.frame.dual(gs)
        with one_blas_thread():
            return self.frame.data_back(self._inner.pull(gx, gy, gs))

    def vjp(self, gx: Array, gy: Array, gs: Array) -> tuple[Array, Array]:
        """Apply the adjoint; return what `data_tangents.outer` makes the cotangents of."""
        gx, gy, gs = gx * self.frame.columns, self.frame.rows(gy), self.frame.dual(gs)
        with one_blas_thread():
            r1, r2 = self._inner.vjp(gx, gy, gs)
            return r1 * self.frame.columns, self.frame.dual_back(r2)

    def _back(self, dx: Array, dy: Array, ds: Array) -> tuple[Array, Array, Array]:
        return dx * self.frame.columns, self.frame.dual_back(dy), self.frame.rows_back(ds)


@dataclass(frozen=True)
class _ScaledObservability:
    """What is seen of programs in a frame by somebody who knows the programs as they are."""

    outside: Observability
    frame: ConeScaling

    def of_data(self, g: ConeData) -> NDArray[np.bool_]:
        return self.outside.of_data(self.frame.data_back(g))

    def of_solution(self, dx: Array, dy: Array) -> NDArray[np.bool_]:
        return self.outside.of_solution(dx * self.frame.columns, self.frame.dual_back(dy))

    def take(self, index: NDArray[np.intp]) -> Observability:
        return _ScaledObservability(self.outside.take(index), self.frame.take(index))
