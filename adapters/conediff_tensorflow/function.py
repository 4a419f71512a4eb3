"""The solution map as a TensorFlow function: tensors to arrays and back, and the wiring of its derivatives.

The derivatives are the core's. Backward is ``pull``, a linear function of the cotangents whose own gradient
is ``push``, the core's JVP; so TensorFlow's forward mode, which transposes the backward function, finds it.
What a backward pass needs of its forward pass is the solution itself where both are eager. In a graph it is
tensors: the parameters, and the state from which the core resumes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import tensorflow as tf

import conediff

from . import modes

Tensors = Sequence[tf.Tensor]
# Of `LayerSolution.state`.
_STATE = ("float64", "float64", "float64", "int8")


def solve(
    core: conediff.CvxpyLayer,
    params: Tensors,
    solver_args: Mapping[str, Any],
    dtypes: Sequence[str],
    shapes: Sequence[tuple[int | None, ...]],
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
        Of the outputs, as far as they are known.

    Returns
    -------
    tuple of tensors
        One for each output.
    """
    params = [tf.convert_to_tensor(param) for param in params]
    eager, precision, count = tf.executing_eagerly(), _rounding(params), len(dtypes)
    found: list[conediff.LayerSolution] = []

    def run(*arrays: Any) -> list[Any]:
        values = list(map(_array, arrays))
        solution = core.solve(*values, solver_args=solver_args, precision=precision)
        if eager:
            found.append(solution)
        return [*_typed(solution.values, dtypes), *(() if eager else solution.state)]

    def resume(arrays: Sequence[Any]) -> conediff.LayerSolution:
        return core.resume(
            [_array(array) for array in arrays[: len(params)]], arrays[len(params) :], solver_args
        )

    solving = True
    derivative = Derivative(tuple(dtypes), tuple(shapes), modes.needed(params), resume)

    def pull(inputs: Tensors, outputs: Tensors, cotangents: Tensors) -> list[tf.Tensor | None]:
        here = replace(derivative, solution=found[0]) if found else derivative
        # While it is still solving, this is forward mode on its way to `push`.
        return here.pull(inputs, outputs[count:], cotangents[:count], not solving)

    n, m = core.maps.structure.n, core.maps.structure.m
    all_dtypes, all_shapes = [*dtypes, *_STATE], [*shapes, (None, n), (None, m), (None, m), (None,)]
    gradient = pull if any(derivative.needed) else None
    outputs = modes.operation("solve", run, params, all_dtypes, all_shapes, gradient)
    solving = False
    return tuple(outputs[:count])


@dataclass(frozen=True)
class Derivative:
    """The derivative of a solution map and its adjoint, each the other's gradient.

    Parameters
    ----------
    dtypes, shapes : tuples
        Of the outputs.
    needed : tuple of bool
        Which parameters' cotangents are needed.
    resume : callable
        Rebuilds the solution from the parameters and the state, as arrays.
    solution : conediff.LayerSolution or callable, optional
        Makes resuming needless.
    """

    dtypes: tuple[str, ...]
    shapes: tuple[tuple[int | None, ...], ...]
    needed: tuple[bool, ...]
    resume: Callable[[Sequence[Any]], conediff.LayerSolution]
    solution: Any = None

    def pull(
        self, params: Tensors, state: Tensors, cotangents: Tensors, watch: bool = True
    ) -> list[tf.Tensor | None]:
        """Pull cotangents of the outputs back to those parameters that need it.

        ``watch`` tells whether a tape that watches the parameters asks for their second derivatives.
        """
        if self.solution is not None and not tf.executing_eagerly():
            return replace(self, solution=None, resume=modes.owned(self.solution)).pull(
                params, state, cotangents
            )
        count, end = len(self.dtypes), len(self.dtypes) + len(params)
        wanted = self._wanted(params)
        dtypes = [p.dtype.name for p in wanted]
        twice = watch and modes.watched(params)

        def run(*arrays: Any) -> list[Any]:
            solution = self._solution(arrays[count:])
            grads = solution.vjp(*map(_array, arrays[:count]), needed=self.needed)
            return _typed(self._wanted(grads), dtypes)

        def push(inputs: Tensors, _: Tensors, tangents: Tensors) -> list[tf.Tensor | None]:
            pushed = self._push(inputs[count:end], inputs[end:], tangents)
            return [
                *pushed,
                *modes.no_second_derivatives(inputs[count:end], twice),
                *(None for _ in inputs[end:]),
            ]

        inputs = [*cotangents, *params, *state]
        grads = iter(modes.operation("vjp", run, inputs, dtypes, [p.shape for p in wanted], push))
        return [next(grads) if need else None for need in self.needed]

    def _push(self, params: Tensors, state: Tensors, tangents: Tensors) -> list[tf.Tensor]:
        """Push tangents of those parameters forward to the outputs."""
        count = len(tangents)

        def run(*arrays: Any) -> list[Any]:
            given, solution = iter(arrays[:count]), self._solution(arrays[count:])
            result = solution.jvp(*(_array(next(given)) if need else None for need in self.needed))
            return _typed(result, self.dtypes)

        def refuse(inputs: Tensors, *_: Tensors) -> list[tf.Tensor | None]:
            return modes.no_second_derivatives(inputs, True)

        return modes.operation("jvp", run, [*tangents, *params, *state], self.dtypes, self.shapes, refuse)

    def _solution(self, arrays: Sequence[Any]) -> conediff.LayerSolution:
        return self.resume(arrays) if self.solution is None else self.solution

    def _wanted(self, items: Sequence[Any]) -> list[Any]:
        return [item for item, need in zip(items, self.needed, strict=True) if need]


def _array(array: Any) -> Any:
    """Return an array in a type that NumPy itself knows."""
    return array.astype("float32") if array.dtype.name == "bfloat16" else array


def _typed(arrays: Sequence[Any], dtypes: Sequence[str]) -> list[Any]:
    """Cast; what is complex loses its imaginary part where a real type is wanted."""
    targets = [tf.as_dtype(dtype) for dtype in dtypes]
    return [
        (array if target.is_complex else array.real).astype(target.as_numpy_dtype, copy=False)
        for array, target in zip(arrays, targets, strict=True)
    ]


def _rounding(tensors: Tensors) -> float:
    """Return the coarsest relative rounding among the tensors' types."""
    inexact = [t.dtype.real_dtype for t in tensors if t.dtype.is_floating or t.dtype.is_complex]
    return max((float(ml_dtypes.finfo(d.as_numpy_dtype).eps) for d in inexact), default=0.0)
