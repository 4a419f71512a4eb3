"""A problem stated by Python functions of its variables and parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cvxpy as cp

Function = Callable[..., Any]


def stated_problem(
    variables: Sequence[cp.Variable],
    parameters: Sequence[cp.Parameter],
    objective: Function,
    inequalities: Sequence[Function] = (),
    equalities: Sequence[Function] = (),
) -> cp.Problem:
    """Return the problem of minimising ``objective`` with every inequality <= 0 and every equality == 0.

    Parameters
    ----------
    variables, parameters : sequences of cvxpy.Variable, cvxpy.Parameter
        What every function is called with, variables first.
    objective : callable
        Returns a scalar expression.
    inequalities, equalities : sequences of callables
        Return expressions of any shape.

    Raises
    ------
    TypeError
        If something that is to be called is not callable.
    """
    for function in (objective, *inequalities, *equalities):
        if not callable(function):
            raise TypeError(
                "objective, inequalities and equalities are functions of the variables and the parameters, "
                f"but got {function!r}"
            )
    arguments = (*variables, *parameters)
    constraints = [g(*arguments) <= 0 for g in inequalities] + [h(*arguments) == 0 for h in equalities]
    return cp.Problem(cp.Minimize(objective(*arguments)), constraints)
