"""Suggestions how to rewrite expressions that are not DPP or not DCP."""

from __future__ import annotations

from typing import Any

from cvxpy.atoms.affine.binary_operators import DivExpression, MulExpression, multiply
from cvxpy.atoms.affine.promote import Promote
from cvxpy.atoms.quad_form import QuadForm
from cvxpy.expressions.expression import Expression
from cvxpy.utilities import scopes


def suggest_rewrite(violation: Any) -> str:
    """Return a sentence on how to rewrite an expression that is not DPP."""
    if isinstance(violation, QuadForm):
        return (
            "Write quad_form(x, P) only as a term of the objective, with a PSD parameter P and an x without "
            "parameters (or a variable that equals x); or use sum_squares(L @ x) with a parameter L where "
            "P = L'L."
        )
    if isinstance(violation, DivExpression):
        divisor = violation.args[1]
        divisor = divisor.args[0] if isinstance(divisor, Promote) else divisor
        return f"Introduce a parameter for the reciprocal of {divisor} and multiply by it."
    if isinstance(violation, MulExpression | multiply):
        if not violation.variables():
            return f"Introduce a parameter for the product {violation}."
        return (
            f"In the product {violation} both factors hold parameters: introduce a parameter for the product "
            "of the two parameters, or a variable that equals the factor with the variables."
        )
    nonlinear = _find_nonlinear_in_parameters(violation)
    if nonlinear is not None:
        return f"Introduce a parameter whose value is {nonlinear}."
    return (
        "A parameter may only be added to, or multiplied by, expressions without parameters: introduce a "
        "parameter for each other function of parameters."
    )


def _find_nonlinear_in_parameters(expression: Any) -> Any:
    """Return the smallest subexpression that is a nonlinear function of parameters alone, or None."""
    for arg in expression.args:
        found = _find_nonlinear_in_parameters(arg)
        if found is not None:
            return found
    if expression.variables() or not isinstance(expression, Expression):
        return None
    with scopes.dpp_scope():
        return None if expression.is_affine() else expression


def find_unsigned_factors(expression: Any) -> list[str]:
    """Return the factors of unknown sign that multiply a convex or concave expression."""
    found = [name for arg in expression.args for name in find_unsigned_factors(arg)]
    if isinstance(expression, MulExpression | multiply):
        for factor, other in (expression.args, expression.args[::-1]):
            curved = other.variables() and not other.is_affine()
            if curved and not factor.variables() and not (factor.is_nonneg() or factor.is_nonpos()):
                found.append(str(factor.args[0] if isinstance(factor, Promote) else factor))
    return found
