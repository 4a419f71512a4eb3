"""A solved layer between tensors: the only place where tensors become arrays, and arrays tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from conediff.layer.layer import CvxpyLayer
from conediff_torch._arrays import roundings, to_array, to_tensor

Shape = tuple[int, ...]


class Solved:
    """The solution of a layer for given tensors.

    Parameters
    ----------
    layer : conediff.CvxpyLayer
    solver_args : mapping
    parameters : sequence of Tensor
    dtype : torch.dtype
        Of the outputs' real parts.
    device : torch.device
        Of the outputs.
    """

    def __init__(
        self,
        layer: CvxpyLayer,
        solver_args: Mapping[str, Any],
        parameters: Sequence[Tensor],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.dtype, self.device = dtype, device
        self.kinds = [(tuple(p.shape), p.dtype, p.device) for p in parameters]
        arrays = [to_array(parameter) for parameter in parameters]
        self._solution = layer.solve(*arrays, solver_args=solver_args, precision=roundings(parameters))

    def values(self) -> list[Tensor]:
        """Return the values of the variables."""
        return [to_tensor(value, self.dtype, self.device) for value in self._solution.values]

    def pull(
        self, cotangents: Sequence[Tensor | None], needed: Sequence[bool], shapes: Sequence[Shape]
    ) -> list[Tensor]:
        """Return the cotangents of the needed parameters.

        Parameters
        ----------
        cotangents : sequence of Tensor or None
            One for each value, in order; those left out are zero.
        needed : sequence of bool
        shapes : sequence of tuple of int
            For each parameter the shape that its cotangent is to have: its own; or, seen from inside a vmap
            that did not map it, that of a parameter that every mapped element has for itself.
        """
        arrays = [None if cotangent is None else to_array(cotangent) for cotangent in cotangents]
        arrays += [None] * (len(self._solution.values) - len(arrays))
        summed = all(shape == kind[0] for shape, kind in zip(shapes, self.kinds, strict=True))
        pulled = self._solution.vjp(*arrays, needed=needed, summed=summed)
        return [
            to_tensor(array if dtype.is_complex else array.real, dtype, device, shape)
            for array, (_, dtype, device), shape in zip(pulled, self.kinds, shapes, strict=True)
            if array is not None
        ]

    def push(self, tangents: Sequence[Tensor | None]) -> list[Tensor]:
        """Return the tangents of the values for those of the parameters."""
        arrays = [None if tangent is None else to_array(tangent) for tangent in tangents]
        return [to_tensor(value, self.dtype, self.device) for value in self._solution.jvp(*arrays)]
