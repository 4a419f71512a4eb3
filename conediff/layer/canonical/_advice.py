"""How to rewrite an expression that is not DPP."""

from __future__ import annotations

from typing import Any

from cvxpy.atoms.affine.binary_operators import DivExpression, MulExpression, multiply
from cvxpy.atoms.affine.promote import Promote
from cvxpy.atoms.quad_form import QuadForm
from cvxpy.expressions.expression import Expression
from cvxpy.utilities import scopes


def advice(culprit: Any) -> str:
    """Say how to rewrite an expression that is not DPP."""
    if isinstance(culprit, QuadForm):
        return (
            "Write quad_form(x, P) with P a PSD parameter, x without parameters (else a variable that equals "
            "it), and only as a term of the objective; or use sum_squares(L @ x) with a parameter L, P = L'L."
        )
    if isinstance(culprit, DivExpression):
        divisor = culprit.args[1]
        divisor = divisor.args[0] if isinstance(divisor, Promote) else divisor
        return f"Introduce a parameter for the reciprocal of {divisor}, and multiply by it."
    if isinstance(culprit, MulExpression | multiply):
        if not culprit.variables():
            return f"Introduce a parameter for the product {culprit}."
        return (
            f"In the product {culprit} both factors hold parameters: introduce a parameter for the product "
            "of the two, or a variable that equals the factor with the variables."
        )
    bent = _nonlinear_in_parameters(culprit)
    if bent is not None:
        return f"Introduce a parameter whose value is {bent}."
    return (
        "A parameter may only be added, or multiply something without parameters: introduce a parameter "
        "for each other function of parameters."
    )


def _nonlinear_in_parameters(expression: Any) -> Any:
    """Return the smallest subexpression that is a nonlinear function of parameters alone, or None."""
    for arg in expression.args:
        found = _nonlinear_in_parameters(arg)
        if found is not None:
            return found
    if expression.variables() or not isinstance(expression, Expression):
        return None
    with scopes.dpp_scope():
        return None if expression.is_affine() else expression


def unsigned_factors(expression: Any) -> list[str]:
    """Return what multiplies a curved expression without a sign that is known."""
    found = [name for arg in expression.args for name in unsigned_factors(arg)]
    if isinstance(expression, MulExpression | multiply):
        for factor, other in (expression.args, expression.args[::-1]):
            curved = other.variables() and not other.is_affine()
            if curved and not factor.variables() and not (factor.is_nonneg() or factor.is_nonpos()):
                found.append(str(factor.args[0] if isinstance(factor, Promote) else factor))
    return found
