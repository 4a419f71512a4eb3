"""The first derivative of a layer's solution, as functions with explicit arguments.

The *point* is the solution (x, y, s) of the cone programs, as an array of shape (*batch, n + 2m). It stands
between the parameters and the values: `FirstOrder.pull` and `FirstOrder.push` take and return its cotangents
and tangents beside those of the values, so that second derivatives can be put together from calls of them
(`layer.second_order`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from conediff.derivative import StackDerivative
from conediff.derivative.kkt_derivative import Multipliers, Tangent
from conediff.layer.arguments import Arguments
from conediff.layer.compiled import CompiledProblem
from conediff.layer.maps import OutputSpec
from conediff.layer.results import Arrays, Pulled, Pushed
from conediff.program import Array, ConeData, Point
from conediff.solver.result import SolveResult
from conediff.solver.settings import Settings

Given = Sequence[ArrayLike | None]
Stacks = list[NDArray[Any] | None]


class FirstOrder:
    """The first derivative of a solved batch of a layer.

    Parameters
    ----------
    compiled : CompiledProblem
    arguments : Arguments
    data : ConeData
    d : array, shape (B,) or (1,)
        The constant of the objective.
    result : SolveResult
    settings : Settings

    Attributes
    ----------
    maps : ProblemMaps
    arguments : Arguments
    """

    def __init__(
        self,
        compiled: CompiledProblem,
        arguments: Arguments,
        data: ConeData,
        d: Array,
        result: SolveResult,
        settings: Settings,
    ) -> None:
        self._compiled, self.maps, self.arguments = compiled, compiled.maps, arguments
        self._data, self._d, self._result, self._settings = data, d, result, settings
        # Certificates of failed elements are not solutions.
        solved = result.has_solution
        self._point = result.point
        if not solved.all():
            self._point = Point(*(np.where(solved[:, None], part, np.nan) for part in result.point))

    def __getstate__(self) -> dict[str, Any]:
        """Pickle all but the factorisations, which are made again when they are needed."""
        return {name: value for name, value in self.__dict__.items() if name != "stack"}

    @cached_property
    def stack(self) -> StackDerivative:
        """The derivative of the cone programs."""
        compiled = self._compiled
        return StackDerivative(
            compiled.solver, self._data, self._result, self._settings, compiled.observability, compiled.told
        )

    def values(self) -> tuple[NDArray[Any], ...]:
        """Return the values of the outputs, shape (*batch, *shape); NaN where there is no solution."""
        x, y, _ = self._point
        value = self.maps.value(self._data, self._d, x) if self._has_value else None
        return self._outputs(self.maps.recover(x, y, value))

    def dual(self, spec: OutputSpec) -> NDArray[Any]:
        """Return a dual variable, shape (*batch, *shape)."""
        value = spec.value(self._point.y)
        return self.arguments.cast(value.reshape(self.arguments.batch + spec.shape))

    @property
    def point(self) -> Array:
        """The point (x, y, s), shape (*batch, n + 2m), float64; NaN where an element has no solution."""
        return self._joined(self._point)

    def pull(
        self,
        cotangents: Given,
        point: ArrayLike | None = None,
        *,
        needed: Sequence[bool] | None = None,
        summed: bool = True,
    ) -> Pulled:
        """Pull cotangents of the values and of the point back to the parameters.

        Parameters
        ----------
        cotangents : sequence of arrays, shape (*batch, *shape), or None
            One for each value, in order; None means zero.
        point : array, shape (*batch, n + 2m), optional
            Cotangent of the point; zero by default.
        needed, summed
            As of ``LayerSolution.vjp``.

        Raises
        ------
        ValueError
            If a number of arrays, or a shape, does not fit; here and in the other methods.
        """
        parameters, r = self._pull(cotangents, point, needed, summed)
        if r is None:
            count, structure = len(self._point.x), self.maps.structure
            r = Multipliers(np.zeros((count, structure.n)), np.zeros((count, structure.m)))
        return Pulled(parameters, self._joined(r))

    def vjp(self, cotangents: Given, needed: Sequence[bool] | None, summed: bool) -> Arrays:
        """Do as `pull`, but return the cotangents of the parameters only."""
        return self._pull(cotangents, None, needed, summed)[0]

    def jvp(self, tangents: Given) -> tuple[NDArray[Any], ...]:
        """Do as `push`, but return the tangents of the values only."""
        return self._push(tangents)[0]

    def push(self, tangents: Given) -> Pushed:
        """Push tangents of the parameters forward to the values and the point.

        Parameters
        ----------
        tangents : sequence of arrays, or None
            As of ``LayerSolution.jvp``.
        """
        values, moved = self._push(tangents)
        return Pushed(values, self._joined(moved))

    def _push(self, tangents: Given) -> tuple[tuple[NDArray[Any], ...], Tangent]:
        change, dd = self._data_tangent(tangents)
        moved = self.stack.push(change.repeated(len(self._point.x)))
        dvalue = None
        if self._has_value:
            dvalue = self.maps.value_tangent(self._data, self._d, *self._point[:2], change, dd)
        values = self.maps.recover_tangent(*self._point[:2], moved.dx, moved.dy, dvalue)
        return self._outputs(values), moved

    def multipliers(self, cotangents: Given, point: ArrayLike | None = None) -> Array:
        """Return the multipliers of `pull`, without a solve if the last one was of the same cotangents."""
        g, _ = self._point_cotangent(self._stacks(cotangents), point)
        count, structure = len(self._point.x), self.maps.structure
        if g is None:
            return self._joined([np.zeros((count, structure.n + structure.m))])
        return self._joined(self.stack.multipliers(*g))

    def _data_tangent(self, tangents: Given) -> tuple[ConeData, Array]:
        """Return the tangents of the data and of d for those of the parameters."""
        return self.maps.push_forward(self.arguments.values, self.arguments.tangents(tangents, self._names))

    def _point_cotangent(
        self, stacks: Stacks, point: ArrayLike | None
    ) -> tuple[Tangent | None, Array | None]:
        """Return the cotangents of the point and of the optimal value; None where they are zero."""
        outputs = zip(stacks, self.maps.outputs, strict=True)
        is_reached = any(stack is not None and o.kind != "objective" for stack, o in outputs)
        gx, gy, gvalue = self.maps.recover_cotangent(self._point.x, self._point.y, stacks)
        gs = np.zeros_like(gy)
        if point is not None:
            own = self._split(point, 3)
            if any(part.any() for part in own):
                gx, gy, gs, is_reached = gx + own[0], gy + own[1], gs + own[2], True
        return (Tangent(gx, gy, gs) if is_reached else None), gvalue

    def _pull(
        self, cotangents: Given, point: ArrayLike | None, needed: Sequence[bool] | None, summed: bool
    ) -> tuple[Arrays, Multipliers | None]:
        """Return cotangents of the parameters, and the multipliers; None if no solve was necessary."""
        stacks = self._stacks(cotangents)
        g, gvalue = self._point_cotangent(stacks, point)
        data, gd, r = self._data.zeros(), None, None
        if g is not None:
            data = self.stack.pull(*g)
            r = Multipliers(-data.c, data.b)
        if gvalue is not None:
            direct, gd = self.maps.value_cotangent(self._data, self._d, *self._point[:2], gvalue)
            data = data.plus(direct)
        return self._to_parameters(data, gd, self._asked(stacks, point), needed, summed), r

    def _to_parameters(
        self,
        data: ConeData,
        d: Array | None,
        asked: NDArray[np.bool_],
        needed: Sequence[bool] | None,
        summed: bool,
    ) -> Arrays:
        """Bring cotangents of the data and of d back to the parameters, in the shapes that the user sees."""
        self._check_needed(needed)
        data, d = self._without_failed(data, d, asked)
        arguments = self.arguments if summed else self.arguments.expand_batch()
        pulled = self.maps.pull_back(arguments.values, data, d, needed)
        return tuple(
            None if array is None else arguments.cast(arguments.sum_to_shape(k, array))
            for k, array in enumerate(pulled)
        )

    def _without_failed(
        self, data: ConeData, d: Array | None, asked: NDArray[np.bool_]
    ) -> tuple[ConeData, Array | None]:
        """Put NaN, or zero, into the cotangents of elements that have no solution.

        Zero in any case where nothing was asked of an element: a loss that leaves it out is then right also
        for parameters that all elements share.
        """
        failed = ~self._result.has_solution
        if not failed.any():
            return data, d
        fill = np.where(asked, self._result.failed_cotangent, 0.0)
        parts = (np.where(failed[:, None], fill[:, None], part) for part in (data.P, data.A, data.b, data.c))
        return ConeData(*parts), None if d is None else np.where(failed, fill, d)

    def _asked(self, stacks: Stacks, point: ArrayLike | None) -> NDArray[np.bool_]:
        """Whether a cotangent asks something of an element, shape (B,); used where elements have failed."""
        asked = np.zeros(len(self._point.x), dtype=bool)
        if self._result.has_solution.all():
            return asked  # nobody reads it
        for array in [*stacks, *([] if point is None else self._split(point, 3))]:
            if array is not None:
                asked |= (array != 0).any(axis=tuple(range(1, array.ndim)))
        return asked

    def _check_needed(self, needed: Sequence[bool] | None) -> None:
        if needed is not None and len(needed) != len(self.maps.parameters):
            raise ValueError(
                f"needed must say True or False for each of {len(self.maps.parameters)} parameters, "
                f"got {len(needed)}"
            )

    def _stacks(self, cotangents: Given) -> Stacks:
        """Flatten the batch of the cotangents."""
        outputs = self.maps.outputs
        if len(cotangents) != len(outputs):
            raise ValueError(f"expected {len(outputs)} cotangents, one per variable, got {len(cotangents)}")
        result: Stacks = []
        for cotangent, spec in zip(cotangents, outputs, strict=True):
            array = None if cotangent is None else np.asarray(cotangent)
            shape = self.arguments.batch + spec.shape
            if array is not None and array.shape != shape:
                raise ValueError(
                    f"the cotangent of {spec.name!r} must have shape {shape}, but has {array.shape}"
                )
            result.append(None if array is None else array.reshape((len(self._point.x), *spec.shape)))
        return result

    def _outputs(self, stacks: Sequence[NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        arguments, outputs = self.arguments, self.maps.outputs
        return tuple(
            arguments.cast(stack.reshape(arguments.batch + spec.shape))
            for stack, spec in zip(stacks, outputs, strict=True)
        )

    @property
    def _has_value(self) -> bool:
        return any(spec.kind == "objective" for spec in self.maps.outputs)

    @property
    def _names(self) -> list[str]:
        return [spec.name for spec in self.maps.parameters]

    def _joined(self, parts: Sequence[Array]) -> Array:
        """Join arrays (B, k) to one of shape (*batch, sum of k)."""
        joined = np.concatenate(parts, axis=1)
        return joined.reshape(self.arguments.batch + joined.shape[1:])

    def _split(self, joined: ArrayLike, parts: int) -> list[Array]:
        """Split a point (*batch, n + 2m) into three stacks, or multipliers (*batch, n + m) into two."""
        n, m, batch = self.maps.structure.n, self.maps.structure.m, self.arguments.batch
        array, shape = np.asarray(joined, dtype=np.float64), (*batch, n + (parts - 1) * m)
        if array.shape != shape:
            what = "a point" if parts == 3 else "multipliers"
            raise ValueError(f"{what} must have shape {shape}, but got {array.shape}")
        rows = array.reshape(len(self._point.x), shape[-1])
        return np.split(rows, [n, n + m][: parts - 1], axis=1)
