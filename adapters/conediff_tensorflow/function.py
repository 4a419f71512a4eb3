"""The solution map as a TensorFlow function: tensors to arrays and back, and the wiring of its derivatives.

The derivatives are the core's. Backward is ``pull``, a linear function of the cotangents whose own gradient
is ``push``, the core's JVP; TensorFlow's forward mode transposes the backward function, and so finds it.
If forward and backward pass are both eager, the backward pass is given the solution itself. In a graph it is
given tensors: the parameters, and the state from which the core resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

import conediff
from conediff.layer.dtypes import lost_rounding, match_kind, numpy_dtype

from . import modes

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
        return core.solve(*map(_array, arrays), solver_args=solver_args, precision=precision)

    def resume(arrays: Sequence[Any]) -> conediff.LayerSolution:
        count = len(arrays) - len(_STATE)
        return core.resume(list(map(_array, arrays[:count])), arrays[count:], solver_args)

    def values_and_state(*arrays: Any) -> list[Any]:
        solution = solution_of(arrays)
        return [*_typed(solution.values, dtypes), *solution.state]

    derivative = Derivative(tuple(dtypes), tuple(shapes), modes.needed(params), resume)
    if tf.executing_eagerly():
        solution = solution_of([param.numpy() for param in params])
        values, outputs = _typed(solution.values, dtypes), (dtypes, shapes)
        gradients = replace(derivative, solution=solution).gradients()
        return tuple(modes.operation("solve", lambda *_: values, params, outputs, *gradients))
    n, m = core.maps.structure.n, core.maps.structure.m
    all_outputs = [*dtypes, *_STATE], [*shapes, (None, n), (None, m), (None, m), (None,)]
    gradients = derivative.gradients()
    return tuple(modes.operation("solve", values_and_state, params, all_outputs, *gradients)[: len(dtypes)])


@dataclass(frozen=True)
class Derivative:
    """The derivative of a solution map and its adjoint, each the other's gradient.

    Attributes
    ----------
    dtypes, shapes : tuples
        Of the outputs.
    needed : tuple of bool
        Which parameters' cotangents are needed.
    find : callable
        Takes the parameters and the state, as arrays; returns the solution.
    solution : conediff.LayerSolution, optional
        The solution, if it exists already.
    """

    dtypes: tuple[str, ...]
    shapes: tuple[tuple[int | None, ...], ...]
    needed: tuple[bool, ...]
    find: Callable[[Sequence[Any]], conediff.LayerSolution]
    solution: conediff.LayerSolution | None = None

    def gradients(self) -> tuple[modes.Gradient | None, modes.Gradient | None]:
        """Return the solution's gradient for backward passes, and for forward mode, which transposes it."""
        count = len(self.dtypes)
        if not any(self.needed):
            return None, None

        def backward(inputs: Tensors, outputs: Tensors, cotangents: Tensors) -> list[tf.Tensor | None]:
            return self.pull(inputs, outputs[count:], cotangents[:count], modes.watched(inputs))

        def transposed(inputs: Tensors, outputs: Tensors, cotangents: Tensors) -> list[tf.Tensor | None]:
            # Differentiated with respect to the cotangents only, though a tape may watch the parameters.
            return self.pull(inputs, outputs[count:], cotangents[:count], False)

        return backward, transposed

    def pull(
        self, params: Tensors, state: Tensors, cotangents: Tensors, twice: bool
    ) -> list[tf.Tensor | None]:
        """Pull cotangents of the outputs back to those parameters that need it.

        ``twice`` says whether a tape asks for second derivatives with respect to the parameters.
        """
        if self.solution is not None and not tf.executing_eagerly():
            find = modes.keep_alive(self.solution)
            return replace(self, solution=None, find=find).pull(params, state, cotangents, twice)
        count, end = len(self.dtypes), len(self.dtypes) + len(params)
        wanted = self._wanted(params)
        dtypes = [p.dtype.name for p in wanted]

        def run(*arrays: Any) -> list[Any]:
            grads = self._solution(arrays[count:]).vjp(*map(_array, arrays[:count]), needed=self.needed)
            return _typed(self._wanted(grads), dtypes)

        def push(inputs: Tensors, _: Tensors, tangents: Tensors) -> list[tf.Tensor | None]:
            pushed = self._push(inputs[count:end], inputs[end:], tangents)
            second = modes.refuse_second(inputs[count:end], twice)
            return [*pushed, *second, *(None for _ in inputs[end:])]

        inputs = [*cotangents, *params, *state]
        grads = iter(modes.operation("vjp", run, inputs, (dtypes, [p.shape for p in wanted]), push))
        return [next(grads) if need else None for need in self.needed]

    def _push(self, params: Tensors, state: Tensors, tangents: Tensors) -> list[tf.Tensor]:
        """Push tangents of those parameters forward to the outputs."""
        count = len(tangents)

        def run(*arrays: Any) -> list[Any]:
            given, solution = iter(arrays[:count]), self._solution(arrays[count:])
            result = solution.jvp(*(_array(next(given)) if need else None for need in self.needed))
            return _typed(result, self.dtypes)

        def refuse(inputs: Tensors, *_: Tensors) -> list[tf.Tensor | None]:
            return modes.refuse_second(inputs, True)

        return modes.operation("jvp", run, [*tangents, *params, *state], (self.dtypes, self.shapes), refuse)

    def _solution(self, arrays: Sequence[Any]) -> conediff.LayerSolution:
        return self.find(arrays) if self.solution is None else self.solution

    def _wanted(self, items: Sequence[Any]) -> list[Any]:
        return [item for item, need in zip(items, self.needed, strict=True) if need]


def _array(array: Any) -> Any:
    """Return an array in a dtype that NumPy itself has."""
    return array.astype(numpy_dtype(array.dtype.name), copy=False)


def _typed(arrays: Sequence[Any], dtypes: Sequence[str]) -> list[Any]:
    """Cast arrays; a complex one loses its imaginary part where a real dtype is wanted."""
    return [
        match_kind(array, dtype).astype(tf.as_dtype(dtype).as_numpy_dtype, copy=False)
        for array, dtype in zip(arrays, dtypes, strict=True)
    ]
