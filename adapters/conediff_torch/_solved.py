"""A solved layer, with tensors in and out: tensors become arrays, and arrays tensors, nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from conediff.layer.layer import CvxpyLayer
from conediff_torch._arrays import result_device, result_dtype, roundings, to_array, to_gradient, to_tensor

Shape = tuple[int, ...]


@dataclass
class Call:
    """The parts of a call that are not tensors.

    Attributes
    ----------
    layer : conediff.CvxpyLayer
    solver_args : mapping
    dtype : torch.dtype
        Of the outputs' real parts.
    device : torch.device
        Of the outputs.
    keep_alive : object, optional
        Owns the solution, once there is one.
    """

    layer: CvxpyLayer
    solver_args: Mapping[str, Any]
    dtype: torch.dtype
    device: torch.device
    keep_alive: Any = None

    @classmethod
    def of(cls, layer: CvxpyLayer, solver_args: Mapping[str, Any], parameters: Sequence[Tensor]) -> Call:
        """Take dtype and device from the parameters as the user passed them."""
        return cls(layer, solver_args, result_dtype(parameters), result_device(parameters))

    @property
    def inner(self) -> tuple[int, ...]:
        """Number of dimensions of each parameter that are not batch dimensions."""
        return tuple(len(spec.shape) for spec in self.layer.parameters)


class Solved:
    """The solution of a layer for given tensors."""

    def __init__(self, call: Call, parameters: Sequence[Tensor]) -> None:
        self._call = call
        self._kinds = [(tuple(p.shape), p.dtype, p.device) for p in parameters]
        arrays, precision = map(to_array, parameters), roundings(parameters)
        self._solution = call.layer.solve(*arrays, solver_args=call.solver_args, precision=precision)

    @property
    def count(self) -> int:
        """Number of values."""
        return len(self._solution.values)

    def values(self) -> list[Tensor]:
        """Return the values of the variables."""
        return [to_tensor(value, self._call.dtype, self._call.device) for value in self._solution.values]

    def pull(
        self, cotangents: Sequence[Tensor | None], needed: Sequence[bool], shapes: Sequence[Shape]
    ) -> list[Tensor]:
        """Return the cotangents of the needed parameters.

        Parameters
        ----------
        cotangents : sequence of Tensor or None
            One for each value, in order; None means zero.
        needed : sequence of bool
        shapes : sequence of tuple of int
            The shape of each parameter's cotangent. It is the parameter's own, except inside a vmap over
            other parameters: there every mapped element has a cotangent of its own.
        """
        arrays = [None if cotangent is None else to_array(cotangent) for cotangent in cotangents]
        summed = all(shape == kind[0] for shape, kind in zip(shapes, self._kinds, strict=True))
        pulled = self._solution.vjp(*arrays, needed=needed, summed=summed)
        return [
            to_gradient(array, shape, dtype, device)
            for array, shape, (_, dtype, device) in zip(pulled, shapes, self._kinds, strict=True)
            if array is not None
        ]

    def push(self, tangents: Sequence[Tensor | None]) -> list[Tensor]:
        """Return the tangents of the values for those of the parameters; None means zero."""
        arrays = [None if tangent is None else to_array(tangent) for tangent in tangents]
        pushed = self._solution.jvp(*arrays)
        return [to_tensor(value, self._call.dtype, self._call.device) for value in pushed]
