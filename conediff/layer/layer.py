"""A cvxpy problem as a differentiable function of its parameters, on NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from conediff.api.summary import print_verbose
from conediff.compat.cvxpylayers import FOREIGN, read_constructor_arguments, translate_arguments
from conediff.layer.arguments import Arguments
from conediff.layer.calls import check_single_output
from conediff.layer.compiled import CompiledProblem
from conediff.layer.inputs import Inputs
from conediff.layer.maps import OutputSpec, ParameterSpec, ProblemMaps
from conediff.layer.solution import LayerSolution
from conediff.layer.warm_starts import WarmStarts
from conediff.solver.result import SolveResult
from conediff.solver.settings import Settings


class CvxpyLayer:
    r"""The solution of a parametrised convex problem, and its derivative.

    The constructor transforms the problem into a cone program. A call solves it for a whole batch of values
    of the parameters and returns the values of the variables.

    Parameters
    ----------
    problem : cvxpy.Problem
        Disciplined in its parameters (DPP). ``quad_form(x, P)`` with a PSD parameter P is allowed in the
        objective.
    parameters : list or tuple of cvxpy.Parameter
        All parameters of the problem, in the order in which calls pass them.
    variables : list or tuple
        The outputs of a call, in this order: variables, dual variables (``constraint.dual_variables[0]``),
        and ``problem.objective`` for the optimal value.
    gp : bool
        Whether the problem is a geometric (log-log convex) program.
    solver_args : mapping, optional
        Defaults for every call: ``tol`` (1e-10), ``refine``, ``method``, ``threads``, ``executor`` (any
        ``concurrent.futures.Executor``, whose workers solve), ``on_failure``, ``warm_start``, ``validate``,
        and the settings of SCS (``eps``, ``max_iters``, ...). Those of cvxpylayers are translated: ``mode``,
        ``n_jobs_forward``, ``n_jobs_backward``, ``solve_method``.
    single_output : bool
        Whether calls return the only output itself, instead of a tuple of one.
    solver : str, optional
        As in cvxpylayers, as are the next three arguments: SCS and Clarabel come first if they are named;
        with another name SCS does, and a warning says so.
    verbose : bool
        Whether SCS and Clarabel print their progress, and conediff its result.
    canon_backend : str, optional
        Has no effect.
    custom_method : object
        Must be None.

    Raises
    ------
    DPPError
        If the problem is not DPP; the message names the expression and a way to rewrite it.
    ProblemError
        If the problem is not convex, or mixed-integer, or otherwise not supported.
    TypeError
        If a solver argument is unknown, or an argument cannot be honoured.
    ValueError
        If ``parameters`` or ``variables`` are not the problem's, a solver argument has a value that it cannot
        have, or ``single_output`` is asked for and there are several outputs.

    Examples
    --------
    >>> import cvxpy as cp, numpy as np, conediff as cd
    >>> x, c = cp.Variable(2), cp.Parameter(2)
    >>> layer = cd.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [x >= 0]), [c], [x])
    >>> solution = layer.solve(np.array([1.0, -1.0]))
    >>> solution.values[0].round(6) + 0.0
    array([1., 0.])
    >>> solution.vjp(np.ones(2))[0].round(6) + 0.0
    array([1., 0.])
    """

    def __init__(
        self,
        problem: Any,
        parameters: Sequence[Any],
        variables: Sequence[Any],
        gp: bool = False,
        solver_args: Mapping[str, Any] | None = None,
        *,
        single_output: bool = False,
        solver: str | None = None,
        verbose: bool = False,
        canon_backend: str | None = None,
        custom_method: Any = None,
    ) -> None:
        from conediff.layer.canonical import canonicalise

        gp, solver_args = read_constructor_arguments(gp, solver_args, solver, verbose, custom_method)
        settings = _updated(Settings(), solver_args)
        maps = canonicalise(problem, parameters, variables, gp=gp)
        self._setup(maps, settings, single_output, parameters)

    @classmethod
    def from_maps(
        cls,
        maps: ProblemMaps,
        solver_args: Mapping[str, Any] | None = None,
        *,
        single_output: bool = False,
    ) -> CvxpyLayer:
        """Build a layer from canonical maps, without cvxpy.

        Parameters
        ----------
        maps : ProblemMaps
            As another layer's ``maps``.
        solver_args : mapping, optional
            As of the constructor.
        single_output : bool
            As of the constructor.

        Raises
        ------
        TypeError, ValueError
            If a solver argument is unknown, or has a value that it cannot have; ValueError also if
            ``single_output`` is asked for and there are several outputs.
        """
        layer = cls.__new__(cls)
        layer._setup(maps, _updated(Settings(), solver_args), single_output)
        return layer

    def _setup(
        self, maps: ProblemMaps, settings: Settings, single_output: bool, parameters: Sequence[Any] = ()
    ) -> None:
        check_single_output(single_output, len(maps.outputs))
        self.maps, self.single_output = maps, single_output
        self.inputs = Inputs(maps.parameters, parameters)
        self.settings = settings
        self.info: dict[str, Any] = {}
        self._compiled = CompiledProblem(maps)
        self._starts = WarmStarts()

    @property
    def parameters(self) -> tuple[ParameterSpec, ...]:
        """Names, shapes and attributes of the parameters, in the order of calls."""
        return self.maps.parameters

    @property
    def outputs(self) -> tuple[OutputSpec, ...]:
        """Names, kinds and shapes of what calls return."""
        return self.maps.outputs

    def __call__(self, *values: Any, solver_args: Mapping[str, Any] | None = None, **named: Any) -> Any:
        """Solve, and return the values of the variables; see `solve`.

        Returns
        -------
        tuple of arrays, shape (*batch, *variable.shape)
            Or the array itself with ``single_output``.
        """
        found = self.solve(*values, solver_args=solver_args, **named).values
        return found[0] if self.single_output else found

    def solve(
        self,
        *values: Any,
        solver_args: Mapping[str, Any] | None = None,
        precision: float | Sequence[float] = 0.0,
        **named: Any,
    ) -> LayerSolution:
        """Solve the problem for a batch of parameters.

        Parameters
        ----------
        *values : arrays, shape (..., *parameter.shape)
            One for each parameter, in order; or one mapping to them from the parameters or their names.
            Without values the parameters' own are taken (``parameter.value``). Leading dimensions are the
            batch. Parameters that have some must have the same number of them, which broadcast.
        solver_args : mapping, optional
            Overrides the layer's defaults for this call.
        precision : float or sequence of float
            Relative rounding error of the values, or of each one, for adapters that convert from a coarser
            dtype. Declared attributes (PSD, ...) are then checked with a larger tolerance.
        **named : arrays
            The values by the parameters' names, in place of ``values``.

        Returns
        -------
        LayerSolution

        Raises
        ------
        ParameterError
            If a value is not finite, or violates an attribute of its parameter.
        SolverError
            If an element has no solution, unless ``on_failure`` says otherwise.
        ExecutorError
            If the executor takes no work.
        TypeError
            If a solver argument is unknown, or a value is not an array of numbers.
        ValueError
            If the number or the shapes of the values do not fit.

        Warns
        -----
        AccuracyWarning
            If a solution is less accurate than ``tol``.
        ConediffWarning
            If workers of the executor were lost, and this process solved their parts.
        """
        settings = _updated(self.settings, solver_args)
        given = self.inputs.ordered(values, named)
        if self.parameters and not given:
            given = self.inputs.own_values()
        arguments = Arguments.read(self.parameters, given, settings.validate, precision)
        data, d = self.maps.evaluate(arguments.values)
        data = data.repeated(arguments.count)
        start = self._starts.start(settings.warm_start, arguments, self.maps.structure)
        result = self._compiled.solver.solve(data, settings, start)
        print_verbose(result, settings)
        solution = LayerSolution(self._compiled, arguments, data, d, result, settings)
        self.info = solution.info
        if settings.warm_start is True:
            self._starts.keep(arguments.batch, result.point)
        solution.handle_failures()
        return solution

    def resume(
        self,
        values: Sequence[ArrayLike],
        state: Sequence[NDArray[Any]],
        solver_args: Mapping[str, Any] | None = None,
    ) -> LayerSolution:
        """Rebuild a solution from arrays, without solving.

        It serves frameworks that keep arrays, but no objects, from the forward to the backward pass.

        Parameters
        ----------
        values : sequence of arrays
            The parameters that were passed to `solve`.
        state : sequence of arrays
            ``LayerSolution.state`` of the solution that `solve` returned.
        solver_args : mapping, optional
            The solver arguments that were passed to `solve`.

        Returns
        -------
        LayerSolution
            With the same values and derivatives, but without iterations, residuals and times.

        Raises
        ------
        ParameterError, TypeError, ValueError
            As `solve`, if the values cannot be used.
        """
        x, y, s, outcome = (np.asarray(part) for part in state)
        arguments = Arguments.read(self.parameters, values, validate=False)
        data, d = self.maps.evaluate(arguments.values)
        result = SolveResult.empty(len(outcome), self.maps.structure)
        result.x, result.y, result.s = x, y, s
        result.status[outcome == 0] = "solved"
        result.failed_cotangent = 0.0 if (outcome == 2).any() else np.nan
        settings = _updated(self.settings, solver_args)
        data = data.repeated(arguments.count)
        return LayerSolution(self._compiled, arguments, data, d, result, settings)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.maps.signature})"


def _updated(settings: Settings, solver_args: Mapping[str, Any] | None) -> Settings:
    """Return settings with some replaced; translate the names that cvxpylayers uses."""
    return settings.updated(translate_arguments(solver_args), FOREIGN) if solver_args else settings
