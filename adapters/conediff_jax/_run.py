"""A solve and its derivatives on NumPy arrays: JAX's arrays become NumPy's nowhere else.

The derivatives, of first and second order, have the same arguments: the parameters, the state of the
solution, and then arrays in which they are linear, in one or two groups. A group holds tangents of
parameters or cotangents of values; ``groups`` says for each parameter or value whether it is there, and what
is not there is zero. All of these arrays may have ``many`` leading dimensions: the derivative is taken of
each, at the same solution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conediff.layer.arguments import sum_to
from conediff.layer.dtypes import cast, lost_rounding, match_kind, widen
from conediff.layer.solution import LayerSolution
from conediff_jax._call import Call, Shape
from conediff_jax._kept import from_words

Array = NDArray[Any]
Group = tuple[bool, ...]


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
    arrays = [widen(p) for p in parameters]
    solution = call.core.solve(*arrays, solver_args=call.solver_args, precision=precision)
    values = [cast(value, dtype) for value, dtype in zip(solution.values, call.dtypes, strict=True)]
    return [*values, call.kept.keep(solution)] if keep else values


def push(*arrays: Array, call: Call, groups: Sequence[Group], many: int) -> list[Array]:
    """Return the tangents of the values for tangents of the parameters."""
    return _values(lambda solution, tangents: solution.jvp(*tangents), arrays, call, groups, many)


def turn(*arrays: Array, call: Call, groups: Sequence[Group], many: int) -> list[Array]:
    """Return the second derivatives of the values along two groups of tangents."""

    return _values(lambda solution, *pair: solution.derivative.turn(*pair), arrays, call, groups, many)


def pull(
    *arrays: Array,
    call: Call,
    groups: Sequence[Group],
    needed: Group,
    likes: Sequence[Like],
    many: int,
) -> list[Array]:
    """Return the cotangents of the needed parameters for cotangents of the values."""

    def one(solution: LayerSolution, cotangents: Any, **options: Any) -> Sequence[Array | None]:
        return solution.vjp(*map(_conjugate, cotangents), **options)

    return _cotangents(one, arrays, call, groups, needed, likes, many)


def curve(
    *arrays: Array,
    call: Call,
    groups: Sequence[Group],
    needed: Group,
    likes: Sequence[Like],
    many: int,
) -> list[Array]:
    """Return the changes of `pull` along a second group, tangents: a Hessian of the values, times these."""

    def one(
        solution: LayerSolution, cotangents: Any, tangents: Any, **options: Any
    ) -> Sequence[Array | None]:
        return solution.hvp(list(map(_conjugate, cotangents)), tangents, **options)

    return _cotangents(one, arrays, call, groups, needed, likes, many)


def _values(
    function: Callable[..., Sequence[Array]],
    arrays: Sequence[Array],
    call: Call,
    groups: Sequence[Group],
    many: int,
) -> list[Array]:
    """Apply a function of the solution and the groups that returns arrays like the values."""
    solution, _, linear = _unpack(call, arrays)
    batch = solution.batch
    likes = [Like(batch + shape, dtype) for shape, dtype in zip(call.shapes, call.dtypes, strict=True)]
    return _many(lambda *row: function(solution, *_grouped(groups, row)), many, linear, likes)


def _cotangents(
    function: Callable[..., Sequence[Array | None]],
    arrays: Sequence[Array],
    call: Call,
    groups: Sequence[Group],
    needed: Group,
    likes: Sequence[Like],
    many: int,
) -> list[Array]:
    """Apply a function of the solution and the groups that returns cotangents of parameters.

    JAX pairs a cotangent g and a tangent t as Re(g t), the core as Re(conj(g) t).
    """
    solution, shapes, linear = _unpack(call, arrays)
    wanted = [shape for shape, need in zip(shapes, needed, strict=True) if need]
    summed = wanted == [like.shape for like in likes]

    def one(*row: Array) -> list[Array]:
        found = function(solution, *_grouped(groups, row), needed=needed, summed=summed)
        return [
            sum_to(match_kind(g, like.dtype.name), like.shape).conj()
            for g, like in zip((g for g in found if g is not None), likes, strict=True)
        ]

    return _many(one, many, linear, likes)


def _unpack(call: Call, arrays: Sequence[Array]) -> tuple[LayerSolution, list[Shape], list[Array]]:
    """Return the solution, the shapes of its parameters, and the remaining arrays."""
    count = len(call.inner)
    parameters, words, rest = arrays[:count], arrays[count], arrays[count + 1 :]
    solution = call.kept.find(words)
    if solution is None:
        structure = call.core.maps.structure
        state = from_words(words, structure.n, structure.m)
        solution = call.core.resume([widen(p) for p in parameters], state, call.solver_args)
    return solution, [p.shape for p in parameters], [widen(array) for array in rest]


def _many(
    function: Callable[..., Sequence[Array]], many: int, arrays: Sequence[Array], likes: Sequence[Like]
) -> list[Array]:
    """Apply a function for each index of the leading ``many`` dimensions."""
    if not many:
        return [cast(result, like.dtype) for result, like in zip(function(*arrays), likes, strict=True)]
    sizes = arrays[0].shape[:many]
    results = [np.empty(sizes + like.shape, like.dtype) for like in likes]
    for index in np.ndindex(*sizes):
        for result, part in zip(results, function(*(array[index] for array in arrays)), strict=True):
            result[index] = part
    return results


def _grouped(groups: Sequence[Group], items: Sequence[Array]) -> list[list[Array | None]]:
    """Return each group with its arrays in the places that are there, and None in the others."""
    rest = iter(items)
    return [[next(rest) if is_there else None for is_there in group] for group in groups]


def _conjugate(array: Array | None) -> Array | None:
    return None if array is None else np.conj(array)
