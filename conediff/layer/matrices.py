"""Jacobians and Hessians of a layer's solution, as methods of `LayerSolution`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from conediff.layer.many import apply_to_each
from conediff.layer.maps import OutputSpec, ParameterSpec

if TYPE_CHECKING:
    from conediff.layer.solution import LayerSolution

Blocks = tuple[tuple[NDArray[Any], ...], ...]


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
        sum(math.prod(specs[k].shape) for k in chosen)
        for specs, chosen in ((maps.parameters, parameters), (maps.outputs, values))
    ]
    blocks = (_by_columns if entries[0] < entries[1] else _by_rows)(solution, values, parameters)
    if variable is not None:
        return blocks[0][0] if parameter is not None else blocks[0]
    return blocks if parameter is None else tuple(row[0] for row in blocks)


def hessian(
    solution: LayerSolution,
    cotangents: Sequence[ArrayLike | None],
    curvature: Callable[..., Sequence[ArrayLike | None]] | None = None,
) -> Blocks:
    """Return the Hessian of a scalar loss of the values in all parameters, for each element of the batch.

    Parameters
    ----------
    cotangents, curvature
        As of ``hvp``. The loss of a batch is a sum over its elements.

    Returns
    -------
    tuple of tuples of arrays
        ``hessian(g)[i][j]`` of shape (*batch, *parameter_i.shape, *parameter_j.shape).

    Raises
    ------
    ConeError
        As ``hvp``.
    ValueError
        If a parameter or a value is complex, or a shape does not fit.

    Warns
    -----
    DegeneracyWarning, AccuracyWarning
        As ``vjp``.

    Notes
    -----
    One Hessian-vector product for each entry of a parameter: two solves each, and one in all.
    """
    specs = solution.derivative.maps.parameters
    _chosen(solution.derivative.maps.outputs, None, "output")
    columns = []
    for j in _chosen(specs, None, "parameter"):

        def multiplied(unit: NDArray[Any], j: int = j) -> tuple[NDArray[Any] | None, ...]:
            given = [unit if k == j else None for k in range(len(specs))]
            return solution.hvp(cotangents, given, curvature, summed=False)

        found = apply_to_each(multiplied, [_units((), specs[j].shape)], math.prod(specs[j].shape))
        columns.append([_as_columns(array, specs[j].shape) for array in found])
    return tuple(zip(*columns, strict=True))


def _by_columns(solution: LayerSolution, values: Sequence[int], parameters: Sequence[int]) -> Blocks:
    """Push a unit tangent forward for every entry of the parameters."""
    specs, batch = solution.derivative.maps.parameters, solution.batch
    columns = []
    for j in parameters:
        given: list[Any] = [None] * len(specs)
        given[j] = _units(batch, specs[j].shape)
        pushed = solution.jvp(*given)
        columns.append([_as_columns(pushed[i], specs[j].shape) for i in values])
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


def _as_columns(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Bring the first axis of an array, over the entries of a parameter of this shape, to the end."""
    return np.moveaxis(array, 0, -1).reshape(array.shape[1:] + shape)


def _chosen(specs: Sequence[ParameterSpec | OutputSpec], key: Any, what: str) -> list[int]:
    """Return the positions that a key means: one, or all for None."""
    found = list(range(len(specs))) if key is None else [_position_of(specs, key, what)]
    for k in found:
        if specs[k].complex:
            name = specs[k].name
            raise ValueError(f"{name!r} is complex, and has no matrix of derivatives: use jvp, vjp or hvp")
    return found


def _position_of(specs: Sequence[Any], key: Any, what: str) -> int:
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


def _units(batch: tuple[int, ...], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return for each entry of an array of this shape one that is 1 there, the same for the whole batch."""
    size = math.prod(shape)
    eye = np.eye(size).reshape(size, *(1,) * len(batch), *shape)
    return np.broadcast_to(eye, (size, *batch, *shape))
