"""Checks of the rules of DCP, DGP and DPP.

cvxpy tells whether a problem follows the rules; the messages here name the smallest subexpression that does
not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cvxpy as cp
from cvxpy.atoms.affine.affine_atom import AffAtom
from cvxpy.atoms.quad_form import QuadForm
from cvxpy.constraints.nonpos import Inequality
from cvxpy.constraints.zero import Equality, Zero
from cvxpy.expressions.expression import Expression
from cvxpy.utilities import scopes

from conediff.errors import DPPError, ProblemError
from conediff.layer.canonical._advice import find_unsigned_factors, suggest_rewrite
from conediff.layer.canonical._spelling import spell


def check_convex(problem: cp.Problem, gp: bool) -> None:
    """Raise ProblemError, naming the smallest subexpression at fault, if the problem is not DCP (or DGP)."""
    if problem.is_dgp() if gp else problem.is_dcp():
        return
    rules = "DGP (log-log convex)" if gp else "DCP (convex)"
    where, violation = _locate(
        problem,
        is_disciplined=(lambda e: bool(e.is_dgp())) if gp else (lambda e: bool(e.is_dcp())),
        quad_form=False,
    )
    hint = ""
    if gp and problem.is_dcp():
        hint = " It is DCP: leave out gp=True."
    elif not gp and problem.is_dgp():
        hint = " It is DGP: pass gp=True."
    elif not gp and problem.is_dqcp():
        hint = (
            " It is quasiconvex (DQCP); such problems need a sequence of convex solves and are not supported."
        )
    elif (exponents := _find_exponents(violation)) and not gp:
        hint = f" The exponent {exponents[0]} is a parameter; it must be a constant (or pass gp=True)."
    elif not gp and (names := find_unsigned_factors(violation)):
        hint = (
            f" The sign of {', '.join(names)} is not known: declare the parameter nonneg=True or nonpos=True."
        )
    reason = _explain(where, violation, "log-log " if gp else "")
    raise ProblemError(f"{_must_be_dpp(gp)} For that it must be {rules}, but {where} is not{reason}.{hint}")


def check_dpp(problem: Any, gp: bool) -> None:
    """Raise DPPError, naming the smallest subexpression at fault, if the problem is not DPP."""
    if gp:
        disciplined = problem.is_dpp("dgp")
    else:
        disciplined = problem.is_dpp("dcp", quad_form_dpp="qp")
    if not disciplined:
        context = "dgp" if gp else "dcp"
        where, violation = _locate(
            problem, is_disciplined=lambda e: bool(e.is_dpp(context)), quad_form=not gp
        )
        reason = _explain(where, violation)
        raise DPPError(f"{_must_be_dpp(gp)} But {where} is not{reason}. {suggest_rewrite(violation)}")
    nested = None if gp else _find_nested_quad_form(problem.objective.expr)
    if nested is not None:
        raise DPPError(
            f"{_must_be_dpp(gp)} But the objective {spell(problem.objective)} is not, because {nested} is "
            f"inside another nonlinear function. {suggest_rewrite(nested)}"
        )


def _must_be_dpp(gp: bool) -> str:
    """Return the sentence that messages begin with, word for word as cvxpylayers says it."""
    return "Problem must be DPP for geometric programming." if gp else "Problem must be DPP."


def _locate(problem: cp.Problem, is_disciplined: Callable[[Any], bool], quad_form: bool) -> tuple[str, Any]:
    """Return where the problem violates the rules, and the smallest subexpression that does.

    If every subexpression follows the rules and only their combination does not, the second result is the
    whole objective or constraint.
    """
    for c in (problem.objective, *problem.constraints):
        objective = c is problem.objective
        with _quad_form_scope(quad_form and objective):
            if is_disciplined(c):
                continue
            where = f"the objective {spell(c)}" if objective else f"the constraint {spell(c)}"
            for arg in c.args:
                if not is_disciplined(arg):
                    return where, _find_smallest(arg, is_disciplined)
        return where, c
    bounded = [v for v in problem.variables() if not is_disciplined(v)]
    return f"a bound of the variable {bounded[0].name()}" if bounded else "the problem", problem.objective


@contextmanager
def _quad_form_scope(active: bool) -> Iterator[None]:
    """Allow quad_form with a parametrised matrix, which solvers with quadratic objectives can use."""
    if active:
        with scopes.quad_form_dpp_scope():
            yield
    else:
        yield


def _explain(where: str, violation: Any, log_log: str | None = None) -> str:
    """Return the reason for a violation; for a whole objective or constraint the curvature that it needs."""
    if log_log is not None:
        if isinstance(violation, cp.Minimize):
            return f": the function to be minimised must be {log_log}convex"
        if isinstance(violation, cp.Maximize):
            return f": the function to be maximised must be {log_log}concave"
        if isinstance(violation, Inequality):
            return f": the smaller side must be {log_log}convex, and the larger {log_log}concave"
        if isinstance(violation, Equality | Zero):
            return f": both sides of an equality must be {log_log}affine"
    if not isinstance(violation, Expression):
        return " (each term of it is, but not their combination)"
    return "" if where.endswith(spell(violation)) else f", because of {spell(violation)}"


def _find_exponents(expression: Any) -> list[Any]:
    """Return the exponents of powers that contain parameters."""
    found = [name for arg in expression.args for name in _find_exponents(arg)]
    exponent = getattr(expression, "p", None)
    return found + ([exponent] if isinstance(exponent, Expression) and exponent.parameters() else [])


def _find_smallest(expression: Any, is_disciplined: Callable[[Any], bool]) -> Any:
    """Return the smallest subexpression that violates the rules."""
    for arg in expression.args:
        if not is_disciplined(arg):
            return _find_smallest(arg, is_disciplined)
    return expression


def _find_nested_quad_form(expression: Any, affine_above: bool = True) -> Any:
    """Return a quad_form with a parametrised matrix that does not enter the objective linearly, or None.

    cvxpy's relaxed rule accepts it, but its canonicalisation uses the current value of the matrix.
    """
    if isinstance(expression, QuadForm) and expression.args[1].parameters() and not affine_above:
        return expression
    affine_here = affine_above and isinstance(expression, AffAtom)
    found = (_find_nested_quad_form(arg, affine_here) for arg in expression.args)
    return next((e for e in found if e is not None), None)
