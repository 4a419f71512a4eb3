"""A solve, the derivative and its adjoint on NumPy arrays: JAX's arrays become NumPy's nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conediff.layer.dtypes import lost_rounding, match_kind, numpy_dtype
from conediff.layer.solution import LayerSolution
from conediff_jax._call import Call, Shape
from conediff_jax._kept import from_words

Array = NDArray[Any]


@dataclass(frozen=True)
class Like:
    """Shape and dtype of the cotangent of a parameter.

    The shape is the parameter's own, except inside a vmap over other parameters: there every mapped element
    has a cotangent of its own.
    """

    shape: Shape
    dtype: np.dtype[Any]


def solve(*parameters: Array, call: Call, keep: bool) -> list[Array]:
    """Return the values of the variables and, with ``keep``, the state of the solution."""
    precision = [lost_rounding(p.dtype.name) for p in parameters]
    arrays = [_plain(p) for p in parameters]
    solution = call.core.solve(*arrays, solver_args=call.solver_args, precision=precision)
    values = [_cast(value, dtype) for value, dtype in zip(solution.values, call.dtypes, strict=True)]
    return [*values, call.kept.keep(solution)] if keep else values


def pull(
    *arrays: Array,
    call: Call,
    given: Sequence[bool],
    needed: Sequence[bool],
    likes: Sequence[Like],
    many: int,
) -> list[Array]:
    """Return the cotangents of the needed parameters.

    Parameters
    ----------
    *arrays : arrays
        Parameters, state, and the given cotangents, of shape (*many, *batch, *shape).
    call : Call
    given : sequence of bool
        For each output whether its cotangent is given; the others are zero.
    needed : sequence of bool
        For each parameter whether its cotangent is wanted.
    likes : sequence of Like
        For each needed parameter.
    many : int
        Number of leading dimensions over which cotangents of one solution are laid out.
    """
    solution, shapes, cotangents = _unpack(call, arrays)
    wanted = [shape for shape, need in zip(shapes, needed, strict=True) if need]
    summed = wanted == [like.shape for like in likes]

    def one(*row: Array) -> list[Array]:
        # JAX pairs a cotangent g and a tangent t as Re(g t), the core as Re(conj(g) t).
        pulled = solution.vjp(*_one_for_each(given, map(np.conj, row)), needed=needed, summed=summed)
        return [
            _sum_to(match_kind(p, like.dtype.name), like.shape).conj()
            for p, like in zip((p for p in pulled if p is not None), likes, strict=True)
        ]

    return _many(one, many, cotangents, likes)


def push(*arrays: Array, call: Call, given: Sequence[bool], many: int) -> list[Array]:
    """Return the tangents of the values.

    Parameters
    ----------
    *arrays : arrays
        Parameters, state, and the given tangents, of shape (*many, ..., *shape).
    call : Call
    given : sequence of bool
        For each parameter whether its tangent is given; the others are zero.
    many : int
        Number of leading dimensions over which tangents at one solution are laid out.
    """
    solution, _, tangents = _unpack(call, arrays)
    batch = solution.batch
    likes = [Like(batch + shape, dtype) for shape, dtype in zip(call.shapes, call.dtypes, strict=True)]
    return _many(lambda *row: list(solution.jvp(*_one_for_each(given, row))), many, tangents, likes)


def _unpack(call: Call, arrays: Sequence[Array]) -> tuple[LayerSolution, list[Shape], list[Array]]:
    """Return the solution, the shapes of its parameters, and the remaining arrays."""
    count = len(call.inner)
    parameters, words, rest = arrays[:count], arrays[count], arrays[count + 1 :]
    solution = call.kept.find(words)
    if solution is None:
        structure = call.core.maps.structure
        state = from_words(words, structure.n, structure.m)
        solution = call.core.resume([_plain(p) for p in parameters], state, call.solver_args)
    return solution, [p.shape for p in parameters], [_plain(array) for array in rest]


def _many(
    function: Callable[..., Sequence[Array]], many: int, arrays: Sequence[Array], likes: Sequence[Like]
) -> list[Array]:
    """Apply a function for each index of the leading ``many`` dimensions."""
    if not many:
        return [_cast(result, like.dtype) for result, like in zip(function(*arrays), likes, strict=True)]
    sizes = arrays[0].shape[:many]
    results = [np.empty(sizes + like.shape, like.dtype) for like in likes]
    for index in np.ndindex(*sizes):
        for result, part in zip(results, function(*(array[index] for array in arrays)), strict=True):
            result[index] = part
    return results


def _plain(array: Array) -> Array:
    """Return an array in a dtype that NumPy itself has."""
    return array.astype(numpy_dtype(array.dtype.name), copy=False)


def _cast(array: Array, dtype: np.dtype[Any]) -> Array:
    return match_kind(array, dtype.name).astype(dtype, copy=False)


def _one_for_each(given: Sequence[bool], items: Any) -> list[Array | None]:
    """Return the items in the places that are given, and None in the others."""
    rest = iter(items)
    return [next(rest) if is_given else None for is_given in given]


def _sum_to(array: Array, shape: Shape) -> Array:
    """Sum over the axes along which an array of that shape broadcasts to it."""
    padded = (1,) * (array.ndim - len(shape)) + shape
    axes = tuple(k for k, (own, full) in enumerate(zip(padded, array.shape, strict=True)) if own == 1 != full)
    return np.asarray(array.sum(axis=axes, keepdims=True)).reshape(shape)
