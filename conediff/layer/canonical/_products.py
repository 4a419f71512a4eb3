"""Suggestions for products in which both factors hold parameters."""

from __future__ import annotations

from typing import Any

import cvxpy as cp
from cvxpy.atoms.affine.promote import Promote

from conediff.layer.canonical._spelling import spell


def suggest_separation(product: Any) -> str:
    """Return how to rewrite a product of a parameter and an expression with variables and parameters.

    A suggestion is made only if what it leads to is DPP.
    """
    start = f"In the product {spell(product)} both factors hold parameters:"
    index = 1 if product.args[1].variables() else 0
    factor = product.args[index]
    inner = factor.args[0] if isinstance(factor, Promote) else factor
    parts = _find_affine_parts(inner)
    named = _new_names(product, len(parts))
    variables = [cp.Variable(p.shape, name=name) for p, name in zip(parts, named, strict=True)]
    rewritten = _replace(product, {id(p): v for p, v in zip(parts, variables, strict=True)})
    equations = [v == p for v, p in zip(variables, parts, strict=True)]
    if parts and rewritten.is_dpp() and all(c.is_dcp(dpp=True) for c in equations):
        what = "a variable" if len(parts) == 1 else "variables"
        rules = " and ".join(f"{spell(v)} == {spell(p)}" for v, p in zip(variables, parts, strict=True))
        return f"{start} introduce {what} {', '.join(named)} with {rules}, and write {spell(rewritten)}."
    bound = cp.Variable(inner.shape, name=_new_names(product, 1, "t")[0])
    outside = _replace(product, {id(inner): bound})
    if not inner.is_affine() and inner.is_dpp() and outside.is_dpp():
        name, sign = spell(bound), ">=" if inner.is_convex() else "<="
        rule = f"{name} {sign} {spell(inner)}"
        return f"{start} introduce a variable {name} with {rule}, and write {spell(outside)}."
    return f"{start} multiply it out, and introduce a parameter for each product of parameters."


def _find_affine_parts(expression: Any) -> list[Any]:
    """Return the largest subexpressions that are affine and hold both variables and parameters."""
    if not (expression.variables() and expression.parameters()):
        return []
    if expression.is_affine():
        return [expression]
    return [part for arg in expression.args for part in _find_affine_parts(arg)]


def _replace(expression: Any, new: dict[int, Any]) -> Any:
    """Return the expression with some of its subexpressions replaced, by identity."""
    if id(expression) in new:
        return new[id(expression)]
    if not expression.args:
        return expression
    return expression.copy([_replace(arg, new) for arg in expression.args])


def _new_names(expression: Any, count: int, letter: str = "d") -> list[str]:
    """Return names that no variable or parameter of the expression has."""
    taken = {leaf.name() for leaf in (*expression.variables(), *expression.parameters())}
    names = ([letter] if count == 1 else []) + [f"{letter}{k}" for k in range(1, count + len(taken) + 2)]
    return [name for name in names if name not in taken][:count]
