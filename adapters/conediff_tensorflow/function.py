"""The solution map as a TensorFlow function: tensors to arrays and back, and the wiring of its derivatives.

The derivatives are the core's. Backward is ``pull``, a linear function of the cotangents whose own gradient
is ``push``, the core's JVP; so TensorFlow's forward mode, which transposes the backward function, finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import tensorflow as tf

import conediff

from . import modes

Tensors = Sequence[tf.Tensor]
# XLA cannot compile these operations, and says so by their names.
_NAME = "conediff_{}_runs_on_NumPy_and_not_under_XLA_so_pass_jit_compile_False"


@dataclass(frozen=True)
class SolutionMap:
    """The solution map of a layer, for tensors of certain types and shapes.

    Parameters
    ----------
    core : conediff.CvxpyLayer
    solver_args : mapping
        As of its `solve`.
    dtypes : sequence of str
        Of the outputs.
    shapes : sequence of tuple
        Of the outputs, as far as they are known.
    """

    core: conediff.CvxpyLayer
    solver_args: Mapping[str, Any]
    dtypes: Sequence[str]
    shapes: Sequence[tuple[int | None, ...]]

    def __call__(self, params: Tensors) -> tuple[tf.Tensor, ...]:
        """Solve; one tensor for each output."""
        params = [tf.convert_to_tensor(param) for param in params]
        needed = modes.needed(params)
        solving = True

        def solved(*params: tf.Tensor) -> tuple[Any, Callable[..., Any]]:
            outputs, kept = self._solve(params)
            return outputs, lambda *cotangents: self._pull(kept, needed, params, cotangents, solving)

        if not any(needed):
            return tuple(self._solve(params)[0])
        outputs = tuple(modes.differentiable(solved, params))
        solving = False
        return outputs

    def _solve(self, params: Tensors) -> tuple[list[tf.Tensor], _Kept]:
        def run(*arrays: Any) -> tuple[conediff.LayerSolution, list[Any]]:
            values = list(map(_array, arrays))
            solution = self.core.solve(*values, solver_args=self.solver_args, precision=_rounding(params))
            return solution, _typed(solution.values, self.dtypes)

        if tf.executing_eagerly():
            solution, values = run(*(param.numpy() for param in params))
            return [tf.convert_to_tensor(value) for value in values], _Kept(lambda _: solution, ())

        def run_in_graph(*arrays: Any) -> list[Any]:
            solution, values = run(*arrays)
            return [*values, *solution.state]

        def resume(arrays: Sequence[Any]) -> conediff.LayerSolution:
            return self.core.resume([_array(array) for array in arrays[:-4]], arrays[-4:], self.solver_args)

        n, m, count = self.core.maps.structure.n, self.core.maps.structure.m, len(self.dtypes)
        dtypes = [*self.dtypes, "float64", "float64", "float64", "int8"]
        shapes = [*self.shapes, (None, n), (None, m), (None, m), (None,)]
        flat = _on_numpy(run_in_graph, params, dtypes, shapes, "solve")
        return flat[:count], _Kept(resume, (*params, *flat[count:]))

    def _pull(
        self, kept: _Kept, needed: Sequence[bool], params: Tensors, cotangents: Tensors, solving: bool
    ) -> list[tf.Tensor | None]:
        """Pull cotangents of the outputs back to those parameters that need it.

        While it is still ``solving``, this is forward mode on its way to `_push`.
        """
        lasting, kept = not kept.early, kept.here()
        wanted = [p for p, need in zip(params, needed, strict=True) if need]
        dtypes, shapes = [p.dtype.name for p in wanted], [p.shape for p in wanted]
        first, second = len(cotangents), len(cotangents) + len(wanted)
        twice = modes.recorded(wanted) and not solving

        def pulled(*tensors: tf.Tensor) -> tuple[Any, Callable[..., Any]]:
            cotangents, wanted, state = tensors[:first], tensors[first:second], tensors[second:]

            def run(*arrays: Any) -> list[Any]:
                solution = kept.solution(arrays[first:])
                grads = solution.vjp(*map(_array, arrays[:first]), needed=needed)
                return _typed([g for g in grads if g is not None], dtypes)

            def push(*tangents: tf.Tensor) -> list[tf.Tensor | None]:
                refused = [modes.no_second_derivative(p, twice) for p in wanted]
                pushed = self._push(kept, needed, wanted, state, tangents)
                return [*pushed, *refused, *(None for _ in state)]

            return _on_numpy(run, (*cotangents, *state), dtypes, shapes, "vjp"), push

        grads = iter(modes.differentiable(pulled, (*cotangents, *wanted, *kept.tensors), lasting))
        return [next(grads) if need else None for need in needed]

    def _push(
        self, kept: _Kept, needed: Sequence[bool], wanted: Tensors, state: Tensors, tangents: Tensors
    ) -> list[tf.Tensor]:
        """Push tangents of those parameters forward to the outputs."""
        first, second = len(tangents), len(tangents) + len(wanted)

        def run(*arrays: Any) -> list[Any]:
            given, solution = iter(arrays[:first]), kept.solution(arrays[second:])
            result = solution.jvp(*(_array(next(given)) if need else None for need in needed))
            return _typed(result, self.dtypes)

        def pushed(*tensors: tf.Tensor) -> tuple[Any, Callable[..., Any]]:
            outputs = _on_numpy(run, tensors, self.dtypes, self.shapes, "jvp")
            return outputs, lambda *_: [modes.no_second_derivative(t, True) for t in tensors]

        # The parameters are passed for one reason: so that who differentiates by them is refused.
        return list(modes.differentiable(pushed, (*tangents, *wanted, *state)))


@dataclass(frozen=True)
class _Kept:
    """What a backward pass needs of its forward pass: the solution itself, or tensors to rebuild it from."""

    solution: Callable[[Sequence[Any]], conediff.LayerSolution]
    tensors: tuple[tf.Tensor, ...]

    @property
    def early(self) -> bool:
        """Whether this is of an eager forward pass, and now there is a graph."""
        return not self.tensors and not tf.executing_eagerly()

    def here(self) -> _Kept:
        """Return what to use now; a graph that was begun after an eager forward pass must own the solution.

        For TensorFlow keeps functions that graphs call, and gradients that they register, for ever.
        """
        if not self.early:
            return self
        solution = modes.owned_by_graph(self.solution(()))
        return _Kept(lambda _: solution(), ())


def _on_numpy(
    function: Callable[..., list[Any]],
    tensors: Tensors,
    dtypes: Sequence[str],
    shapes: Sequence[Any],
    name: str,
) -> list[tf.Tensor]:
    if tf.executing_eagerly():
        return [tf.convert_to_tensor(array) for array in function(*(tensor.numpy() for tensor in tensors))]
    # Stateless, so that TensorFlow may leave out what nobody uses, and vectorise by a loop.
    types, name = [tf.as_dtype(dtype) for dtype in dtypes], _NAME.format(name)
    results = tf.numpy_function(function, tensors, types, stateful=False, name=name)
    results = list(results) if isinstance(results, (list, tuple)) else [results]
    for result, shape in zip(results, shapes, strict=True):
        result.set_shape(shape)
    return results


def _array(array: Any) -> Any:
    """Return an array in a type that NumPy itself knows."""
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


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
