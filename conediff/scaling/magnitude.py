r"""Scaling of whole programs by powers of two, so that their largest numbers are near one.

With powers of two σ and α, the program of σP, σc, αA, αb has the solution

.. math:: \hat x = x, \qquad \hat y = \tfrac{\sigma}{\alpha} y, \qquad \hat s = \alpha s,

for every cone, and without rounding. SCS scales single rows and columns itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from conediff.program import Array, ConeData
from conediff.scaling.constants import ORDINARY_PROGRAM


@dataclass(frozen=True)
class Magnitude:
    """Factors of the objective (P, c) and of the rows (A, b) for a stack of programs.

    Parameters
    ----------
    objective, rows : arrays, shape (B, 1) or (1, 1)
        σ and α.
    """

    objective: Array
    rows: Array

    @classmethod
    def of(cls, data: ConeData) -> Magnitude:
        """Return the factors that bring the largest entries of (P, c) and of A close to one."""
        return cls(
            power_of_two(np.maximum(largest_entry(data.P), largest_entry(data.c))),
            power_of_two(largest_entry(data.A)),
        )

    @property
    def is_identity(self) -> bool:
        """Whether all factors are one."""
        return bool((self.objective == 1).all() and (self.rows == 1).all())

    def scaled(self, data: ConeData) -> ConeData:
        """Return the scaled programs."""
        if self.is_identity:
            return data
        return ConeData(
            data.P * self.objective, data.A * self.rows, data.b * self.rows, data.c * self.objective
        )

    def forward(self, x: Array, y: Array, s: Array) -> tuple[Array, Array, Array]:
        """Return the solution of the scaled programs that belongs to a solution of the given ones."""
        return x, y * (self.objective / self.rows), s * self.rows

    def back(
        self, x: Array, y: Array, s: Array, infeasible: NDArray[np.bool_], unbounded: NDArray[np.bool_]
    ) -> tuple[Array, Array, Array]:
        """Return the solution of the given programs that belongs to a solution of the scaled ones.

        Parameters
        ----------
        x, y, s : arrays, shapes (B, n), (B, m), (B, m)
        infeasible, unbounded : bool arrays, shape (B,)
            Where a program is infeasible, y is a certificate with b'y = -1; where it is unbounded, x and s
            are one with c'x = -1. Certificates have factors of their own.
        """
        size_y = np.where(infeasible[:, None], 1.0, 1 / self.objective)
        size_x = np.where(unbounded[:, None], self.objective, 1.0)
        return x * size_x, y * self.rows * size_y, s / self.rows * size_x


def largest_entry(stack: Array) -> Array:
    """Return the largest absolute value of each row, shape (B, 1)."""
    largest: Array = np.abs(stack).max(axis=1, initial=0.0, keepdims=True)
    return largest


def power_of_two(size: Array) -> Array:
    """Return the power of two that brings a size close to one; 1 where it is ordinary, zero or not finite."""
    strange = np.isfinite(size) & (size > 0) & ((size < 1 / ORDINARY_PROGRAM) | (size > ORDINARY_PROGRAM))
    if not strange.any():
        return np.ones_like(size)
    factor: Array = np.exp2(np.where(strange, -np.round(np.log2(np.where(strange, size, 1.0))), 0.0))
    return factor
