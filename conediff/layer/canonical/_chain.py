"""cvxpy's chain of reductions: run once without parameter values, then applied forward and back."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy.error import DCPError, DGPError, SolverError
from cvxpy.reductions.dgp2dcp.dgp2dcp import Dgp2Dcp
from cvxpy.reductions.solvers import defines
from cvxpy.reductions.solvers.conic_solvers.scs_conif import SCS

from conediff.errors import ProblemError
from conediff.layer.canonical._perspective import check_perspectives
from conediff.program import Array

# Errors that cvxpy's reductions raise in cases they do not handle, such as a parameter without a value.
_REDUCTION_ERRORS = (
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    IndexError,
    AssertionError,
    NotImplementedError,
)


NAME = "CONEDIFF"
_registration = threading.RLock()


class _ParametricSCS(SCS):  # type: ignore[misc]
    """cvxpy's interface to SCS, changed so that the program stays a function of the parameters."""

    REQUIRES_CONSTR = False

    def name(self) -> str:
        # cvxpy rejects solver objects with the name of one of its own solvers.
        return NAME

    def supports_quad_obj(self) -> bool:
        return True

    def apply(self, problem: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Format the rows for SCS without reading any parameter value."""
        prepare: Any = self._prepare_data_and_inv_data
        _, data, inverse = prepare(problem)
        inverse[cp.settings.OFFSET] = 0.0
        return data, inverse


@dataclass(frozen=True, eq=False)
class Reduced:
    """A parametrised cone program from cvxpy's chain, with the chain that inverts its solution.

    Parameters
    ----------
    program : cvxpy's ParamConeProg
    chain : cvxpy's SolvingChain
    inverse : list
        cvxpy's inversion data, one entry per reduction.
    """

    program: Any
    chain: Any
    inverse: list[Any]

    @property
    def logarithms(self) -> dict[Any, Any]:
        """The parameter for the logarithm of each parameter (geometric programs); otherwise empty."""
        for reduction in self.chain.reductions:
            if isinstance(reduction, Dgp2Dcp):
                return dict(reduction.canon_methods._parameters)
        return {}

    def parameter_entries(self, entries: dict[int, Any]) -> dict[int, Any]:
        """Map arrays for the user's parameters to arrays for the reduced ones; both are keyed by id."""
        for reduction in self.chain.reductions[:-1]:
            # The features contain the logarithms already.
            if not isinstance(reduction, Dgp2Dcp):
                entries = reduction.param_forward(entries)
        return entries

    def variable_entries(self, x: Array) -> dict[int, Any]:
        """Split x into the user's variables, keyed by id (their logarithms in geometric programs).

        Unlike cvxpy's `Chain.invert` it does not project onto the variables' attributes, so it is linear.
        """
        values: dict[int, Any] = self.program.split_solution(x)
        for reduction in reversed(self.chain.reductions[:-1]):
            if isinstance(reduction, Dgp2Dcp):
                logs = reduction.canon_methods._variables
                original = {new.id: old.id for old, new in logs.items()}
                values = {original.get(key, key): value for key, value in values.items()}
            else:
                values = reduction.var_forward(values)
        return values

    def dual_values(self, y: Array) -> dict[int, Any]:
        """Split y into the values of the constraints' duals, keyed by the constraints' ids."""
        info = {"status_val": 1, "solve_time": 0.0, "setup_time": 0.0, "iter": 0, "pobj": 0.0}
        raw = {"x": np.zeros(self.program.x.size), "y": y, "info": info}
        duals: dict[int, Any] = self.chain.invert(raw, self.inverse).dual_vars
        return duals


def reduce_problem(problem: cp.Problem, gp: bool) -> Reduced:
    """Run cvxpy's chain for SCS; the quadratic objective is kept.

    Raises
    ------
    ProblemError
        If cvxpy cannot reduce the problem without parameter values, or keeps a cone that SCS lacks.
    """
    # A new problem, because canonicalising the user's would overwrite its caches.
    copy = cp.Problem(problem.objective, problem.constraints)
    solver, leaves = _ParametricSCS(), [*problem.parameters(), *problem.variables()]
    try:
        with _registered(solver), _without_values(leaves), warnings.catch_warnings():
            # They concern backends and sparse values, which the user of a layer cannot change.
            warnings.simplefilter("ignore")
            check_perspectives(problem, NAME)
            data, chain, inverse = copy.get_problem_data(solver, gp=gp, enforce_dpp=True)
    except ProblemError:
        raise
    except (SolverError, DCPError, DGPError, *_REDUCTION_ERRORS) as error:
        reason = str(error) or f"it raised a {type(error).__name__}"
        raise ProblemError(
            f"cvxpy cannot turn this problem into a parametrised cone program: {reason}"
        ) from error
    program = data[cp.settings.PARAM_PROB]
    if program.cone_dims.pnd:
        raise ProblemError("cvxpy kept a cone in the problem that SCS does not support.")
    return Reduced(program, chain, inverse)


@contextmanager
def _registered(solver: SCS) -> Iterator[None]:
    """Let cvxpy find the solver by its name inside the context, as atoms do that canonicalise a problem."""
    with _registration:
        defines.SOLVER_MAP_CONIC[NAME] = solver
        try:
            yield
        finally:
            defines.SOLVER_MAP_CONIC.pop(NAME, None)


@contextmanager
def _without_values(leaves: Sequence[Any]) -> Iterator[None]:
    """Set the values of parameters and variables to None inside the context.

    A reduction that reads a parameter's value would make it a constant of the maps; without values it fails
    instead. Of variables reductions take starting points for solvers, which conediff does not use, and some
    fail for values that the problem does not have at its solution (sum_largest with a fractional k).
    """
    values = [leaf._value for leaf in leaves]
    for leaf in leaves:
        leaf._value = None
    try:
        yield
    finally:
        for leaf, value in zip(leaves, values, strict=True):
            leaf._value = value
