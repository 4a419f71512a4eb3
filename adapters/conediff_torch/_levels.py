"""The parameters of a call, as one level of nested vmap, grad and jvp sees them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from conediff.layer.calls import batch_shape
from conediff.layer.maps import ParameterSpec
from conediff_torch._solved import Shape

Dims = Sequence[int | None]


@dataclass(frozen=True)
class Inputs:
    """The parameters of a call, at one level.

    Attributes
    ----------
    inner : tuple of int
        Number of dimensions of each that are not batch dimensions.
    shapes : tuple of tuple of int
    chosen : tuple of bool
        Which of them need cotangents at this level.
    """

    inner: tuple[int, ...]
    shapes: tuple[Shape, ...]
    chosen: tuple[bool, ...]

    def choose(self, items: Sequence[Any]) -> list[Any]:
        """Return the items of the chosen parameters, of one item for each parameter."""
        return [item for item, chosen in zip(items, self.chosen, strict=True) if chosen]

    def one_for_each(self, items: Sequence[Any]) -> tuple[Any, ...]:
        """Return one item for each parameter: those of the chosen ones, and None for the others."""
        rest = iter(items)
        return tuple(next(rest) if chosen else None for chosen in self.chosen)

    def mapped(self, size: int) -> Inputs:
        """Give every parameter one more batch dimension, in front of all that any parameter has."""
        batch = max(len(shape) - inner for shape, inner in zip(self.shapes, self.inner, strict=True))
        shapes = tuple(
            (size, *(1,) * (batch + inner - len(shape)), *shape)
            for shape, inner in zip(self.shapes, self.inner, strict=True)
        )
        return replace(self, shapes=shapes)


def lifted(
    specs: Sequence[ParameterSpec], size: int, dims: Dims, parameters: Sequence[Tensor]
) -> list[Tensor]:
    """Move the mapped dimension of each parameter in front of all batch dimensions that any parameter has.

    A parameter that is not mapped gets a dimension of 1 there if it has batch dimensions of its own.

    Raises
    ------
    ValueError
        If the shapes that the mapped function sees do not go together.
    """
    shapes = tuple(
        tuple(p.shape) if dim is None else tuple(p.select(dim, 0).shape)
        for p, dim in zip(parameters, dims, strict=True)
    )
    check_batch(specs, shapes)
    inner = tuple(len(spec.shape) for spec in specs)
    mapped = Inputs(inner, shapes, (True,) * len(shapes)).mapped(size)
    result = []
    for p, dim, own, shape, depth in zip(parameters, dims, shapes, mapped.shapes, inner, strict=True):
        if dim is not None:
            p = p.movedim(dim, 0).reshape(shape)
        elif len(own) > depth:
            p = p.reshape(1, *own)
        result.append(p)
    return result


def check_batch(specs: Sequence[ParameterSpec], shapes: Sequence[Shape]) -> None:
    """Check shapes; sizes may be torch's symbols, which count as unknown. Raises as `calls.batch_shape`."""
    batch_shape(specs, [tuple(size if isinstance(size, int) else None for size in shape) for shape in shapes])


def expanded(size: int, dims: Dims, tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Move the mapped dimension of each tensor to the front; give one to those that have none."""
    return [
        t if t is None else t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0)
        for t, dim in zip(tensors, dims, strict=True)
    ]


def one_by_one(
    function: Callable[..., Sequence[Tensor]], size: int, dims: Dims, tensors: Sequence[Tensor | None]
) -> tuple[Tensor, ...]:
    """Apply a function to each slice of the mapped dimension, and stack the results."""
    results = []
    for i in range(size):
        slices = (
            tensor if tensor is None or dim is None else tensor.select(dim, i)
            for tensor, dim in zip(tensors, dims, strict=True)
        )
        results.append(function(*slices))
    return tuple(torch.stack(list(part)) for part in zip(*results, strict=True))
