"""The parameters of a call, as one level of a nest of vmap, grad and jvp sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from conediff_torch._solved import Shape

Dims = Sequence[int | None]


@dataclass(frozen=True)
class Inputs:
    """The parameters of a call, at one level.

    Attributes
    ----------
    inner : tuple of int
        How many dimensions each has that are no batch dimensions.
    shapes : tuple of tuple of int
    chosen : tuple of bool
        Which of them have cotangents, or tangents, here.
    """

    inner: tuple[int, ...]
    shapes: tuple[Shape, ...]
    chosen: tuple[bool, ...]

    def choose(self, items: Sequence[Any]) -> list[Any]:
        """Keep what belongs to the chosen parameters."""
        return [item for item, chosen in zip(items, self.chosen, strict=True) if chosen]

    def spread(self, items: Sequence[Any]) -> tuple[Any, ...]:
        """Undo `choose`, with None for the others."""
        rest = iter(items)
        return tuple(next(rest) if chosen else None for chosen in self.chosen)

    def restricted(self, items: Sequence[Tensor | None]) -> Inputs:
        """Choose, of the chosen, those whose item is not None."""
        return replace(self, chosen=tuple(item is not None for item in self.spread(items)))

    def mapped(self, size: int) -> Inputs:
        """Give every parameter one more batch dimension, before all that any has."""
        batch = max(len(shape) - inner for shape, inner in zip(self.shapes, self.inner, strict=True))
        shapes = tuple(
            (size, *(1,) * (batch + inner - len(shape)), *shape)
            for shape, inner in zip(self.shapes, self.inner, strict=True)
        )
        return replace(self, shapes=shapes)


def lifted(inner: tuple[int, ...], size: int, dims: Dims, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Move the mapped dimension of each parameter before all batch dimensions that any has."""
    shapes = tuple(
        tuple(p.shape) if dim is None else tuple(p.select(dim, 0).shape)
        for p, dim in zip(parameters, dims, strict=True)
    )
    mapped = Inputs(inner, shapes, (True,) * len(shapes)).mapped(size)
    return [
        p if dim is None else p.movedim(dim, 0).reshape(shape)
        for p, dim, shape in zip(parameters, dims, mapped.shapes, strict=True)
    ]
