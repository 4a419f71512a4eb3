"""The rules of DCP, DGP and DPP: whether a problem keeps them, and where it doesn't.

cvxpy says whether; a message that helps says where, down to the smallest subexpression.
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
from conediff.layer.canonical._advice import advice, unsigned_factors


def check_convex(problem: cp.Problem, gp: bool) -> None:
    """Refuse problems that are not DCP (or DGP), naming the first subexpression that is not."""
    if problem.is_dgp() if gp else problem.is_dcp():
        return
    rules = "DGP (log-log convex)" if gp else "DCP (convex)"
    where, culprit = _find(
        problem,
        fine=(lambda e: bool(e.is_dgp())) if gp else (lambda e: bool(e.is_dcp())),
        quad_form=False,
    )
    hint = ""
    if gp and problem.is_dcp():
        hint = " It is DCP: leave out gp=True."
    elif not gp and problem.is_dgp():
        hint = " It is DGP: pass gp=True."
    elif not gp and problem.is_dqcp():
        hint = " It is quasiconvex (DQCP), which takes a sequence of convex problems; that is not supported."
    elif (exponents := _exponents(culprit)) and not gp:
        hint = f" The exponent {exponents[0]} is a parameter; it must be a constant (or pass gp=True)."
    elif not gp and (names := unsigned_factors(culprit)):
        hint = (
            f" The sign of {', '.join(names)} is not known: declare the parameter nonneg=True or nonpos=True."
        )
    because = _because(where, culprit, "log-log " if gp else "")
    raise ProblemError(f"Problem must be {rules}, but {where} is not{because}.{hint}")


def check_dpp(problem: Any, gp: bool) -> None:
    """Refuse problems that are not DPP, naming the smallest subexpression that is not."""
    if gp:
        disciplined = problem.is_dpp("dgp")
    else:
        disciplined = problem.is_dpp("dcp", quad_form_dpp="qp")
    if not disciplined:
        context = "dgp" if gp else "dcp"
        where, culprit = _find(problem, fine=lambda e: bool(e.is_dpp(context)), quad_form=not gp)
        raise DPPError(
            f"Problem must be DPP, but {where} is not{_because(where, culprit)}. {advice(culprit)}"
        )
    buried = None if gp else _buried_quad_form(problem.objective.expr)
    if buried is not None:
        raise DPPError(
            f"Problem must be DPP, but the objective {problem.objective} is not, because {buried} is "
            f"inside another nonlinear function. {advice(buried)}"
        )


def _find(problem: cp.Problem, fine: Callable[[Any], bool], quad_form: bool) -> tuple[str, Any]:
    """Return where the problem breaks the rules, and the smallest subexpression that does.

    Where every subexpression keeps the rules it is their combination that does not: then the culprit
    is the whole objective or constraint.
    """
    for c in (problem.objective, *problem.constraints):
        objective = c is problem.objective
        with _quad_form_scope(quad_form and objective):
            if fine(c):
                continue
            where = f"the objective {c}" if objective else f"the constraint {c}"
            for arg in c.args:
                if not fine(arg):
                    return where, _smallest(arg, fine)
        return where, c
    bounded = [v for v in problem.variables() if not fine(v)]
    return f"a bound of the variable {bounded[0].name()}" if bounded else "the problem", problem.objective


@contextmanager
def _quad_form_scope(active: bool) -> Iterator[None]:
    """Let quad_form have a parametrised matrix, as solvers with quadratic objectives do."""
    if active:
        with scopes.quad_form_dpp_scope():
            yield
    else:
        yield


def _because(where: str, culprit: Any, log_log: str | None = None) -> str:
    """Say what is wrong; of a whole objective or constraint by the rule of curvature that it breaks."""
    if log_log is not None:
        if isinstance(culprit, cp.Minimize):
            return f": what is to be minimised must be {log_log}convex"
        if isinstance(culprit, cp.Maximize):
            return f": what is to be maximised must be {log_log}concave"
        if isinstance(culprit, Inequality):
            return f": the smaller side must be {log_log}convex, and the larger {log_log}concave"
        if isinstance(culprit, Equality | Zero):
            return f": both sides of an equality must be {log_log}affine"
    if not isinstance(culprit, Expression):
        return " (each part of it is, but not their combination)"
    return "" if where.endswith(str(culprit)) else f", because of {culprit}"


def _exponents(expression: Any) -> list[Any]:
    """Return parameters that are exponents of powers."""
    found = [name for arg in expression.args for name in _exponents(arg)]
    exponent = getattr(expression, "p", None)
    return found + ([exponent] if isinstance(exponent, Expression) and exponent.parameters() else [])


def _smallest(expression: Any, fine: Callable[[Any], bool]) -> Any:
    for arg in expression.args:
        if not fine(arg):
            return _smallest(arg, fine)
    return expression


def _buried_quad_form(expression: Any, affine_above: bool = True) -> Any:
    """Return a quad_form with a parametrised matrix that does not enter the objective linearly.

    cvxpy's relaxed rule lets it pass, but then canonicalises it with the matrix's value of the moment.
    """
    if isinstance(expression, QuadForm) and expression.args[1].parameters() and not affine_above:
        return expression
    affine_here = affine_above and isinstance(expression, AffAtom)
    found = (_buried_quad_form(arg, affine_here) for arg in expression.args)
    return next((e for e in found if e is not None), None)
