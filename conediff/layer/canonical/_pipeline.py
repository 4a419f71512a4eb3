"""The whole way from a cvxpy problem to its maps, stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cvxpy as cp

from conediff.layer.canonical._chain import reduce_problem
from conediff.layer.canonical._checks import check_kind, check_lists
from conediff.layer.canonical._data import data_maps
from conediff.layer.canonical._discipline import check_convex, check_dpp
from conediff.layer.canonical._outputs import constraint_dual_specs, output_specs
from conediff.layer.canonical._parameters import parameter_map, parameter_spec
from conediff.layer.maps import ProblemMaps


def canonicalise(
    problem: cp.Problem, parameters: Sequence[Any], variables: Sequence[Any], gp: bool = False
) -> ProblemMaps:
    """Return the maps of a parametrised convex problem.

    Parameters
    ----------
    problem : cvxpy.Problem
        Left as it is: values, duals and caches. Its parameters need no values.
    parameters : list or tuple of cvxpy.Parameter
        All of the problem's parameters, in the order in which values will be given.
    variables : list or tuple
        The outputs wanted: variables of the problem, dual variables of its constraints
        (``constraint.dual_variables[0]``), or ``problem.objective`` for the optimal value.
    gp : bool
        Whether to read the problem as a geometric (log-log convex) program.

    Raises
    ------
    ValueError
        If the lists are not the problem's, or hold something twice.
    DPPError
        If the problem is not disciplined in its parameters.
    ProblemError
        If it cannot be used for another reason: not convex, mixed-integer, without variables, ...

    Notes
    -----
    For the while of this call the parameters have no value, so that cvxpy cannot take a value of today
    for a constant; so don't use the same problem in another thread meanwhile.
    """
    check_lists(problem, parameters, variables)
    check_kind(problem)
    check_convex(problem, gp)
    check_dpp(problem, gp)
    reduced = reduce_problem(problem, gp)
    specs = tuple(parameter_spec(p, reduced) for p in parameters)
    fold = parameter_map(parameters, specs, reduced)
    structure, cones, blocks = data_maps(reduced.program, fold)
    return ProblemMaps(
        structure=structure,
        cones=cones,
        parameters=specs,
        outputs=output_specs(problem, variables, reduced, structure),
        blocks=blocks,
        sense=-1.0 if isinstance(problem.objective, cp.Maximize) else 1.0,
        log_objective=gp,
        duals=constraint_dual_specs(problem, reduced, structure),
    )
