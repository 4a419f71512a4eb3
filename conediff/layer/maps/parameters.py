"""One parameter: what is declared of it, and its values as features."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from conediff.program import Array


@dataclass(frozen=True, eq=False)
class ParameterSpec:
    """What is declared of a parameter, and the features that it contributes.

    The features are its entries in C order: the values (or real parts), then the imaginary parts if
    ``complex``, then the logarithms if ``log``.

    Parameters
    ----------
    name : str
    shape : tuple of int
    complex, log : bool
        ``log`` marks a parameter whose logarithm enters (geometric programs); its value may enter
        as well, as an exponent.
    attributes : tuple of str
        The attributes that were declared: nonneg, pos, PSD, symmetric, integer, ...
    lower, upper : array broadcastable to shape, or None
        Bounds declared of the values.
    pattern : int array or None
        Flat positions, in C order, of the entries that may be nonzero; None where all may.
    """

    name: str
    shape: tuple[int, ...]
    complex: bool = False
    log: bool = False
    attributes: tuple[str, ...] = ()
    lower: Array | None = None
    upper: Array | None = None
    pattern: NDArray[np.intp] | None = None

    @cached_property
    def size(self) -> int:
        """Number of entries."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def parts(self) -> int:
        """Features of an entry: its value, and its imaginary part or logarithm."""
        return 1 + self.complex + self.log

    @cached_property
    def width(self) -> int:
        """Number of features."""
        return self.size * self.parts

    def _flat(self, value: ArrayLike) -> NDArray[Any]:
        array = np.asarray(value, dtype=np.complex128 if self.complex else np.float64)
        return array.reshape(len(array), self.size)

    def features(self, value: ArrayLike) -> Array:
        """Return the features of a stack of values, shape (R, width)."""
        flat = self._flat(value)
        if self.complex:
            return np.concatenate([flat.real, flat.imag], axis=1)
        return np.concatenate([flat, np.log(flat)], axis=1) if self.log else flat

    def tangent(self, value: ArrayLike, tangent: ArrayLike) -> Array:
        """Return the change of the features, shape (R, width), for a change of the value."""
        flat = self._flat(tangent)
        if self.complex:
            return np.concatenate([flat.real, flat.imag], axis=1)
        return np.concatenate([flat, flat / self._flat(value)], axis=1) if self.log else flat

    def cotangent(self, value: ArrayLike, g: Array) -> NDArray[Any]:
        """Return the cotangent of the value, shape (R, *shape), for one of the features, (R, width)."""
        flat: NDArray[Any] = g[:, : self.size]
        if self.complex:
            flat = flat + 1j * g[:, self.size :]
        elif self.log:
            flat = flat + g[:, self.size :] / self._flat(value)
        return flat.reshape((len(g), *self.shape))
