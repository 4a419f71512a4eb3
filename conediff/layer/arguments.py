"""The values of the parameters of one call: checked, broadcast, and laid out as stacks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from conediff.layer.attributes import check_attributes, check_finite
from conediff.layer.calls import broadcast, check_count, expected_shape, leading_shape
from conediff.layer.dtypes import output_dtype
from conediff.layer.maps import ParameterSpec


@dataclass(frozen=True)
class Arguments:
    """Parameters of one call, as stacks.

    Attributes
    ----------
    values : tuple of arrays, each of shape (B, *shape) or (1, *shape)
        With one row if all elements of the batch share the value.
    shapes : tuple of tuple of int
        The shapes in which the values were passed.
    batch : tuple of int
        Leading dimensions of the outputs.
    dtype : dtype
        Of the outputs' real part: the common real dtype of the floating parameters; float64 if there are
        none.
    """

    values: tuple[NDArray[Any], ...]
    shapes: tuple[tuple[int, ...], ...]
    batch: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def read(
        cls,
        specs: Sequence[ParameterSpec],
        values: Sequence[ArrayLike],
        validate: bool = True,
        precision: float | Sequence[float] = 0.0,
    ) -> Arguments:
        """Read the parameters of a call.

        Parameters
        ----------
        specs : sequence of ParameterSpec
        values : sequence of arrays
        validate : bool
            Whether to check declared attributes.
        precision : float or sequence of float
            Relative rounding of the values, or of each, if it is coarser than that of their dtype because
            they were converted.

        Raises
        ------
        TypeError
            If a value is not an array of numbers.
        ValueError
            If their number, a shape, or the batch dimensions do not fit.
        ParameterError
            If a value is not finite, or (with ``validate``) violates a declared attribute.
        """
        check_count([spec.name for spec in specs], values)
        arrays = [read_array(spec, value) for spec, value in zip(specs, values, strict=True)]
        leading = [leading_shape(spec, array.shape) for spec, array in zip(specs, arrays, strict=True)]
        batch = broadcast(specs, [array.shape for array in arrays], leading)
        roundings = np.broadcast_to(precision, len(specs))
        for spec, array, rounding in zip(specs, arrays, roundings, strict=True):
            check_finite(spec, array)
            if validate:
                check_attributes(spec, array, float(rounding))
        count = math.prod(batch)
        stacks = tuple(
            _stack(spec, array, lead, batch, count)
            for spec, array, lead in zip(specs, arrays, leading, strict=True)
        )
        return cls(stacks, tuple(array.shape for array in arrays), batch, _real_dtype(arrays))

    @property
    def count(self) -> int:
        """Number of elements in the batch."""
        return math.prod(self.batch)

    def expand_batch(self) -> Arguments:
        """Return the arguments with one row, and one shape, per element of the batch for each parameter."""
        count = self.count
        values = tuple(np.broadcast_to(v, (count, *v.shape[1:])) for v in self.values)
        shapes = tuple(self.batch + v.shape[1:] for v in self.values)
        return Arguments(values, shapes, self.batch, self.dtype)

    def cast(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return an array in the dtype of the outputs, which is complex where the array is."""
        dtype = np.result_type(self.dtype, np.complex64) if array.dtype.kind == "c" else self.dtype
        return array.astype(dtype, copy=False)

    def tangents(
        self, tangents: Sequence[ArrayLike | None], names: Sequence[str]
    ) -> list[NDArray[Any] | None]:
        """Bring tangents of the parameters into the form in which their values are stacked.

        Raises
        ------
        ValueError
            If their number, or a shape, does not fit.
        """
        if len(tangents) != len(self.shapes):
            raise ValueError(f"expected {len(self.shapes)} tangents, one per parameter, got {len(tangents)}")
        return [
            None if tangent is None else self._tangent(k, np.asarray(tangent), names[k])
            for k, tangent in enumerate(tangents)
        ]

    def _tangent(self, k: int, tangent: NDArray[Any], name: str) -> NDArray[Any]:
        shape, value = self.shapes[k], self.values[k]
        if tangent.shape == shape and tangent.size == value.size:
            return tangent.reshape(value.shape)
        try:
            full = np.broadcast_to(tangent, self.batch + value.shape[1:])
        except ValueError:
            raise ValueError(
                f"the tangent of {name!r} must have shape {shape}, but has {tangent.shape}"
            ) from None
        return full.reshape((self.count, *value.shape[1:]))

    def sum_to_shape(self, k: int, stack: NDArray[Any]) -> NDArray[Any]:
        """Sum parameter k's cotangent over the axes along which its value was broadcast."""
        shape = self.shapes[k]
        own = self.values[k].shape[1:]
        lead = shape[: len(shape) - len(own)]
        if len(stack) == 1 and math.prod(lead) == 1:
            return stack.reshape(shape)
        return sum_to(stack.reshape(self.batch + own), shape)


def sum_to(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Sum an array over the axes along which an array of that shape broadcasts to it."""
    padded = (1,) * (array.ndim - len(shape)) + shape
    axes = tuple(k for k, (own, full) in enumerate(zip(padded, array.shape, strict=True)) if own == 1 != full)
    return np.asarray(array.sum(axis=axes, keepdims=True)).reshape(shape)


def read_array(spec: ParameterSpec, value: ArrayLike) -> NDArray[Any]:
    """Return a parameter's value as an array of numbers.

    Raises
    ------
    TypeError
        If it is None or holds no numbers, or is complex where the parameter is real.
    ValueError
        If it is a list of lists of different lengths.
    """
    if value is None:
        raise TypeError(f"parameter {spec.name!r} is None: pass an array of shape {spec.shape}")
    if hasattr(value, "toarray"):
        value = value.toarray()
    try:
        array = np.asarray(value)
    except ValueError as error:  # NumPy's error for lists of unequal lists
        raise ValueError(
            f"parameter {spec.name!r} must be an array, but its parts have different shapes: expected "
            f"{expected_shape(spec)}"
        ) from error
    if array.dtype.kind not in "biufc":
        raise TypeError(f"parameter {spec.name!r} must be an array of numbers, but has dtype {array.dtype}")
    if array.dtype.kind == "c" and not spec.complex:
        raise TypeError(f"parameter {spec.name!r} is real, but its value is complex; declare it complex=True")
    return array


def _stack(
    spec: ParameterSpec, array: NDArray[Any], lead: tuple[int, ...], batch: tuple[int, ...], count: int
) -> NDArray[Any]:
    dtype = np.complex128 if spec.complex else np.float64
    if math.prod(lead) == 1 and count != 0:
        return array.reshape((1, *spec.shape)).astype(dtype)
    return np.broadcast_to(array, batch + spec.shape).reshape((count, *spec.shape)).astype(dtype)


def _real_dtype(arrays: Sequence[NDArray[Any]]) -> np.dtype[Any]:
    names = [array.real.dtype.name for array in arrays]
    return np.dtype(output_dtype(names, lambda *real: np.result_type(*real).name, "float64"))
