"""Second derivatives of a layer's solution, as functions with explicit arguments.

For users there is `LayerSolution` (vjp, jvp, hvp, jacobian, hessian); adapters call `LayerDerivative`. Its
functions are those that a framework's functions need, with the point (see `layer.first_order`) as an argument
between the parameters and the values:

- ``pull`` and ``push`` are linear in cotangents and tangents, and each is the other's transpose;
- ``curve`` is the gradient of <ω, pull(g)> = <push(ω), g> in the parameters and the point: what reverse modes
  of second order add;
- ``turn_pull`` and ``turn_push`` are the changes of pull(g) and push(ω) along tangents of the parameters and
  the point: what forward modes of second order add; ``turn`` does all of forward over forward.

The maps add second derivatives of their own: logarithms of parameters, exponentials of outputs, and the
optimal value.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from conediff.derivative.kkt_derivative import Multipliers, Tangent
from conediff.derivative.second_order import added
from conediff.layer.first_order import FirstOrder, Given
from conediff.layer.maps import CurvedValue
from conediff.layer.results import Arrays, Curved, Pushed
from conediff.program import Array, ConeData, Products, outer, products


class LayerDerivative(FirstOrder):
    """The derivatives of first and second order of a solved batch of a layer."""

    @cached_property
    def _value(self) -> CurvedValue:
        return CurvedValue(self.maps, self._data, self._d, *self._point[:2])

    def curve(
        self,
        tangents: Given,
        moved: ArrayLike,
        cotangents: Given,
        point: ArrayLike | None,
        multipliers: ArrayLike,
        *,
        needed: Sequence[bool] | None = None,
        summed: bool = True,
    ) -> Curved:
        """Return the gradient of <ω, pull(g)> = <push(ω), g> in the parameters and in the point.

        The parameters, the point, ω and g are independent arguments. The gradient in ω is pull(g), that in g
        push(ω). No linear system is solved.

        Parameters
        ----------
        tangents : sequence of arrays, or None
            ω, as of `push`: the cotangents of what `pull` returned, in reverse over reverse mode.
        moved : array, shape (*batch, n + 2m)
            ``push(tangents).point``.
        cotangents, point
            g, as of `pull`: the cotangents of what `push` returned, in reverse over forward mode.
        multipliers : array, shape (*batch, n + m)
            ``pull(cotangents, point).multipliers``.
        needed, summed
            As of ``LayerSolution.vjp``.
        """
        return self._curve(False, tangents, moved, cotangents, point, multipliers, needed, summed)

    def turn_pull(
        self,
        tangents: Given,
        moved: ArrayLike,
        cotangents: Given,
        point: ArrayLike | None,
        multipliers: ArrayLike,
        *,
        needed: Sequence[bool] | None = None,
        summed: bool = True,
    ) -> Curved:
        """Return the change of ``pull`` along tangents of the parameters and the point, before one `pull`.

        With ``dg`` the change of g, that of ``pull(g)`` is ``parameters + pull(dg + point)`` of what is
        returned, so that one solve serves both. It is the forward over reverse mode.

        Parameters
        ----------
        tangents : sequence of arrays, or None
            Of the parameters, as of `push`.
        moved : array, shape (*batch, n + 2m)
            Of the point: ``push(tangents).point``.
        cotangents, point, multipliers, needed, summed
            As of `curve`.
        """
        return self._curve(True, tangents, moved, cotangents, point, multipliers, needed, summed)

    def turn_push(
        self,
        tangents: Given,
        moved: ArrayLike,
        directions: Given,
        pushed: ArrayLike,
        change: Given | None = None,
    ) -> Pushed:
        """Return the change of ``push(directions)`` along tangents of the parameters and the point.

        It is the forward over forward mode; one solve.

        Parameters
        ----------
        tangents : sequence of arrays, or None
            Of the parameters, as of `push`.
        moved : array, shape (*batch, n + 2m)
            Of the point: ``push(tangents).point``.
        directions : sequence of arrays, or None
            As of `push`.
        pushed : array, shape (*batch, n + 2m)
            ``push(directions).point``.
        change : sequence of arrays, or None, optional
            The change of the directions; zero by default.
        """
        maps, structure, (x, y, _) = self.maps, self.maps.structure, self._point
        count = len(x)
        along, direction = self._data_tangent(tangents), self._data_tangent(directions)
        dz, dw = Tangent(*self._split(moved, 3)), Tangent(*self._split(pushed, 3))
        second = self._second_tangent(tangents, directions, change)
        parts = [products(structure, direction[0], dz.dx, dz.dy), products(structure, along[0], dw.dx, dw.dy)]
        zero = np.zeros((1, structure.m)), np.zeros((1, structure.n))
        total = added(
            *(Products(*part[:3], *zero) for part in parts),
            products(structure, second[0].repeated(count), x, y),
        )
        turned = self.stack.turn(total, dz, dw)
        dvalue = None
        if self._has_value:
            dvalue = maps.value_tangent(self._data, self._d, x, y, *second)
            dvalue = dvalue + self._value.change_of_tangent(*along, dz.dx, dz.dy, direction)
        values = maps.recover_tangent(x, y, turned.dx, turned.dy, dvalue)
        for k, o in enumerate(maps.outputs):
            if o.exp:
                values[k] = values[k] + o.second_tangent(o.source(x, y), o.source(*dw[:2]), o.source(*dz[:2]))
        return Pushed(self._outputs(values), self._joined(turned))

    def turn(self, first: Given, second: Given) -> tuple[NDArray[Any], ...]:
        """Return the second derivative of the values along two tangents of the parameters.

        It is bilinear and symmetric in them: `turn_push` of what `push` returns for each; three solves.

        Parameters
        ----------
        first, second : sequences of arrays, or None
            As of `push`.

        Returns
        -------
        tuple of arrays, shape (*batch, *shape)
            One for each value.
        """
        moved, pushed = (self.push(tangents).point for tangents in (first, second))
        return self.turn_push(first, moved, second, pushed).values

    def _curve(
        self,
        forward: bool,
        tangents: Given,
        moved: ArrayLike,
        cotangents: Given,
        point: ArrayLike | None,
        multipliers: ArrayLike,
        needed: Sequence[bool] | None,
        summed: bool,
    ) -> Curved:
        """Do as `turn_pull` says, or as `curve`; they differ in the terms of the optimal value only."""
        stacks = self._stacks(cotangents)
        g, gvalue = self._point_cotangent(stacks, point)
        change, dd = self._data_tangent(tangents)
        dz, r = Tangent(*self._split(moved, 3)), Multipliers(*self._split(multipliers, 2))
        data, gd, (px, py, ps) = self._data.zeros(), None, (np.zeros_like(part) for part in self._point)
        if g is not None:
            data, (px, py, ps) = self.stack.curve(products(self.maps.structure, change, *r), dz, g, r)
        for o, stack in zip(self.maps.outputs, stacks, strict=True):
            if o.exp and stack is not None:
                own = o.second_cotangent(o.source(*self._point[:2]), o.source(dz.dx, dz.dy), stack)
                px, py = (px + own, py) if o.kind == "primal" else (px, py + own)
        if gvalue is not None:
            if forward:
                own_data, gd = self._value.change_of_cotangent(change, dd, dz.dx, dz.dy, gvalue)
            else:
                own_x, own_y, (own_data, gd) = self._value.gradient(change, dd, gvalue)
                px, py = px + own_x, py + own_y
            data = data.plus(own_data)
        asked = self._asked(stacks, point)
        parameters = self._to_parameters(data, gd, asked, needed, summed)
        parameters = self._with_logarithms(parameters, tangents, (gvalue, r), asked, summed)
        failed = ~self._result.has_solution[:, None]
        fill = np.where(asked, self._result.failed_cotangent, 0.0)[:, None]
        return Curved(parameters, self._joined([np.where(failed, fill, part) for part in (px, py, ps)]))

    def _with_logarithms(
        self,
        parameters: Arrays,
        tangents: Given,
        g: tuple[Array | None, Multipliers],
        asked: NDArray[np.bool_],
        summed: bool,
    ) -> Arrays:
        """Add what the logarithms of parameters are curved by, to cotangents of the parameters."""
        specs = self.maps.parameters
        curved = [
            spec.log and tangent is not None and array is not None
            for spec, tangent, array in zip(specs, tangents, parameters, strict=True)
        ]
        if not any(curved):
            return parameters
        # Of each element of the batch, because those that share a value may have tangents of their own.
        arguments, (gvalue, r) = self.arguments.expand_batch(), g
        x, y, _ = self._point
        data, gd = outer(self.maps.structure, x, y, *r), None
        if gvalue is not None:
            direct, gd = self.maps.value_cotangent(self._data, self._d, x, y, gvalue)
            data = data.plus(direct)
        data, gd = self._without_failed(data, gd, asked)
        features = self.maps.feature_cotangents(arguments.values, data, gd, curved)
        stacks = self.arguments.tangents(tangents, self._names)
        result = list(parameters)
        for k, (spec, feature, stack) in enumerate(zip(specs, features, stacks, strict=True)):
            if feature is not None and stack is not None:
                own = spec.second_cotangent(arguments.values[k], stack, feature)
                shapes = self.arguments if summed else arguments
                result[k] = result[k] + shapes.cast(shapes.sum_to_shape(k, own))
        return tuple(result)

    def _second_tangent(
        self, tangents: Given, directions: Given, change: Given | None
    ) -> tuple[ConeData, Array]:
        """Return what the directions change by, as a tangent of the data and of d."""
        arguments, maps = self.arguments, self.maps
        none = [None] * len(maps.parameters)
        stacks = (arguments.tangents(g, self._names) for g in (tangents, directions, change or none))
        features: list[Array | None] = []
        for spec, value, a, b, c in zip(maps.parameters, arguments.values, *stacks, strict=True):
            feature = None if c is None else spec.tangent(value, c)
            if spec.log and a is not None and b is not None:
                curved = spec.second_tangent(value, b, a)
                feature = curved if feature is None else feature + curved
            features.append(feature)
        return maps.linear(features)
