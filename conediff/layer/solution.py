"""A solved batch of a layer: values, how it went, and derivatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from conediff.api.failures import handle_failures
from conediff.api.feasibility import find_infeasible
from conediff.api.solution import Solutions, SolvedBatch, solve_info
from conediff.api.summary import summarise
from conediff.derivative import Diagnostics
from conediff.layer.arguments import Arguments
from conediff.layer.compiled import CompiledProblem
from conediff.layer.many import apply_to_each, count_of
from conediff.layer.matrices import hessian, jacobian
from conediff.layer.second_order import LayerDerivative
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
        self._data, self.result, self._settings = data, result, settings
        self.derivative = LayerDerivative(compiled, arguments, data, d, result, settings)
        self.batch = arguments.batch
        self.info = {
            key: value.reshape(self.batch) if isinstance(value, np.ndarray) else value
            for key, value in solve_info(result).items()
        }
        self.info["degenerate"] = 0
        self.values = self.derivative.values()

    def handle_failures(self) -> None:
        """Do with elements that failed as ``on_failure`` says; see `failures.handle_failures`."""
        infeasible = partial(find_infeasible, self._compiled.solver, self._data, self.result, self._settings)
        handle_failures(self.result, self._settings, self, self.batch, infeasible)

    def __repr__(self) -> str:
        names = ", ".join(f"{spec.name}{list(spec.shape)}" for spec in self._maps.outputs)
        return f"LayerSolution(({names}), batch={self.batch}: {summarise(self.result)})"

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
    def status(self) -> NDArray[np.str_]:
        """Status per element, shape batch: solved, inaccurate, infeasible, unbounded or failed."""
        return self.result.status.reshape(self.batch).copy()

    @cached_property
    def duals(self) -> tuple[Any, ...]:
        """Dual variables of every constraint, in the problem's order, with cvxpy's values and signs.

        An array of shape (*batch, *shape) for a constraint with one dual variable, a tuple of them for one
        with several, None where cvxpy recovers none.
        """
        found = [tuple(map(self.derivative.dual, group)) for group in self._maps.duals]
        return tuple(group[0] if len(group) == 1 else group or None for group in found)

    @property
    def cones(self) -> Solutions:
        """The cone programs' solutions, certificates included; the batch flattened."""
        return Solutions(SolvedBatch(self._compiled.solver, self._data, self.result, self._settings))

    @property
    def diagnostics(self) -> Diagnostics:
        """How well the derivative is defined; of the elements that have a solution, in order."""
        return self.derivative.stack.diagnostics

    @overload
    def vjp(
        self, *cotangents: ArrayLike | None, needed: None = None, summed: bool = True
    ) -> tuple[NDArray[Any], ...]: ...

    @overload
    def vjp(
        self, *cotangents: ArrayLike | None, needed: Sequence[bool], summed: bool = True
    ) -> tuple[NDArray[Any] | None, ...]: ...

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
            One for each value, in order; None means zero. With one more axis in front, of the same length
            for all, many cotangents, of which each takes a solve; so have the results.
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
        if (count := count_of(cotangents, self.batch, self._maps.outputs, "cotangents")) is not None:
            return apply_to_each(partial(self.vjp, needed=needed, summed=summed), cotangents, count)
        pulled = self.derivative.vjp(cotangents, needed, summed)
        self.count_degenerate()
        return pulled

    def jvp(self, *tangents: ArrayLike | None) -> tuple[NDArray[Any], ...]:
        """Push tangents of the parameters forward to the variables.

        Parameters
        ----------
        *tangents : arrays, or None
            One for each parameter, in the shape in which it was passed, or one that broadcasts to
            (*batch, *shape), so that elements that share a value may have tangents of their own; None means
            zero. Arrays of shape (k, *batch, *shape) are k tangents, of which each takes a solve; the results
            have the axis too.

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
        if (count := count_of(tangents, self.batch, self._maps.parameters, "tangents")) is not None:
            return apply_to_each(self.jvp, tangents, count)
        pushed = self.derivative.jvp(tangents)
        self.count_degenerate()
        return pushed

    def hvp(
        self,
        cotangents: Sequence[ArrayLike | None],
        tangents: Sequence[ArrayLike | None],
        curvature: Callable[..., Sequence[ArrayLike | None]] | None = None,
        needed: Sequence[bool] | None = None,
        summed: bool = True,
    ) -> tuple[NDArray[Any] | None, ...]:
        """Multiply the Hessian of a loss of the values, as a function of the parameters, with tangents.

        Parameters
        ----------
        cotangents : sequence of arrays, shape (*batch, *shape), or None
            The gradient of the loss in each value, in order; None means zero.
        tangents : sequence of arrays, or None
            The direction: one for each parameter, as of `jvp`.
        curvature : callable, optional
            The loss's own Hessian: it is given the tangents of the values, one argument each, and returns the
            tangents of the cotangents, one for each value. By default zero: the loss is linear in the values.
        needed, summed
            As of `vjp`.

        Returns
        -------
        tuple of arrays or None
            Each in the shape in which its parameter was passed, or, not ``summed``, (*batch, *shape).

        Raises
        ------
        ConeError
            If a cone has no second derivative (one that was added to the registry without ``bend``).
        ValueError
            If a number of arrays, or a shape, does not fit.

        Warns
        -----
        DegeneracyWarning, AccuracyWarning
            As `vjp`; see "What a second derivative means" in the guide.

        Notes
        -----
        Three solves with the factorised reduced system, two if the last call was of the same cotangents: the
        derivative of the pull-back along the tangents (forward over reverse mode).

        Examples
        --------
        The Hessian of the sum of x², for x the projection of c onto the nonnegative numbers:

        >>> import cvxpy as cp, numpy as np, conediff as cd
        >>> x, c = cp.Variable(2), cp.Parameter(2)
        >>> layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [x >= 0]), [c], [x])
        >>> solution = layer.solve(np.array([1.0, -1.0]))
        >>> gradient = [2 * solution.values[0]]
        >>> solution.hvp(gradient, [np.ones(2)], curvature=lambda dx: [2 * dx])[0].round(6) + 0.0
        array([2., 0.])
        """
        derivative = self.derivative
        pushed = derivative.push(tangents)
        own = [None] * len(self.values) if curvature is None else list(curvature(*pushed.values))
        multipliers = derivative.multipliers(cotangents)
        turned = derivative.turn_pull(
            tangents, pushed.point, cotangents, None, multipliers, needed=needed, summed=summed
        )
        pulled = derivative.pull(own, turned.point, needed=needed, summed=summed)
        self.count_degenerate()
        return tuple(
            None if one is None else one + other
            for one, other in zip(turned.parameters, pulled.parameters, strict=True)
        )

    jacobian = jacobian
    hessian = hessian

    def count_degenerate(self) -> None:
        """Write into ``info`` at how many elements a derivative that was asked for does not exist."""
        self.info["degenerate"] = int(self.derivative.stack.degenerate.sum())
