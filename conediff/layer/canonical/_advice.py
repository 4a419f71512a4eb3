"""Suggestions how to rewrite expressions that are not DPP or not DCP."""

from __future__ import annotations

from typing import Any

from cvxpy.atoms.affine.binary_operators import DivExpression, MulExpression, multiply
from cvxpy.atoms.affine.conv import conv, convolve
from cvxpy.atoms.affine.kron import kron
from cvxpy.atoms.affine.promote import Promote
from cvxpy.atoms.elementwise.power import Power
from cvxpy.atoms.quad_form import QuadForm
from cvxpy.atoms.quad_over_lin import quad_over_lin
from cvxpy.expressions.constants import Constant
from cvxpy.expressions.expression import Expression
from cvxpy.expressions.leaf import Leaf
from cvxpy.utilities import scopes

from conediff.layer.canonical._products import suggest_separation
from conediff.layer.canonical._spelling import spell


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
        return f"Introduce a parameter for the reciprocal of {spell(divisor)} and multiply by it."
    if isinstance(violation, quad_over_lin) and violation.args[1].parameters():
        squares, divisor = (spell(arg) for arg in violation.args)
        return (
            f"Introduce a nonneg parameter r for the reciprocal of {divisor} and write r * "
            f"sum_squares({squares})."
        )
    if isinstance(violation, kron | conv | convolve):
        return _spell_out(violation)
    if isinstance(violation, MulExpression | multiply):
        functions = [arg for arg in violation.args if not arg.variables()]
        nonlinear = _find_nonlinear_in_parameters(functions[0]) if functions else None
        if nonlinear is None and violation.variables():
            return suggest_separation(violation)
        return _suggest_parameter(violation if nonlinear is None else nonlinear)
    nonlinear = _find_nonlinear_in_parameters(violation)
    if nonlinear is not None:
        return _suggest_parameter(nonlinear)
    return (
        "A parameter may only be added to, or multiplied by, expressions without parameters: introduce a "
        "parameter for each other function of parameters."
    )


def _suggest_parameter(function: Any) -> str:
    """Suggest a parameter for a function of parameters."""
    args = [arg.args[0] if isinstance(arg, Promote) else arg for arg in function.args]
    squared = isinstance(function, Power) and spell(function).startswith("square(")
    if squared or (isinstance(function, multiply | MulExpression) and args[0] is args[1]):
        return f"Introduce a parameter for the square of {spell(args[0])}."
    if isinstance(function, MulExpression | multiply):
        return f"Introduce a parameter for the product {spell(function)}."
    return f"Introduce a parameter whose value is {spell(function)}."


def _spell_out(atom: Any) -> str:
    """Suggest products in place of an atom that cvxpy does not canonicalise with parameters."""
    a, b = atom.args
    left, right = (_factor(arg) for arg in (a, b))
    if isinstance(atom, kron):
        rows, columns = a.shape
        code = f"bmat([[{left}[i, j] * {right} for j in range({columns})] for i in range({rows})])"
    else:
        index = "[i]" if a.ndim == 1 else "[i, 0]"
        eye = f"np.eye({a.size + b.size - 1}, {b.size}, -i)"
        code = f"sum({left}{index} * ({eye} @ {right}) for i in range({a.size}))"
    constant = ", where C is the constant" if "C" in (left, right) else ""
    return (
        f"cvxpy's {type(atom).__name__} takes no parameters, because its canonicalisation is not a product "
        f"with them. Write the products out: {code}{constant}."
    )


def _factor(expression: Any) -> str:
    """Return the text of a factor: a name as it is, C for a constant without one, others in parentheses."""
    if isinstance(expression, Leaf):
        return "C" if isinstance(expression, Constant) else str(expression.name())
    return f"({spell(expression)})"


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
