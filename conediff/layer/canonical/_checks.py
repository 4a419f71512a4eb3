"""Checks of the lists of parameters and variables, and of the kind of problem."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
from cvxpy.constraints.finite_set import FiniteSet

from conediff.errors import ProblemError
from conediff.layer.canonical._names import find_dual_owners, identify, label

# cvxpy's attributes of symmetric matrices.
SYMMETRIC = ("symmetric", "PSD", "NSD")


def check_problem(problem: Any) -> None:
    """Raise TypeError if this is not a cvxpy Problem."""
    if not isinstance(problem, cp.Problem):
        raise TypeError(f"The layer's problem must be a cvxpy Problem, not {type(problem).__name__}.")


def check_lists(problem: cp.Problem, parameters: Any, variables: Any) -> None:
    """Check that the lists hold the problem's own parameters and variables, each once.

    Raises
    ------
    ValueError
        If a list is not a list, misses a parameter, or holds a foreign or repeated item.
    """
    if not isinstance(parameters, list | tuple):
        raise ValueError("The layer's parameters must be provided as a list or tuple.")
    if not isinstance(variables, list | tuple):
        raise ValueError("The layer's variables must be provided as a list or tuple.")
    own = {p.id: p for p in problem.parameters()}
    given = {getattr(p, "id", id(p)): p for p in parameters}
    missing = [label(p) for key, p in own.items() if key not in given]
    extra = [label(p) for key, p in given.items() if key not in own]
    if missing or extra:
        raise ValueError(
            "The layer's parameters must exactly match problem.parameters"
            + (f"; missing: {', '.join(missing)}" if missing else "")
            + (f"; not the problem's: {', '.join(extra)}" if extra else "")
            + "."
        )
    known = {v.id for v in problem.variables()} | set(find_dual_owners(problem))
    foreign = [label(v) for v in variables if v is not problem.objective and identify(v) not in known]
    if foreign:
        raise ValueError(
            "Argument `variables`: the layer's variables must be a subset of problem.variables, of the dual "
            f"variables of its constraints, and problem.objective; not the problem's: {', '.join(foreign)}."
            + _suggest_output(variables, problem)
        )
    for kind, items in (("parameters", parameters), ("variables", variables)):
        keys = [identify(item) for item in items]
        twice = sorted({label(item) for item, key in zip(items, keys, strict=True) if keys.count(key) > 1})
        if twice:
            raise ValueError(f"The layer's {kind} hold an item more than once: {', '.join(twice)}.")


def _suggest_output(variables: Any, problem: cp.Problem) -> str:
    """Return a sentence on what to pass in place of outputs that are not variables of the problem."""
    if any(isinstance(v, cp.constraints.constraint.Constraint) for v in variables):
        return " For the dual variable of a constraint pass constraint.dual_variables[0]."
    if any(isinstance(v, cp.Expression) and not isinstance(v, cp.Variable | cp.Parameter) for v in variables):
        return (
            " For the value of an expression introduce a variable and constrain it to equal the expression."
        )
    return f" The problem's variables are {', '.join(v.name() for v in problem.variables())}."


def check_kind(problem: cp.Problem) -> None:
    """Raise ProblemError if the problem is not a continuous cone program that cvxpy can parametrise."""
    if not problem.variables():
        raise ProblemError("The problem has no variables, so there is nothing to solve for.")
    if problem.is_mixed_integer() or any(isinstance(c, FiniteSet) for c in problem.constraints):
        raise ProblemError(
            "The problem has boolean, integer or finite-set variables, so its solution has no derivative: "
            "relax them, for example to bounds=[0, 1]."
        )
    for c in problem.constraints:
        alpha = getattr(c, "alpha", None)
        if alpha is not None and hasattr(alpha, "parameters") and alpha.parameters():
            raise ProblemError(f"The exponent of the power cone {c} is a parameter; it must be a constant.")
    for p in problem.parameters():
        if len(p.shape) > 2 and any(p.attributes[key] for key in (*SYMMETRIC, "hermitian", "diag")):
            raise ProblemError(
                f"The parameter {p.name()} is a stack of structured matrices, which cvxpy cannot "
                "canonicalise: declare one parameter for each matrix."
            )
