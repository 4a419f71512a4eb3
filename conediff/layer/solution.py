"""A solved batch of a layer: values, how it went, and derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from conediff.api.failures import handle_failures
from conediff.api.solution import Solutions, SolvedBatch, solve_info
from conediff.derivative import BatchDerivative, Diagnostics
from conediff.layer.arguments import Arguments
from conediff.layer.compiled import CompiledProblem
from conediff.layer.maps import OutputSpec
from conediff.program import Array, ConeData
from conediff.solver.result import SolveResult
from conediff.solver.settings import Settings


class LayerSolution:
    """A solved batch of a layer: values, how it went, and derivatives.

    Attributes
    ----------
    values : tuple of arrays, shape (*batch, *shape)
        In the order of the layer's ``variables``; NaN where an element has no solution.
    batch : tuple of int
    info : dict
        Per element, shape batch: status, iterations, refinements, residual and solver (whose point was
        refined: "scs", "clarabel", or "start" for a warm start); for the batch: times in seconds, and
        ``degenerate``, the number of elements at which a derivative asked for so far does not exist.
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
        self._compiled, self._maps, self._arguments = compiled, compiled.maps, arguments
        self._data, self._d, self.result, self._settings = data, d, result, settings
        self.batch, maps = arguments.batch, compiled.maps
        self.info = {
            key: value.reshape(self.batch) if isinstance(value, np.ndarray) else value
            for key, value in solve_info(result).items()
        }
        self.info["degenerate"] = 0
        # Certificates of failed elements are not values: they are in `result` and in `cones`.
        solved = result.has_solution[:, None]
        self._x, self._y = np.where(solved, result.x, np.nan), np.where(solved, result.y, np.nan)
        value = maps.value(data, d, self._x) if self._has_value else None
        recovered = maps.recover(self._x, self._y, value)
        self.values = tuple(
            self._reshape_and_cast(spec, array) for spec, array in zip(maps.outputs, recovered, strict=True)
        )

    def handle_failures(self) -> None:
        """Do with elements that failed as ``on_failure`` says; see `failures.handle_failures`."""
        handle_failures(self.result, self._settings, self, self.batch)

    @property
    def state(self) -> tuple[Array, Array, Array, NDArray[np.int8]]:
        """Arrays from which `CvxpyLayer.resume` rebuilds this solution: x, y, s, and an outcome per element.

        The outcome is 0 where there is a solution, 1 where there is none and cotangents are NaN, and 2 where
        there is none and cotangents are zero.
        """
        failed = np.int8(2 if self.result.failed_cotangent == 0.0 else 1)
        outcome = np.where(self.result.has_solution, np.int8(0), failed)
        return *self.result.point, outcome

    @property
    def _has_value(self) -> bool:
        return any(spec.kind == "objective" for spec in self._maps.outputs)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle all but the derivative, which is made again when it is needed."""
        return {name: value for name, value in self.__dict__.items() if name != "_derivative"}

    @property
    def status(self) -> NDArray[np.str_]:
        """Status per element, shape batch: solved, inaccurate, infeasible, unbounded or failed."""
        return self.result.status.reshape(self.batch).copy()

    @cached_property
    def duals(self) -> tuple[Any, ...]:
        """Dual variables of every constraint, in the problem's order, with cvxpy's values and signs.

        An array of shape (*batch, *shape) for a constraint with one dual variable, a tuple of them for one
        with several, None where cvxpy recovers none.
        """
        found = [
            tuple(self._reshape_and_cast(spec, spec.value(self._y)) for spec in group)
            for group in self._maps.duals
        ]
        return tuple(group[0] if len(group) == 1 else group or None for group in found)

    @property
    def cones(self) -> Solutions:
        """The cone programs' solutions, certificates included; the batch flattened."""
        return Solutions(SolvedBatch(self._compiled.solver, self._data, self.result, self._settings))

    @cached_property
    def _derivative(self) -> BatchDerivative:
        compiled = self._compiled
        return BatchDerivative(
            compiled.solver, self._data, self.result, self._settings, compiled.observability, compiled.told
        )

    @property
    def diagnostics(self) -> Diagnostics:
        """How well the derivative is defined; of the elements that have a solution, in order."""
        return self._derivative.diagnostics

    def vjp(
        self,
        *cotangents: ArrayLike | None,
        needed: Sequence[bool] | None = None,
        summed: bool = True,
    ) -> tuple[NDArray[Any] | None, ...]:
        """Pull cotangents of the variables back to the parameters.

        Parameters
        ----------
        *cotangents : arrays, shape (*batch, *shape), or None
            One for each value, in order; None means zero.
        needed : sequence of bool, optional
            Which parameters' cotangents to compute; all by default.
        summed : bool
            Whether to sum over the axes along which a parameter was broadcast; if not, every element of the
            batch has its own cotangents.

        Returns
        -------
        tuple of arrays or None
            Each in the shape in which its parameter was passed, or, not ``summed``, (*batch, *shape); None
            where not needed. A complex cotangent is dL/dRe + i dL/dIm.

        Raises
        ------
        ValueError
            If the number of the cotangents, or a shape, does not fit.

        Warns
        -----
        DegeneracyWarning
            If the solution map is not differentiable; the least-squares answer of least norm is returned. A
            layer warns once for each cause; ``diagnostics.degenerate`` and ``info["degenerate"]`` say more.
        AccuracyWarning
            If a linear solve fell short of its tolerance.
        """
        outputs = self._maps.outputs
        if needed is not None and len(needed) != len(self._maps.parameters):
            raise ValueError(
                f"needed must say True or False for each of {len(self._maps.parameters)} parameters, "
                f"got {len(needed)}"
            )
        stacks = self._stacks(cotangents)
        gx, gy, gvalue = self._maps.recover_cotangent(self._x, self._y, stacks)
        g, gd = self._data.zeros(), None
        if any(stack is not None and o.kind != "objective" for stack, o in zip(stacks, outputs, strict=True)):
            g = self._derivative.pull(gx, gy, np.zeros_like(gy))
            self.info["degenerate"] = int(self._derivative.degenerate.sum())
        if gvalue is not None:
            direct, gd = self._maps.value_cotangent(self._data, self._d, self._x, self._y, gvalue)
            g = ConeData(g.P + direct.P, g.A + direct.A, g.b + direct.b, g.c + direct.c)
        g, gd = self._without_failed(g, gd, stacks)
        arguments = self._arguments if summed else self._arguments.expand_batch()
        pulled = self._maps.pull_back(arguments.values, g, gd, needed)
        return tuple(
            None if array is None else arguments.sum_to_shape(k, array).astype(self._dtype(array), copy=False)
            for k, array in enumerate(pulled)
        )

    def jvp(self, *tangents: ArrayLike | None) -> tuple[NDArray[Any], ...]:
        """Push tangents of the parameters forward to the variables.

        Parameters
        ----------
        *tangents : arrays, or None
            One for each parameter, in the shape in which it was passed, or one that broadcasts to
            (*batch, *shape), so that elements that share a value may have tangents of their own; None means
            zero.

        Returns
        -------
        tuple of arrays, shape (*batch, *shape)
            One for each value.

        Raises
        ------
        ValueError
            If the number of the tangents, or a shape, does not fit.

        Warns
        -----
        DegeneracyWarning, AccuracyWarning
            As `vjp`.
        """
        arguments = self._arguments
        if len(tangents) != len(arguments.shapes):
            raise ValueError(
                f"expected {len(arguments.shapes)} tangents, one per parameter, got {len(tangents)}"
            )
        stacks = [self._tangent(k, tangent) for k, tangent in enumerate(tangents)]
        change, dd = self._maps.push_forward(arguments.values, stacks)
        dx, dy, _ = self._derivative.push(change.repeated(len(self._x)))
        self.info["degenerate"] = int(self._derivative.degenerate.sum())
        dvalue = None
        if self._has_value:
            dvalue = self._maps.value_tangent(self._data, self._d, self._x, self._y, change, dd)
        pushed = self._maps.recover_tangent(self._x, self._y, dx, dy, dvalue)
        return tuple(
            self._reshape_and_cast(spec, array)
            for spec, array in zip(self._maps.outputs, pushed, strict=True)
        )

    def _without_failed(
        self, g: ConeData, gd: Array | None, cotangents: Sequence[NDArray[Any] | None]
    ) -> tuple[ConeData, Array | None]:
        """Put NaN, or zero, into the cotangents of elements that have no solution.

        Zero in any case where nothing was asked of an element: a loss that leaves it out is then right also
        for parameters that all elements share.
        """
        failed = ~self.result.has_solution
        if not failed.any():
            return g, gd
        asked = np.zeros(len(failed), dtype=bool)
        for cotangent in cotangents:
            if cotangent is not None:
                asked |= (cotangent != 0).reshape(len(failed), -1).any(axis=1)
        fill = np.where(asked, self.result.failed_cotangent, 0.0)
        parts = (np.where(failed[:, None], fill[:, None], part) for part in (g.P, g.A, g.b, g.c))
        return ConeData(*parts), None if gd is None else np.where(failed, fill, gd)

    def _stacks(self, cotangents: Sequence[ArrayLike | None]) -> list[NDArray[Any] | None]:
        """Flatten the batch of the cotangents."""
        outputs = self._maps.outputs
        if len(cotangents) != len(outputs):
            raise ValueError(f"expected {len(outputs)} cotangents, one per variable, got {len(cotangents)}")
        result: list[NDArray[Any] | None] = []
        for cotangent, spec in zip(cotangents, outputs, strict=True):
            array = None if cotangent is None else np.asarray(cotangent)
            if array is not None and array.shape != self.batch + spec.shape:
                raise ValueError(
                    f"the cotangent of {spec.name!r} must have shape {self.batch + spec.shape}, "
                    f"but has {array.shape}"
                )
            result.append(None if array is None else array.reshape((len(self._x), *spec.shape)))
        return result

    def _tangent(self, k: int, tangent: ArrayLike | None) -> NDArray[Any] | None:
        """Bring a tangent into the form in which its parameter's value is stacked."""
        if tangent is None:
            return None
        shape, value = self._arguments.shapes[k], self._arguments.values[k]
        array = np.asarray(tangent)
        if array.shape == shape and array.size == value.size:
            return array.reshape(value.shape)
        try:
            full = np.broadcast_to(array, self.batch + value.shape[1:])
        except ValueError:
            name = self._maps.parameters[k].name
            raise ValueError(
                f"the tangent of {name!r} must have shape {shape}, but has {array.shape}"
            ) from None
        return full.reshape((self._arguments.count, *value.shape[1:]))

    def _reshape_and_cast(self, spec: OutputSpec, stack: NDArray[Any]) -> NDArray[Any]:
        return stack.reshape(self.batch + spec.shape).astype(self._dtype(stack), copy=False)

    def _dtype(self, array: NDArray[Any]) -> np.dtype[Any]:
        real = self._arguments.dtype
        return np.result_type(real, np.complex64) if array.dtype.kind == "c" else real
