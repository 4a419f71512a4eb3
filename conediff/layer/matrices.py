"""Hessians of a layer's solution, column by column; `many` has Jacobians."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from conediff.layer.solution import LayerSolution

Matrix = tuple[tuple[NDArray[Any], ...], ...]
Shapes = list[tuple[int, ...]]


def hessian(
    solution: LayerSolution, cotangents: Sequence[Any], curvature: Callable[..., Any] | None
) -> Matrix:
    """See `LayerSolution.hessian`."""
    _, parameters = _shapes(solution)
    columns = [solution.hvp(cotangents, unit, curvature, summed=False) for unit in _units(parameters)]
    return _blocks(columns, [solution.batch + shape for shape in parameters], parameters)


def _shapes(solution: LayerSolution) -> tuple[Shapes, Shapes]:
    """Shapes of one element's values and parameters; raise ValueError if one is complex."""
    maps = solution.derivative.maps
    found = [o.name for o in maps.outputs if o.complex] + [p.name for p in maps.parameters if p.complex]
    if found:
        raise ValueError(f"{found[0]!r} is complex, and has no matrix of derivatives: use jvp, vjp or hvp")
    return [o.shape for o in maps.outputs], [p.shape for p in maps.parameters]


def _entries(shapes: Shapes) -> int:
    return sum(int(np.prod(shape, dtype=np.int64)) for shape in shapes)


def _units(shapes: Shapes) -> Iterator[list[NDArray[Any]]]:
    """For each entry of each array, arrays that are one there and zero elsewhere."""
    for k, shape in enumerate(shapes):
        for index in np.ndindex(*shape):
            unit = [np.zeros(other) for other in shapes]
            unit[k][index] = 1.0
            yield unit


def _blocks(columns: Sequence[Sequence[Any]], rows: Shapes, shapes: Shapes) -> Matrix:
    """Arrange columns, one for each entry of arrays of these shapes, as blocks [row][array]."""
    ends = np.cumsum([0] + [_entries([shape]) for shape in shapes])
    return tuple(
        tuple(
            np.stack([column[i] for column in columns[ends[j] : ends[j + 1]]], axis=-1).reshape(row + shape)
            if ends[j] < ends[j + 1]
            else np.zeros(row + shape)
            for j, shape in enumerate(shapes)
        )
        for i, row in enumerate(rows)
    )
