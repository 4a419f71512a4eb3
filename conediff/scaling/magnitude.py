r"""Programs whose numbers are all tiny, or all huge, solved as if they were of ordinary size.

With powers of two σ and α, the program of σP, σc, αA, αb has the solution

.. math:: \hat x = x, \qquad \hat y = \tfrac{\sigma}{\alpha} y, \qquad \hat s = \alpha s,

for every cone, and without any rounding. What lies between rows or columns is left to SCS's own scaling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conediff.program import Array, ConeData

# Largest entries within this factor of one are left alone.
_ORDINARY = 2.0**7


@dataclass(frozen=True)
class Magnitude:
    """Factors of the objective and of the rows, for a stack of programs.

    Parameters
    ----------
    objective, rows : arrays, shape (B, 1) or (1, 1)
        σ and α.
    """

    objective: Array
    rows: Array

    @classmethod
    def of(cls, data: ConeData) -> Magnitude:
        """Return the factors that bring the largest entries of (P, c) and of A near to one."""
        return cls(_factor(np.maximum(_largest(data.P), _largest(data.c))), _factor(_largest(data.A)))

    @property
    def trivial(self) -> bool:
        """Whether all factors are one."""
        return bool((self.objective == 1).all() and (self.rows == 1).all())

    def scaled(self, data: ConeData) -> ConeData:
        """Return the scaled programs."""
        if self.trivial:
            return data
        return ConeData(
            data.P * self.objective, data.A * self.rows, data.b * self.rows, data.c * self.objective
        )

    def forward(self, x: Array, y: Array, s: Array) -> tuple[Array, Array, Array]:
        """Return a solution as one of the scaled programs."""
        return x, y * (self.objective / self.rows), s * self.rows

    def back(
        self, x: Array, y: Array, s: Array, infeasible: NDArray[np.bool_], unbounded: NDArray[np.bool_]
    ) -> tuple[Array, Array, Array]:
        """Return a solution of the scaled programs as one of the given ones.

        Where a program is infeasible y is a certificate, of b'y = -1; where it is unbounded x and s are, of
        c'x = -1. So they have factors of their own.
        """
        size_y = np.where(infeasible[:, None], 1.0, 1 / self.objective)
        size_x = np.where(unbounded[:, None], self.objective, 1.0)
        return x * size_x, y * self.rows * size_y, s / self.rows * size_x


def _largest(stack: Array) -> Array:
    largest: Array = np.abs(stack).max(axis=1, initial=0.0, keepdims=True)
    return largest


def _factor(size: Array) -> Array:
    """The power of two that brings a size near to one; one where that is not needed, or does not help."""
    strange = np.isfinite(size) & (size > 0) & ((size < 1 / _ORDINARY) | (size > _ORDINARY))
    factor: Array = np.exp2(np.where(strange, -np.round(np.log2(np.where(strange, size, 1.0))), 0.0))
    return factor
