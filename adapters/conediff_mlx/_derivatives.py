"""The derivatives of a solution as custom functions of MLX's, each with rules of its own.

MLX takes arrays that are computed outside of it for constants. So every derivative is a custom function of
the parameters and of what it is linear in, whose rules call the others; those of second order refuse to be
differentiated, where MLX would silently return zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx

from conediff.layer.adapter import third_derivatives
from conediff.layer.solution import LayerSolution
from conediff_mlx._arrays import is_inexact, to_mlx, to_numpy

Arrays = tuple[mx.array, ...]


class Derivatives:
    """The derivatives of a solution.

    Parameters
    ----------
    solved : list of one conediff.LayerSolution
        Filled in when the solution is known.
    parameters : sequence of arrays
    dtypes : sequence of mlx dtypes
        Of the values.
    """

    def __init__(
        self, solved: list[LayerSolution], parameters: Sequence[mx.array], dtypes: Sequence[Any]
    ) -> None:
        self._solved, self._dtypes = solved, dtypes
        self._kinds = [p.dtype for p in parameters]
        self._needed = [is_inexact(p) for p in parameters]

    def pull(self, parameters: Arrays, cotangents: Arrays) -> Arrays:
        """Return cotangents of the parameters: zero for integers."""

        def run(parameters: Arrays, cotangents: Arrays) -> Arrays:
            found = self._solved[0].vjp(*map(to_numpy, cotangents), needed=self._needed)
            return self._cotangents(parameters, found)

        def vjp(parameters: Arrays, cotangents: Arrays, tangents: Arrays) -> Arrays:
            return (*self.curve(parameters, cotangents, tangents), *self.push(parameters, tangents))

        def jvp(parameters: Arrays, cotangents: Arrays, along: Arrays, changes: Arrays) -> Arrays:
            return _sum(self.pull(parameters, changes), self.curve(parameters, cotangents, along))

        return self._custom(run, vjp, jvp)(parameters, cotangents)

    def push(self, parameters: Arrays, tangents: Arrays) -> Arrays:
        """Return tangents of the values."""

        def run(parameters: Arrays, tangents: Arrays) -> Arrays:
            return self._values(self._solved[0].jvp(*self._tangents(tangents)))

        def vjp(parameters: Arrays, tangents: Arrays, cotangents: Arrays) -> Arrays:
            return (*self.curve(parameters, cotangents, tangents), *self.pull(parameters, cotangents))

        def jvp(parameters: Arrays, tangents: Arrays, along: Arrays, changes: Arrays) -> Arrays:
            return _sum(self.push(parameters, changes), self.turn(parameters, tangents, along))

        return self._custom(run, vjp, jvp)(parameters, tangents)

    def curve(self, parameters: Arrays, cotangents: Arrays, tangents: Arrays) -> Arrays:
        """Return the changes of `pull` along tangents of the parameters."""

        def run(parameters: Arrays, linear: Arrays) -> Arrays:
            given, along = linear[: len(cotangents)], linear[len(cotangents) :]
            arrays = list(map(to_numpy, given)), self._tangents(along)
            return self._cotangents(parameters, self._solved[0].hvp(*arrays, needed=self._needed))

        return self._custom(run, _refuse_third, _refuse_third)(parameters, (*cotangents, *tangents))

    def turn(self, parameters: Arrays, first: Arrays, second: Arrays) -> Arrays:
        """Return the changes of `push` along tangents of the parameters."""

        def run(_: Arrays, linear: Arrays) -> Arrays:
            both = self._tangents(linear[: len(first)]), self._tangents(linear[len(first) :])
            return self._values(self._solved[0].derivative.turn(*both))

        return self._custom(run, _refuse_third, _refuse_third)(parameters, (*first, *second))

    def _custom(
        self, run: Callable[..., Arrays], vjp: Callable[..., Arrays], jvp: Callable[..., Arrays]
    ) -> Callable[..., Arrays]:
        """Make a custom function of the parameters and of arrays in which it is linear."""
        count = len(self._kinds)

        def cut(arrays: Any) -> tuple[Arrays, Arrays]:
            return tuple(arrays[:count]), tuple(arrays[count:])

        function = mx.custom_function(lambda *arrays: run(*cut(arrays)))
        function.vjp(lambda primals, incoming, _: vjp(*cut(primals), as_tuple(incoming)))
        function.jvp(lambda primals, tangents: jvp(*cut(primals), *cut(filled(tangents, primals))))
        return lambda parameters, linear: as_tuple(function(*parameters, *linear))

    def _values(self, arrays: Sequence[Any]) -> Arrays:
        return tuple(to_mlx(array, dtype) for array, dtype in zip(arrays, self._dtypes, strict=True))

    def _cotangents(self, parameters: Arrays, arrays: Sequence[Any]) -> Arrays:
        pairs = zip(parameters, arrays, strict=True)
        return tuple(mx.zeros_like(p) if g is None else to_mlx(g, p.dtype) for p, g in pairs)

    def _tangents(self, tangents: Arrays) -> list[Any]:
        return [to_numpy(t) if need else None for t, need in zip(tangents, self._needed, strict=True)]


def _refuse_third(*_: Any) -> Any:
    raise third_derivatives("put mx.stop_gradient around")


def _sum(first: Arrays, second: Arrays) -> Arrays:
    return tuple(a + b for a, b in zip(first, second, strict=True))


def as_tuple(items: Any) -> tuple[Any, ...]:
    """Return what MLX passes as one item if there is one, and as several otherwise."""
    return tuple(items) if isinstance(items, Sequence) else (items,)


def filled(tangents: Any, primals: Any) -> Arrays:
    """Return tangents with zeros in the places of None."""
    pairs = zip(as_tuple(tangents), as_tuple(primals), strict=True)
    return tuple(mx.zeros_like(p) if t is None else t for t, p in pairs)
