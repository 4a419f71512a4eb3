"""Many cotangents or tangents at once, and Jacobians made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from conediff.layer.maps import OutputSpec, ParameterSpec

if TYPE_CHECKING:
    from conediff.layer.solution import LayerSolution

Blocks = tuple[tuple[NDArray[Any], ...], ...]


def count_of(
    arrays: Sequence[Any],
    batch: tuple[int, ...],
    specs: Sequence[ParameterSpec | OutputSpec],
    what: str,
) -> int | None:
    """Return how many cotangents or tangents there are; None if it is one, without an axis for them.

    Parameters
    ----------
    arrays : sequence of arrays or None
    batch : tuple of int
    specs : sequence of ParameterSpec or OutputSpec
        Of what the arrays belong to.
    what : str
        "cotangents" or "tangents".

    Raises
    ------
    ValueError
        If only some have the axis, or its lengths differ.
    """
    pairs = zip(arrays, specs, strict=False)
    given = [(np.shape(array), len(batch) + len(spec.shape)) for array, spec in pairs if array is not None]
    counts = {shape[0] if len(shape) == depth + 1 else None for shape, depth in given}
    if len(counts) > 1:
        shapes = ", ".join(str(shape) for shape, _ in given)
        raise ValueError(
            f"either all {what} have a first axis, of one length, for many at once, or none has; got shapes "
            f"{shapes}"
        )
    return counts.pop() if counts else None


def apply_to_each(
    function: Callable[..., Sequence[Any]], arrays: Sequence[Any], count: int
) -> tuple[Any, ...]:
    """Apply a linear function to each of many, and stack what it returns; None stays None."""
    arrays = [None if array is None else np.asarray(array) for array in arrays]
    if count == 0:  # for the shapes
        one = function(*(None if array is None else np.zeros(array.shape[1:]) for array in arrays))
        return tuple(None if part is None else np.zeros((0, *part.shape), part.dtype) for part in one)
    rows = [function(*(None if array is None else array[k] for array in arrays)) for k in range(count)]
    return tuple(None if column[0] is None else np.stack(column) for column in zip(*rows, strict=True))


@overload
def jacobian(solution: LayerSolution, parameter: Any = None, variable: None = None) -> tuple[Any, ...]: ...


@overload
def jacobian(solution: LayerSolution, parameter: None, variable: Any) -> tuple[NDArray[Any], ...]: ...


@overload
def jacobian(solution: LayerSolution, parameter: Any, variable: Any) -> NDArray[Any]: ...


def jacobian(solution: LayerSolution, parameter: Any = None, variable: Any = None) -> Any:
    """Return the derivative of a value with respect to a parameter, for each element of the batch.

    Parameters
    ----------
    parameter : cvxpy.Parameter, str or int, optional
        The parameter itself, its name, or its position in calls; all parameters by default.
    variable : cvxpy.Variable, str or int, optional
        The output itself (also a dual variable or ``problem.objective``), its name, or its position; all
        by default.

    Returns
    -------
    array, shape (*batch, *variable.shape, *parameter.shape)
        If only one of them is given, a tuple of arrays, one for each of the others; if none is,
        ``jacobian()[i][j]`` for value i and parameter j.

    Raises
    ------
    ValueError
        If one is complex, or not the layer's.

    Warns
    -----
    DegeneracyWarning, AccuracyWarning
        As ``vjp``.

    Notes
    -----
    One factorisation for each element, and one solve for each entry of the values or of the parameters,
    whichever are fewer.
    """
    maps = solution.derivative.maps
    values = _chosen(maps.outputs, variable, "output")
    parameters = _chosen(maps.parameters, parameter, "parameter")
    entries = [
        sum(_size(specs[k].shape) for k in chosen)
        for specs, chosen in ((maps.parameters, parameters), (maps.outputs, values))
    ]
    blocks = (_by_columns if entries[0] < entries[1] else _by_rows)(solution, values, parameters)
    if variable is not None:
        return blocks[0][0] if parameter is not None else blocks[0]
    return blocks if parameter is None else tuple(row[0] for row in blocks)


def _by_columns(solution: LayerSolution, values: Sequence[int], parameters: Sequence[int]) -> Blocks:
    """Push a unit tangent forward for every entry of the parameters."""
    specs, batch = solution.derivative.maps.parameters, solution.batch
    columns = []
    for j in parameters:
        given: list[Any] = [None] * len(specs)
        given[j] = _units(batch, specs[j].shape)
        pushed = solution.jvp(*given)
        turned = (np.moveaxis(pushed[i], 0, -1) for i in values)
        columns.append([array.reshape(array.shape[:-1] + specs[j].shape) for array in turned])
    return tuple(tuple(column[k] for column in columns) for k in range(len(values)))


def _by_rows(solution: LayerSolution, values: Sequence[int], parameters: Sequence[int]) -> Blocks:
    """Pull a unit cotangent back for every entry of the values."""
    maps, batch = solution.derivative.maps, solution.batch
    specs, outputs = maps.parameters, maps.outputs
    needed = [j in parameters for j in range(len(specs))]
    rows = []
    for i in values:
        given: list[Any] = [None] * len(outputs)
        given[i] = _units(batch, outputs[i].shape)
        pulled = solution.vjp(*given, needed=needed, summed=False)
        moved = [np.moveaxis(np.asarray(pulled[j]), 0, len(batch)) for j in parameters]
        shapes = [batch + outputs[i].shape + specs[j].shape for j in parameters]
        rows.append(tuple(array.reshape(shape) for array, shape in zip(moved, shapes, strict=True)))
    return tuple(rows)


def _chosen(specs: Sequence[ParameterSpec | OutputSpec], key: Any, what: str) -> list[int]:
    """Return the positions that a key means: one, or all for None."""
    found = list(range(len(specs))) if key is None else [position_of(specs, key, what)]
    for k in found:
        if specs[k].complex:
            name = specs[k].name
            raise ValueError(f"{name!r} is complex, and has no matrix of derivatives: use jvp, vjp or hvp")
    return found


def position_of(specs: Sequence[Any], key: Any, what: str) -> int:
    """Return the position of a parameter or output, given itself, its name, or its position.

    Raises
    ------
    ValueError
        If there is none, or several have the name.
    """
    if isinstance(key, (int, np.integer)) and not isinstance(key, bool) and 0 <= key < len(specs):
        return int(key)
    name = key if isinstance(key, str) else key.name() if hasattr(key, "name") else None
    if name is None and hasattr(key, "expr"):
        name = "objective"  # problem.objective
    found = [k for k, spec in enumerate(specs) if spec.name == name]
    if len(found) != 1:
        names = ", ".join(repr(spec.name) for spec in specs)
        reason = "several have the name" if found else "there is none of the name"
        raise ValueError(f"{what} {name or key!r}: {reason}; the layer has {names}, at positions from 0")
    return found[0]


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))


def _units(batch: tuple[int, ...], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return for each entry of an array of this shape one that is 1 there, the same for the whole batch."""
    size = _size(shape)
    eye = np.eye(size).reshape(size, *(1,) * len(batch), *shape)
    return np.broadcast_to(eye, (size, *batch, *shape))
