"""One output: from x or y to the user's array, and its cotangent back to x or y."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray

from conediff.program import Array


@dataclass(frozen=True, eq=False)
class OutputSpec:
    """One array that the user asked for, as a linear function of x or y (or the exponential of one).

    Parameters
    ----------
    name : str
    kind : {"primal", "dual", "objective"}
        "primal": a function of x; "dual": a function of y; "objective": the optimal value.
    shape : tuple of int
    complex : bool
    exp : bool
        Whether the output is the exponential of the linear function (variables of geometric programs).
    matrix : csr_array, shape (entries, n or m), or None for the objective
        One row per entry, in C order; if ``complex``, the imaginary parts follow the real parts.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    complex: bool = False
    exp: bool = False
    matrix: sp.csr_array | None = None

    @cached_property
    def _transpose(self) -> sp.csc_array:
        assert self.matrix is not None
        return self.matrix.T

    def _linear(self, v: Array) -> NDArray[Any]:
        """Return the linear function of x or y, shape (B, *shape), complex if the output is."""
        assert self.matrix is not None, "the objective is not linear in the solution"
        flat: NDArray[Any] = np.ascontiguousarray((self.matrix @ v.T).T)
        if self.complex:
            half = flat.shape[1] // 2
            flat = flat[:, :half] + 1j * flat[:, half:]
        return flat.reshape((len(v), *self.shape))

    def value(self, v: Array) -> NDArray[Any]:
        """Return the output, shape (B, *shape), of x or y, shape (B, n or m)."""
        linear = self._linear(v)
        return np.exp(linear) if self.exp else linear

    def tangent(self, v: Array, dv: Array) -> NDArray[Any]:
        """Return the tangent of the output, shape (B, *shape), given that of x or y, shape (B, n or m)."""
        linear = self._linear(dv)
        return self.value(v) * linear if self.exp else linear

    def second_tangent(self, v: Array, dv: Array, other: Array) -> NDArray[Any]:
        """Return the change of `tangent` along another tangent of x or y: that of the exponential."""
        return np.asarray(self.value(v) * self._linear(dv) * self._linear(other))

    def second_cotangent(self, v: Array, dv: Array, g: ArrayLike) -> Array:
        """Return the change of `cotangent` along a tangent of x or y: that of the exponential."""
        return self.cotangent(v, np.asarray(g) * self._linear(dv))

    def source(self, x: Array, y: Array) -> Array:
        """Return the vector that the output is a function of."""
        return x if self.kind == "primal" else y

    def cotangent(self, v: Array, g: ArrayLike) -> Array:
        """Return the cotangent of x or y, shape (B, n or m), given that of the output, shape (B, *shape)."""
        assert self.matrix is not None, "the objective is not linear in the solution"
        flat = np.asarray(g).reshape(len(v), self.matrix.shape[0] // (1 + self.complex))
        if self.complex:
            flat = np.concatenate([flat.real, flat.imag], axis=1)
        elif self.exp:
            flat = flat * self.value(v).reshape(flat.shape)
        return np.ascontiguousarray((self._transpose @ flat.T).T, dtype=np.float64)
