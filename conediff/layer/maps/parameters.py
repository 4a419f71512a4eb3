"""One parameter: its declaration, and the features computed from its values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from conediff.program import Array


@dataclass(frozen=True, eq=False)
class ParameterSpec:
    """The declaration of a parameter, and the features computed from its values.

    The features are its entries in C order: the values (or real parts), then the imaginary parts if
    ``complex``, then the logarithms if ``log``.

    Parameters
    ----------
    name : str
    shape : tuple of int
    complex, log : bool
        ``log``: the logarithm of the parameter enters the program (geometric programs); its value may
        enter too, as an exponent.
    attributes : tuple of str
        Declared attributes: nonneg, pos, PSD, symmetric, integer, ...
    lower, upper : array broadcastable to shape, or None
        Declared bounds of the values.
    pattern : int array or None
        Flat positions, in C order, of the entries that may be nonzero; None means all.
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
    def features_per_entry(self) -> int:
        """Number of features per entry: 1 for the value, 1 more for an imaginary part or a logarithm."""
        return 1 + self.complex + self.log

    @cached_property
    def width(self) -> int:
        """Number of features."""
        return self.size * self.features_per_entry

    def _flat(self, value: ArrayLike) -> NDArray[Any]:
        """Return a stack of values as rows, shape (R, size), float64 or complex128."""
        array = np.asarray(value, dtype=np.complex128 if self.complex else np.float64)
        return array.reshape(len(array), self.size)

    def features(self, value: ArrayLike) -> Array:
        """Return the features of a stack of values, shape (R, width)."""
        flat = self._flat(value)
        if self.complex:
            return np.concatenate([flat.real, flat.imag], axis=1)
        return np.concatenate([flat, np.log(flat)], axis=1) if self.log else flat

    def tangent(self, value: ArrayLike, tangent: ArrayLike) -> Array:
        """Return the tangent of the features, shape (R, width), given that of the value, (R, *shape)."""
        flat = self._flat(tangent)
        if self.complex:
            return np.concatenate([flat.real, flat.imag], axis=1)
        return np.concatenate([flat, flat / self._flat(value)], axis=1) if self.log else flat

    def second_tangent(self, value: ArrayLike, tangent: ArrayLike, other: ArrayLike) -> Array:
        """Return the change of `tangent` along another tangent of the value, shape (R, width).

        Only a logarithm is curved: its second derivative is -1 / value².
        """
        curved = -self._flat(tangent) * self._flat(other) / self._flat(value) ** 2
        return np.concatenate([np.zeros_like(curved), curved], axis=1)

    def second_cotangent(self, value: ArrayLike, tangent: ArrayLike, g: Array) -> NDArray[Any]:
        """Return the change of `cotangent` along a tangent of the value, shape (R, *shape)."""
        curved: NDArray[Any] = -g[:, self.size :] * self._flat(tangent) / self._flat(value) ** 2
        return curved.reshape((len(curved), *self.shape))

    def cotangent(self, value: ArrayLike, g: Array) -> NDArray[Any]:
        """Return the cotangent of the value, shape (R, *shape), given that of the features, (R, width)."""
        flat: NDArray[Any] = g[:, : self.size]
        if self.complex:
            flat = flat + 1j * g[:, self.size :]
        elif self.log:
            flat = flat + g[:, self.size :] / self._flat(value)
        return flat.reshape((len(g), *self.shape))
