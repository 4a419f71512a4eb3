"""`canonicalise`: all steps from a cvxpy problem to its maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cvxpy as cp

from conediff.layer.canonical._chain import reduce_problem
from conediff.layer.canonical._checks import check_kind, check_lists, check_problem
from conediff.layer.canonical._data import build_data_maps
from conediff.layer.canonical._discipline import check_convex, check_dpp
from conediff.layer.canonical._outputs import build_dual_specs, build_output_specs
from conediff.layer.canonical._parameters import build_parameter_map, build_parameter_spec
from conediff.layer.maps import ProblemMaps


def canonicalise(
    problem: cp.Problem, parameters: Sequence[Any], variables: Sequence[Any], gp: bool = False
) -> ProblemMaps:
    """Return the maps of a parametrised convex problem.

    Parameters
    ----------
    problem : cvxpy.Problem
        Not changed: values, duals and caches stay. Its parameters need no values.
    parameters : list or tuple of cvxpy.Parameter
        All of the problem's parameters, in the order of the values in a call.
    variables : list or tuple
        The requested outputs: variables of the problem, dual variables of its constraints
        (``constraint.dual_variables[0]``), or ``problem.objective`` for the optimal value.
    gp : bool
        Whether the problem is a geometric (log-log convex) program.

    Returns
    -------
    ProblemMaps

    Raises
    ------
    ValueError
        If the lists do not fit the problem, or hold an item twice.
    DPPError
        If the problem is not disciplined in its parameters.
    ProblemError
        If the problem cannot be used for another reason: not convex, mixed-integer, without variables, ...
    TypeError
        If ``problem`` is not a cvxpy Problem.

    Notes
    -----
    During this call the parameters' values are None, so cvxpy cannot treat a current value as a constant.
    Do not use the same problem in another thread meanwhile.
    """
    check_problem(problem)
    check_kind(problem)
    check_convex(problem, gp)
    check_dpp(problem, gp)
    check_lists(problem, parameters, variables)
    reduced = reduce_problem(problem, gp)
    specs = tuple(build_parameter_spec(p, reduced) for p in parameters)
    to_reduced = build_parameter_map(parameters, specs, reduced)
    structure, cones, blocks = build_data_maps(reduced.program, to_reduced)
    return ProblemMaps(
        structure=structure,
        cones=cones,
        parameters=specs,
        outputs=build_output_specs(problem, variables, reduced, structure),
        blocks=blocks,
        sense=-1.0 if isinstance(problem.objective, cp.Maximize) else 1.0,
        log_objective=gp,
        duals=build_dual_specs(problem, reduced, structure),
    )
