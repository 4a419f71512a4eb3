"""The derivative of a cvxpy problem that holds values, by the problem's own objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from conediff.layer.inputs import Inputs
from conediff.layer.layer import CvxpyLayer
from conediff.layer.maps import ProblemMaps
from conediff.layer.solution import LayerSolution


def differentiate(
    problem: Any, gp: bool = False, solver_args: Mapping[str, Any] | None = None
) -> ProblemDerivative:
    """Solve a cvxpy problem at the values that its parameters hold, and return the derivative there.

    Parameters
    ----------
    problem : cvxpy.Problem
        As for `CvxpyLayer`. It is not changed: its variables do not get the solution.
    gp : bool
        Whether the problem is a geometric (log-log convex) program.
    solver_args : mapping, optional
        As of `CvxpyLayer`.

    Returns
    -------
    ProblemDerivative

    Raises
    ------
    ValueError
        If a parameter holds no value.
    DPPError, ProblemError, ParameterError, SolverError, TypeError
        As `CvxpyLayer` and its method ``solve``.

    Examples
    --------
    >>> import cvxpy as cp, numpy as np, conediff as cd
    >>> x, p = cp.Variable(2), cp.Parameter(2, value=np.array([1.0, -1.0]))
    >>> problem = cp.Problem(cp.Minimize(cp.sum_squares(x - p)), [x >= 0])
    >>> cd.differentiate(problem).jacobian(x, of=p).round(6) + 0.0
    array([[1., 0.],
           [0., 0.]])
    """
    from conediff.layer.canonical import canonicalise, check_problem

    check_problem(problem)
    parameters, variables = problem.parameters(), [*problem.variables(), problem.objective]
    maps = canonicalise(problem, parameters, variables, gp=gp)
    return ProblemDerivative(problem, maps, Inputs(maps.parameters, parameters), solver_args)


class ProblemDerivative:
    """A solved cvxpy problem and its derivative; made by `differentiate`.

    Variables, dual variables (``constraint.dual_variables[0]``) and ``problem.objective``, whose value is the
    optimal value, are the outputs; parameters are the inputs. Each is named by the object itself, parameters
    also by their names.

    Attributes
    ----------
    solution : LayerSolution
        Of the variables, in the order of ``problem.variables()``, and of the objective.
    """

    def __init__(
        self, problem: Any, maps: ProblemMaps, inputs: Inputs, solver_args: Mapping[str, Any] | None
    ) -> None:
        self._maps, self._inputs, self._solver_args = maps, inputs, solver_args
        self._parameters = problem.parameters()
        self._variables = [*problem.variables(), problem.objective]
        pairs = [
            (dual, spec)
            for constraint, group in zip(problem.constraints, maps.duals, strict=True)
            for dual, spec in zip(constraint.dual_variables, group, strict=False)
        ]
        self._duals, self._dual_specs = [dual for dual, _ in pairs], tuple(spec for _, spec in pairs)
        self._values = inputs.own_values()
        self.solution = CvxpyLayer.from_maps(maps, solver_args).solve(*self._values)

    @cached_property
    def _dual_solution(self) -> LayerSolution:
        """The same solution with the dual variables as outputs.

        Apart, because a dual variable that is not unique concerns only those who ask for it.
        """
        layer = CvxpyLayer.from_maps(replace(self._maps, outputs=self._dual_specs), self._solver_args)
        return layer.resume(self._values, self.solution.state)

    def value(self, of: Any) -> NDArray[Any]:
        """Return the value of an output at the solution.

        Parameters
        ----------
        of : cvxpy.Variable, or problem.objective

        Returns
        -------
        array, shape of the output

        Raises
        ------
        ValueError
            If it is not an output of the problem.
        """
        solution, k = self._locate(of)
        value: NDArray[Any] = solution.values[k]
        return value

    def vjp(self, cotangents: Mapping[Any, ArrayLike]) -> dict[Any, NDArray[Any]]:
        """Pull cotangents back to the parameters.

        Parameters
        ----------
        cotangents : mapping
            From outputs to arrays of their shapes; outputs that are left out have cotangent zero.

        Returns
        -------
        dict
            From each parameter to its cotangent, of its shape.

        Raises
        ------
        ValueError
            If a key is not an output of the problem, or a shape does not fit.

        Warns
        -----
        DegeneracyWarning, AccuracyWarning
            As `LayerSolution.vjp`.
        """
        total: list[Any] = [0.0] * len(self._parameters)
        located = [(*self._locate(key), g) for key, g in cotangents.items()]
        for solution in {id(s): s for s, _, _ in located}.values():
            given: list[Any] = [None] * len(solution.values)
            for where, k, g in located:
                if where is solution:
                    given[k] = g
            total = [a + b for a, b in zip(total, solution.vjp(*given), strict=True)]
        shapes = [spec.shape for spec in self._maps.parameters]
        arrays = (np.broadcast_to(g, shape).copy() for g, shape in zip(total, shapes, strict=True))
        return dict(zip(self._parameters, arrays, strict=True))

    def jvp(
        self, tangents: Mapping[Any, ArrayLike], of: Iterable[Any] | None = None
    ) -> dict[Any, NDArray[Any]]:
        """Push tangents of the parameters forward.

        Parameters
        ----------
        tangents : mapping
            From parameters to arrays of their shapes; parameters that are left out have tangent zero.
        of : iterable, optional
            The outputs whose tangents to return; by default the variables and the objective.

        Returns
        -------
        dict
            From each of these outputs to its tangent, of its shape.

        Raises
        ------
        ValueError
            If a key is not one of the problem's, or a shape does not fit.

        Warns
        -----
        DegeneracyWarning, AccuracyWarning
            As `LayerSolution.jvp`.
        """
        given: list[Any] = [None] * len(self._parameters)
        for key, tangent in tangents.items():
            given[self._inputs.position(key)] = tangent
        wanted = self._variables if of is None else list(of)
        located = [self._locate(item) for item in wanted]
        pushed = {key: s.jvp(*given) for key, s in {id(s): s for s, _ in located}.items()}
        return {item: pushed[id(s)][k] for item, (s, k) in zip(wanted, located, strict=True)}

    def jacobian(self, output: Any, of: Any) -> NDArray[Any]:
        """Return the derivative of an output with respect to a parameter.

        Parameters
        ----------
        output : cvxpy.Variable, or problem.objective
            Dual variables (``constraint.dual_variables[0]``) included, here and in `value`.
        of : cvxpy.Parameter or str
            The parameter, or its name.

        Returns
        -------
        array, shape (*output.shape, *parameter.shape)

        Raises
        ------
        ValueError
            If one is complex, or not the problem's.

        Warns
        -----
        DegeneracyWarning, AccuracyWarning
            As `LayerSolution.vjp`.

        Notes
        -----
        One factorisation, and one solve for each entry of the output or of the parameter, whichever are
        fewer.
        """
        solution, k = self._locate(output)
        return solution.jacobian(self._inputs.position(of), k)

    @property
    def diagnostics(self) -> Any:
        """How well the derivative of the variables is defined; see `LayerSolution.diagnostics`."""
        return self.solution.diagnostics

    def _locate(self, item: Any) -> tuple[LayerSolution, int]:
        """Return the solution that has the output, and the output's position in it."""
        for items, is_dual in ((self._variables, False), (self._duals, True)):
            for k, known in enumerate(items):
                if known is item:
                    return (self._dual_solution if is_dual else self.solution), k
        names = ", ".join(spec.name for spec in self._maps.outputs)
        raise ValueError(
            f"{item!s} is not an output of the problem: these are {names}, and the dual variables of its "
            "constraints (constraint.dual_variables[0])"
        )

    def __repr__(self) -> str:
        return f"ProblemDerivative({self._maps.signature}, status={str(self.solution.status)!r})"
