"""Builds a cvxpy problem from Python functions of its variables and parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import cvxpy as cp

Function = Callable[..., Any]


def build_problem(
    variables: Sequence[cp.Variable],
    parameters: Sequence[cp.Parameter],
    objective: Function,
    inequalities: Sequence[Function] = (),
    equalities: Sequence[Function] = (),
) -> cp.Problem:
    """Return the problem: minimise ``objective`` subject to every inequality <= 0 and every equality == 0.

    Parameters
    ----------
    variables, parameters : sequences of cvxpy.Variable, cvxpy.Parameter
        The arguments of every function, variables first.
    objective : callable
        Returns a scalar expression.
    inequalities, equalities : sequences of callables
        Return expressions of any shape.

    Raises
    ------
    TypeError
        If ``inequalities`` or ``equalities`` is not a list or tuple, or a function is not callable, does not
        take the variables and parameters, or returns a constraint.
    """
    for name, functions in (("inequalities", inequalities), ("equalities", equalities)):
        if not isinstance(functions, list | tuple):
            raise TypeError(f"{name} must be a list of functions, but got {functions!r}")
    arguments = (*variables, *parameters)

    def call(name: str, function: Function) -> Any:
        """Return the function's expression."""
        if not callable(function):
            raise TypeError(
                "objective, inequalities and equalities must be functions of the variables and the "
                f"parameters, but got {function!r}"
            )
        _check_signature(name, function, arguments)
        result = function(*arguments)
        if isinstance(result, cp.constraints.constraint.Constraint | bool):
            raise TypeError(
                f"{name}: a function must return an expression, which is constrained to <= 0 or == 0, but it "
                f"returned the constraint {result}"
            )
        return result

    constraints = [call("inequalities", g) <= 0 for g in inequalities]
    constraints += [call("equalities", h) == 0 for h in equalities]
    return cp.Problem(cp.Minimize(call("objective", objective)), constraints)


def _check_signature(name: str, function: Function, arguments: Sequence[Any]) -> None:
    """Raise TypeError if the function cannot be called with all variables and parameters in order."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-in functions have no signature
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        listed = ", ".join(argument.name() for argument in arguments)
        raise TypeError(
            f"{name}: every function is called with all variables, then all parameters ({listed}), but one "
            f"takes {signature}"
        ) from error
