"""A solved layer, with tensors in and out: tensors become arrays, and arrays tensors, nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from conediff.layer.base import BaseDerivative
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
        self._derivative = BaseDerivative(self._solution)

    @property
    def count(self) -> int:
        """Number of values."""
        return len(self._solution.values)

    def values(self) -> list[Tensor]:
        """Return the values of the variables."""
        return [to_tensor(value, self._call.dtype, self._call.device) for value in self._solution.values]

    def base(self) -> Tensor:
        """Return a tensor that stands for the base: of its shape, without its numbers.

        NumPy's zeros take no memory until they are touched, which these never are.
        """
        return torch.from_numpy(np.zeros(self._derivative.shape))

    def pull(
        self,
        chosen: Sequence[bool],
        shapes: Sequence[Shape],
        gbase: Tensor | None,
        *cotangents: Tensor | None,
    ) -> list[Tensor]:
        """Return the cotangents of the chosen parameters, and the multipliers.

        Parameters
        ----------
        chosen : sequence of bool
        shapes : sequence of tuple of int
            The shape of each parameter's cotangent. It is the parameter's own, except inside a vmap over
            other parameters: there every mapped element has a cotangent of its own.
        gbase : Tensor or None
            Cotangent of the base; None means zero.
        *cotangents : Tensor or None
            One for each value, in order.
        """
        summed = all(shape == kind[0] for shape, kind in zip(shapes, self._kinds, strict=True))
        gs, gb = _arrays(*cotangents), _array(gbase)
        pulled, multipliers = self._derivative.pull(gs, gb, needed=chosen, summed=summed)
        found = [
            to_gradient(array, shape, dtype, device)
            for array, shape, (_, dtype, device) in zip(pulled, shapes, self._kinds, strict=True)
            if array is not None
        ]
        return [*found, torch.from_numpy(multipliers)]

    def push(self, *tangents: Tensor | None) -> list[Tensor]:
        """Return the tangents of the values and of the base for those of the parameters."""
        return self._tangents(*self._derivative.push(_arrays(*tangents)))

    def curve(
        self,
        forward: bool,
        moved: Tensor,
        multipliers: Tensor,
        gbase: Tensor | None,
        *cotangents: Tensor | None,
    ) -> list[Tensor]:
        """Return a cotangent of the base; see `BaseDerivative.curve`."""
        gs, gb, r = _arrays(*cotangents), _array(gbase), to_array(multipliers)
        return [torch.from_numpy(self._derivative.curve(to_array(moved), r, gs, gb, forward=forward))]

    def turn(self, moved: Tensor, pushed: Tensor) -> list[Tensor]:
        """Return tangents of the values and of the base; see `BaseDerivative.turn`."""
        return self._tangents(*self._derivative.turn(to_array(moved), to_array(pushed)))

    def _tangents(self, values: Sequence[NDArray[Any]], base: NDArray[Any]) -> list[Tensor]:
        call = self._call
        return [*(to_tensor(value, call.dtype, call.device) for value in values), torch.from_numpy(base)]


def _array(tensor: Tensor | None) -> NDArray[Any] | None:
    return None if tensor is None else to_array(tensor)


def _arrays(*tensors: Tensor | None) -> list[NDArray[Any] | None]:
    return [_array(tensor) for tensor in tensors]
