"""A cvxpy problem as a differentiable function of its parameters, on NumPy arrays."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from conediff.arguments import Arguments
from conediff.batch import Engine, StackSolution
from conediff.derivative import Diagnostics
from conediff.maps import OutputSpec, ParameterSpec, ProblemMaps
from conediff.settings import Settings
from conediff.solution import PartialDerivative, Solutions, settle_failures, stack_info
from conediff.structure import Array, ConeData


class CvxpyLayer:
    r"""The solution of a parametrised convex problem, and its derivative.

    The problem is brought to a cone program once. Calling the layer with values of the parameters solves
    it, for a whole batch at once, and returns the values of the variables.

    Parameters
    ----------
    problem : cvxpy.Problem
        Disciplined in its parameters (DPP). ``quad_form(x, P)`` with a PSD parameter P is allowed in the
        objective.
    parameters : list or tuple of cvxpy.Parameter
        All parameters of the problem, in the order in which calls pass them.
    variables : list or tuple
        What calls return, in this order: variables, dual variables
        (``constraint.dual_variables[0]``), and ``problem.objective`` for the optimal value.
    gp : bool
        Whether the problem is a geometric (log-log convex) program.
    solver_args : mapping, optional
        Defaults for every call: ``tol`` (1e-10), ``refine``, ``method``, ``threads``, ``on_failure``,
        ``warm_start``, ``validate``, and the settings of SCS (``eps``, ``max_iters``, ...).

    Raises
    ------
    DPPError
        If the problem is not DPP; the message names the expression and a way to rewrite it.
    ProblemError
        If the problem is not convex, or mixed-integer, or otherwise not supported.
    TypeError
        If a solver argument is unknown.
    ValueError
        If ``parameters`` or ``variables`` are not the problem's.

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
    ) -> None:
        from conediff.canonical import canonicalise

        settings = Settings().updated(solver_args or {})
        self._setup(canonicalise(problem, parameters, variables, gp=gp), settings)

    @classmethod
    def from_maps(cls, maps: ProblemMaps, solver_args: Mapping[str, Any] | None = None) -> CvxpyLayer:
        """Build a layer from canonical maps, without cvxpy."""
        layer = cls.__new__(cls)
        layer._setup(maps, Settings().updated(solver_args or {}))
        return layer

    def _setup(self, maps: ProblemMaps, settings: Settings) -> None:
        self.maps = maps
        self.settings = settings
        self.info: dict[str, Any] = {}
        self._engine = Engine(maps.structure)
        self._last: dict[tuple[int, ...], tuple[Array, Array, Array]] = {}
        self._lock = threading.Lock()

    @property
    def parameters(self) -> tuple[ParameterSpec, ...]:
        """Names, shapes and attributes of the parameters, in the order of calls."""
        return self.maps.parameters

    @property
    def outputs(self) -> tuple[OutputSpec, ...]:
        """Names, kinds and shapes of what calls return."""
        return self.maps.outputs

    def __call__(
        self, *values: ArrayLike, solver_args: Mapping[str, Any] | None = None
    ) -> tuple[NDArray[Any], ...]:
        """Solve, and return the values of the variables; see `solve`."""
        return self.solve(*values, solver_args=solver_args).values

    def solve(self, *values: ArrayLike, solver_args: Mapping[str, Any] | None = None) -> LayerSolution:
        """Solve the problem for a batch of parameters.

        Parameters
        ----------
        *values : arrays, shape (..., *parameter.shape)
            One for each parameter, in order; leading dimensions are the batch, and broadcast.
        solver_args : mapping, optional
            Overrides the layer's defaults for this call.

        Returns
        -------
        LayerSolution

        Raises
        ------
        ParameterError
            If a value is not finite, or violates an attribute of its parameter.
        SolverError
            If an element has no solution, unless ``on_failure`` says otherwise.
        TypeError
            If a solver argument is unknown, or a value no array of numbers.
        ValueError
            If the number or the shapes of the values do not fit.

        Warns
        -----
        AccuracyWarning
            If a solution is less accurate than ``tol``.
        """
        settings = self.settings.updated(solver_args or {})
        arguments = Arguments.read(self.parameters, values, settings.validate)
        count = int(np.prod(arguments.batch, dtype=int))
        data, d = self.maps.evaluate(arguments.values)
        data = _with_count(data, count)
        stack = self._engine.solve(data, settings, self._start(settings, arguments.batch, count))
        self.info = _reshaped(stack_info(stack), arguments.batch)
        if settings.warm_start is True:
            with self._lock:
                self._last[arguments.batch] = (stack.x, stack.y, stack.s)
        return LayerSolution(self, arguments, data, d, stack, settings)

    def _start(
        self, settings: Settings, batch: tuple[int, ...], count: int
    ) -> tuple[Array, Array, Array] | None:
        """Find where to begin: nowhere, the layer's last solution for this batch shape, or one given."""
        given = settings.warm_start
        if given is None or given is False:
            return None
        if given is True:
            with self._lock:
                return self._last.get(batch)
        if not isinstance(given, LayerSolution):
            raise TypeError("warm_start must be True, False, or a solution that this layer's solve returned")
        stack = given.stack
        if stack.x.shape != (count, self.maps.structure.n) or stack.y.shape[1] != self.maps.structure.m:
            raise ValueError(f"warm_start has batch shape {given.batch}, but this call has {batch}")
        return stack.x, stack.y, stack.s

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_lock"], state["_engine"]
        state["_last"] = {}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._engine = Engine(self.maps.structure)
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        ins = ", ".join(f"{spec.name}{list(spec.shape)}" for spec in self.parameters)
        outs = ", ".join(f"{spec.name}{list(spec.shape)}" for spec in self.outputs)
        return f"{type(self).__name__}(({ins}) -> ({outs}))"


class LayerSolution:
    """A solved batch of a layer: values, how it went, and derivatives.

    Attributes
    ----------
    values : tuple of arrays, shape (*batch, *shape)
        In the order of the layer's ``variables``; NaN where an element has no solution.
    batch : tuple of int
    info : dict
        Per element, shape batch: status, iterations, refinements, residual; for the batch: times in seconds.
    """

    def __init__(
        self,
        layer: CvxpyLayer,
        arguments: Arguments,
        data: ConeData,
        d: Array,
        stack: StackSolution,
        settings: Settings,
    ) -> None:
        self._maps, self._engine, self._arguments = layer.maps, layer._engine, arguments
        self._data, self._d, self.stack, self._settings = data, d, stack, settings
        self.batch = arguments.batch
        self.info = layer.info
        usable = stack.usable
        # Certificates of what failed are no values: they are kept in `stack` and in `cones`.
        self._x, self._y = (np.where(usable[:, None], part, np.nan) for part in (stack.x, stack.y))
        value = self._maps.value(data, d, self._x) if self._has_value else None
        recovered = self._maps.recover(self._x, self._y, value)
        self.values = tuple(
            self._dressed(spec, array) for spec, array in zip(self._maps.outputs, recovered, strict=True)
        )
        self._on_failure = settle_failures(stack, settings, self, self.batch)

    @property
    def _has_value(self) -> bool:
        return any(spec.kind == "objective" for spec in self._maps.outputs)

    @property
    def status(self) -> NDArray[np.str_]:
        """Status per element, shape batch: solved, inaccurate, infeasible, unbounded or failed."""
        return self.stack.status.reshape(self.batch)

    @property
    def cones(self) -> Solutions:
        """The cone programs' solutions, certificates included; the batch flattened."""
        return Solutions(self._engine, self._data, self.stack, self._settings)

    @cached_property
    def _derivative(self) -> PartialDerivative:
        fill = 0.0 if self._on_failure == "zero_grad" else np.nan
        return PartialDerivative(self._engine, self._data, self.stack, self._settings, fill)

    @property
    def diagnostics(self) -> Diagnostics:
        """How well the derivative is defined; of the elements that have a solution, in order."""
        return self._derivative.inner.diagnostics

    def vjp(
        self, *cotangents: ArrayLike | None, needed: Sequence[bool] | None = None
    ) -> tuple[NDArray[Any] | None, ...]:
        """Pull cotangents of the variables back to the parameters.

        Parameters
        ----------
        *cotangents : arrays, shape (*batch, *shape), or None
            One for each value, in order; None means zero.
        needed : sequence of bool, optional
            Which parameters' cotangents to compute; all by default.

        Returns
        -------
        tuple of arrays or None
            Each in the shape in which its parameter was passed, summed over broadcast axes; None where not
            needed. A complex cotangent is dL/dRe + i dL/dIm.

        Raises
        ------
        ValueError
            If the number of the cotangents, or a shape, does not fit.

        Warns
        -----
        DegeneracyWarning
            If the solution map is not differentiable; the least-squares answer of least norm is returned.
        AccuracyWarning
            If a linear solve fell short of its tolerance.
        """
        stacks = self._stacks(cotangents, [spec.shape for spec in self._maps.outputs], "cotangent")
        gx, gy, gvalue = self._maps.recover_cotangent(self._x, self._y, stacks)
        gd = None
        g = ConeData(*(np.zeros((1, a.shape[1])) for a in (self._data.P, self._data.A, self._data.b, self._data.c)))
        if any(stack is not None and spec.kind != "objective" for stack, spec in zip(stacks, self._maps.outputs, strict=True)):
            g = self._derivative.pull(gx, gy, np.zeros_like(gy))
        if gvalue is not None:
            direct, gd = self._maps.value_cotangent(self._data, self._d, self._x, self._y, gvalue)
            direct, gd = self._without_failed(direct, gd)
            g = ConeData(g.P + direct.P, g.A + direct.A, g.b + direct.b, g.c + direct.c)
        arguments = self._arguments
        pulled = self._maps.pull_back(arguments.values, g, gd, needed)
        return tuple(
            None if array is None else arguments.unstack(k, array).astype(self._dtype(array), copy=False)
            for k, array in enumerate(pulled)
        )

    def jvp(self, *tangents: ArrayLike | None) -> tuple[NDArray[Any], ...]:
        """Push tangents of the parameters forward to the variables.

        Parameters
        ----------
        *tangents : arrays, or None
            One for each parameter, in the shape in which it was passed; None means zero.

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
            raise ValueError(f"expected {len(arguments.shapes)} tangents, one per parameter, got {len(tangents)}")
        stacks = [self._tangent(k, tangent) for k, tangent in enumerate(tangents)]
        change, dd = self._maps.push_forward(arguments.values, stacks)
        dx, dy, _ = self._derivative.push(_with_count(change, len(self._x)))
        dvalue = None
        if self._has_value:
            dvalue = self._maps.value_tangent(self._data, self._d, self._x, self._y, change, dd)
        pushed = self._maps.recover_tangent(self._x, self._y, dx, dy, dvalue)
        return tuple(
            self._dressed(spec, array) for spec, array in zip(self._maps.outputs, pushed, strict=True)
        )

    def _without_failed(self, g: ConeData, gd: Array) -> tuple[ConeData, Array]:
        """Put NaN, or zero, into the cotangents of elements that have no solution."""
        if self.stack.usable.all():
            return g, gd
        failed = ~self.stack.usable
        fill = 0.0 if self._on_failure == "zero_grad" else np.nan
        parts = [np.where(failed[:, None], fill, part) for part in (g.P, g.A, g.b, g.c)]
        return ConeData(*parts), np.where(failed, fill, gd)

    def _stacks(
        self, arrays: Sequence[ArrayLike | None], shapes: Sequence[tuple[int, ...]], what: str
    ) -> list[NDArray[Any] | None]:
        if len(arrays) != len(shapes):
            raise ValueError(f"expected {len(shapes)} {what}s, one per variable, got {len(arrays)}")
        result: list[NDArray[Any] | None] = []
        for k, (array, shape) in enumerate(zip(arrays, shapes, strict=True)):
            if array is None:
                result.append(None)
                continue
            full = np.asarray(array)
            if full.shape != self.batch + shape:
                raise ValueError(f"{what} {k} must have shape {self.batch + shape}, but has {full.shape}")
            result.append(full.reshape((len(self._x), *shape)))
        return result

    def _tangent(self, k: int, tangent: ArrayLike | None) -> NDArray[Any] | None:
        """Bring a tangent into the form in which its parameter's value is stacked."""
        if tangent is None:
            return None
        shape, value = self._arguments.shapes[k], self._arguments.values[k]
        array = np.asarray(tangent)
        if array.shape != shape:
            raise ValueError(f"tangent {k} must have shape {shape}, as its parameter has, but has {array.shape}")
        if array.size == value.size:
            return array.reshape(value.shape)
        return np.broadcast_to(array, self.batch + value.shape[1:]).reshape(value.shape)

    def _dressed(self, spec: OutputSpec, stack: NDArray[Any]) -> NDArray[Any]:
        return stack.reshape(self.batch + spec.shape).astype(self._dtype(stack), copy=False)

    def _dtype(self, array: NDArray[Any]) -> np.dtype[Any]:
        real = self._arguments.dtype
        return np.result_type(real, np.complex64) if array.dtype.kind == "c" else real


class OptLayer(CvxpyLayer):
    """A layer whose problem is stated by Python functions.

    Parameters
    ----------
    variables, parameters : lists of cvxpy.Variable, cvxpy.Parameter
    objective : callable
        Takes the variables, then the parameters; returns the expression to minimise.
    inequalities, equalities : lists of callables, optional
        Of the same arguments: g with g <= 0, h with h == 0.
    **solver_args
        Defaults for every call, as of `CvxpyLayer`.

    Notes
    -----
    The functions are called once, with cvxpy objects only. A call returns one array where there is one variable,
    and a tuple of them otherwise.

    Examples
    --------
    >>> import cvxpy as cp, numpy as np, conediff as cd
    >>> layer = cd.OptLayer(
    ...     [cp.Variable(2)], [cp.Parameter(2)], lambda z, x: cp.sum_squares(z - x), [lambda z, x: -z]
    ... )
    >>> layer(np.array([1.0, -1.0])).round(6) + 0.0
    array([1., 0.])
    """

    def __init__(
        self,
        variables: Sequence[Any],
        parameters: Sequence[Any],
        objective: Callable[..., Any],
        inequalities: Sequence[Callable[..., Any]] = (),
        equalities: Sequence[Callable[..., Any]] = (),
        **solver_args: Any,
    ) -> None:
        from conediff.canonical import stated_problem

        problem = stated_problem(variables, parameters, objective, inequalities, equalities)
        super().__init__(problem, parameters, variables, solver_args=solver_args)

    def __call__(self, *values: ArrayLike, solver_args: Mapping[str, Any] | None = None) -> Any:
        """Solve; return one array where there is one variable."""
        result = super().__call__(*values, solver_args=solver_args)
        return result[0] if len(result) == 1 else result


def _with_count(data: ConeData, count: int) -> ConeData:
    """Let a stack of one shared program know how many elements the batch has."""
    if data.count == count:
        return data
    return replace(data, c=np.broadcast_to(data.c, (count, data.c.shape[1])))


def _reshaped(info: dict[str, Any], batch: tuple[int, ...]) -> dict[str, Any]:
    return {key: value.reshape(batch) if isinstance(value, np.ndarray) else value for key, value in info.items()}
