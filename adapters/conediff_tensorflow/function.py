"""The solution map as a TensorFlow function: tensors to arrays and back; its derivatives see `derivative`.

If forward and backward pass are both eager, the backward pass is given the solution itself. In a graph it is
given tensors: the parameters, and the state from which the core resumes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import tensorflow as tf

import conediff
from conediff.layer.dtypes import lost_rounding, widen

from . import modes
from .derivative import Derivative, typed

Tensors = Sequence[tf.Tensor]
Shapes = Sequence[tuple[int | None, ...]]
# Dtypes of `LayerSolution.state`.
_STATE = ("float64", "float64", "float64", "int8")


def solve(
    core: conediff.CvxpyLayer,
    params: Tensors,
    solver_args: Mapping[str, Any],
    dtypes: Sequence[str],
    shapes: Shapes,
) -> tuple[tf.Tensor, ...]:
    """Solve a layer's problem; differentiable.

    Parameters
    ----------
    core : conediff.CvxpyLayer
    params : sequence of tensors
    solver_args : mapping
        As of ``core.solve``.
    dtypes : sequence of str
        Of the outputs.
    shapes : sequence of tuple
        Of the outputs; None is a size that is not known yet.

    Returns
    -------
    tuple of tensors
        One for each output.
    """
    params = [tf.convert_to_tensor(param) for param in params]
    precision = [lost_rounding(param.dtype.name) for param in params]

    def solution_of(arrays: Sequence[Any]) -> conediff.LayerSolution:
        return core.solve(*map(widen, arrays), solver_args=solver_args, precision=precision)

    def resume(arrays: Sequence[Any]) -> conediff.LayerSolution:
        count = len(arrays) - len(_STATE)
        return core.resume(list(map(widen, arrays[:count])), arrays[count:], solver_args)

    def values_and_state(*arrays: Any) -> list[Any]:
        solution = solution_of(arrays)
        return [*typed(solution.values, dtypes), *solution.state]

    derivative = Derivative(tuple(dtypes), tuple(shapes), modes.needed(params), resume)
    if tf.executing_eagerly():
        solution = solution_of([param.numpy() for param in params])
        values, outputs = typed(solution.values, dtypes), (dtypes, shapes)
        gradients = replace(derivative, solution=solution).gradients()
        return tuple(modes.operation("solve", lambda *_: values, params, outputs, *gradients))
    n, m = core.maps.structure.n, core.maps.structure.m
    all_outputs = [*dtypes, *_STATE], [*shapes, (None, n), (None, m), (None, m), (None,)]
    gradients = derivative.gradients()
    return tuple(modes.operation("solve", values_and_state, params, all_outputs, *gradients)[: len(dtypes)])
