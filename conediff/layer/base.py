"""The derivatives of a layer's solution as functions of one array, for frameworks that differentiate twice.

A derivative of the layer depends on the parameters and on the point (x, y, s), the solution of the cone
programs. The *base* joins them: for each element of the batch the entries of all parameters (of complex ones
the real, then the imaginary parts) and the point, as an array of shape (*batch, size) in float64. A framework
records `pull` and `push` as functions of the base and of cotangents or tangents, in which they are linear;
what comes back to the base as a cotangent is an argument of the solution's own `pull`. Parameters that the
batch shares are repeated in the base, so that it has one shape under every vmap.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from conediff.layer.first_order import Given
from conediff.layer.results import Arrays
from conediff.layer.solution import LayerSolution
from conediff.program import Array

Values = tuple[NDArray[Any], ...]


class BaseDerivative:
    """The derivatives of first and second order, with cotangents and tangents of the base.

    Parameters
    ----------
    solution : LayerSolution

    Attributes
    ----------
    shape : tuple of int
        Of the base: (*batch, size).
    """

    def __init__(self, solution: LayerSolution) -> None:
        self._solution, self._derivative = solution, solution.derivative
        derivative = self._derivative
        self._arguments, self._parameters = derivative.arguments, derivative.maps.parameters
        sizes = [(1 + spec.complex) * math.prod(spec.shape) for spec in self._parameters]
        self._ends = np.cumsum(sizes).tolist()
        self.shape = (*self._arguments.batch, sum(sizes) + derivative.point.shape[-1])

    def pull(
        self,
        cotangents: Given,
        base: ArrayLike | None = None,
        *,
        needed: Sequence[bool] | None = None,
        summed: bool = True,
    ) -> tuple[Arrays, Array]:
        """Pull cotangents of the values and of the base back to the parameters.

        Parameters
        ----------
        cotangents : sequence of arrays, shape (*batch, *shape), or None
            One for each value, in order; None means zero.
        base : array, shape (*batch, size), optional
            Cotangent of the base; zero by default.
        needed, summed
            As of `LayerSolution.vjp`.

        Returns
        -------
        cotangents : tuple of arrays or None
            Those of the parameters, as of `LayerSolution.vjp`.
        multipliers : array, shape (*batch, n + m)
            float64; an argument of `curve`.

        Raises
        ------
        ValueError
            If the number of the arrays, or a shape, does not fit; so in the other methods.
        """
        own, point = (None, None) if base is None else self._split(base)
        pulled = self._derivative.pull(cotangents, point, needed=needed, summed=summed)
        self._solution.count_degenerate()
        if own is None:
            return pulled.parameters, pulled.multipliers
        arguments = self._arguments if summed else self._arguments.expand_batch()
        stacks = (array.reshape(arguments.count, *array.shape[len(arguments.batch) :]) for array in own)
        found = tuple(
            None if array is None else np.asarray(array + arguments.cast(arguments.sum_to_shape(k, stack)))
            for k, (array, stack) in enumerate(zip(pulled.parameters, stacks, strict=True))
        )
        return found, pulled.multipliers

    def push(self, tangents: Given) -> tuple[Values, Array]:
        """Push tangents of the parameters forward.

        Parameters
        ----------
        tangents : sequence of arrays, or None
            As of `LayerSolution.jvp`.

        Returns
        -------
        tangents : tuple of arrays
            Those of the values.
        base : array, shape (*batch, size)
            Tangent of the base.
        """
        values, point = self._derivative.push(tangents)
        self._solution.count_degenerate()
        batch = self._arguments.batch
        own = [
            np.zeros(batch + spec.shape)
            if tangent is None
            else np.broadcast_to(np.asarray(tangent), batch + spec.shape)
            for spec, tangent in zip(self._parameters, tangents, strict=True)
        ]
        return values, self._joined(own, point)

    def curve(
        self,
        moved: ArrayLike,
        multipliers: ArrayLike,
        cotangents: Given,
        base: ArrayLike | None,
        *,
        forward: bool = False,
    ) -> Array:
        """Return a cotangent of the base: what second derivatives in reverse mode add.

        Parameters
        ----------
        moved : array, shape (*batch, size)
            Tangent of the base, from ``push(ω)``.
        multipliers : array, shape (*batch, n + m)
            From ``pull(cotangents, base)``.
        cotangents, base
            g, the arguments of that `pull`.
        forward : bool
            False: the gradient of <ω, pull(g)> = <push(ω), g> in the base. True: what the change of
            ``pull(g)`` along ``moved`` is the pull-back of; it saves a solve for the optimal value.

        See Also
        --------
        conediff.layer.second_order.LayerDerivative : the formulas
        """
        tangents, point = self._split(moved)
        own_point = None if base is None else self._split(base)[1]
        curve = self._derivative.turn_pull if forward else self._derivative.curve
        curved = curve(tangents, point, cotangents, own_point, multipliers, summed=False)
        return self._joined(curved.parameters, curved.point)

    def turn(self, moved: ArrayLike, pushed: ArrayLike) -> tuple[Values, Array]:
        """Return the change of ``push(ω)`` along a change of the base, as `push` returns its results.

        Parameters
        ----------
        moved : array, shape (*batch, size)
            The change of the base, from a `push`.
        pushed : array, shape (*batch, size)
            The tangent of the base from ``push(ω)``.
        """
        (along, moved_point), (directions, pushed_point) = self._split(moved), self._split(pushed)
        values, point = self._derivative.turn_push(along, moved_point, directions, pushed_point)
        self._solution.count_degenerate()
        return values, self._joined([np.zeros_like(array) for array in along], point)

    def _joined(self, parameters: Sequence[Any], point: Array) -> Array:
        """Join arrays (*batch, *shape) of all parameters, and the point."""
        rows, count = [], math.prod(self._arguments.batch)
        for spec, array in zip(self._parameters, parameters, strict=True):
            flat = np.asarray(array).reshape(count, math.prod(spec.shape))
            rows += [flat.real, flat.imag] if spec.complex else [flat]
        return np.concatenate([*rows, point.reshape(count, -1)], axis=1).reshape(self.shape)

    def _split(self, base: ArrayLike) -> tuple[list[NDArray[Any]], Array]:
        """Undo `_joined`."""
        array = np.asarray(base, dtype=np.float64)
        if array.shape != self.shape:
            raise ValueError(f"an array of the base must have shape {self.shape}, but has {array.shape}")
        *parts, point = np.split(array, self._ends, axis=-1)
        found = []
        for spec, part in zip(self._parameters, parts, strict=True):
            if spec.complex:
                real, imaginary = np.split(part, 2, axis=-1)
                part = real + 1j * imaginary
            found.append(part.reshape(self._arguments.batch + spec.shape))
        return found, point
