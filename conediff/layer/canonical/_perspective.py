"""Perspectives that cvxpy canonicalises into another function are refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cvxpy as cp
import numpy as np
from cvxpy.atoms.perspective import perspective

from conediff.errors import ProblemError
from conediff.layer.canonical._spelling import spell

# Relative difference between a perspective and its definition above which it is wrong (no unit). Clarabel
# solves to about 1e-5 here; wrong perspectives differ in the first digits.
_DIFFERENCE = 1e-3
# Points that are tried, because a wrong one can be right in part of its domain. Each takes a few
# milliseconds, when a layer is made.
_POINTS = 12


def check_perspectives(problem: cp.Problem, solver: str) -> None:
    """Check the perspectives in a problem; the values of its variables are changed.

    cvxpy makes the perspective of f from the rows of f's cone program. It takes all rows of a second-order
    cone constraint for one cone. Where a constraint has several cones, what it makes may be another function:
    of cp.pnorm(x, 3) or cp.inv_pos of a vector, but not of cp.square. So these are compared with their
    definition, s f(x / s), at points in f's domain.

    Parameters
    ----------
    problem : cvxpy.Problem
    solver : str
        The name under which cvxpy finds the solver.

    Raises
    ------
    ProblemError
        If a perspective is another function.
    """
    for atom in _find_perspectives((problem.objective, *problem.constraints)):
        if _has_joint_cones(atom.f, solver) and not _is_right(atom):
            raise ProblemError(
                f"cvxpy canonicalises the perspective of {spell(atom.f)} wrongly, because it needs several "
                "second-order cones in one constraint: write f as a sum of functions of single entries, each "
                "in a perspective of its own, or the perspective by its definition"
            )


def _find_perspectives(expressions: Any) -> Iterator[Any]:
    for expression in expressions:
        if isinstance(expression, perspective):
            yield expression
        yield from _find_perspectives(getattr(expression, "args", ()))


def _has_joint_cones(f: Any, solver: str) -> bool:
    """Return whether a second-order cone constraint of f's cone program has several cones."""
    inner = cp.Problem((cp.Minimize if f.is_convex() else cp.Maximize)(f))
    chain = inner._construct_chain(solver=solver, solver_opts={"use_quad_obj": False}, ignore_dpp=True)
    for reduction in chain.reductions[:-1]:
        inner, _ = reduction.apply(inner)
    return any(isinstance(c, cp.SOC) and len(c.cone_sizes()) > 1 for c in inner.constraints)


def _is_right(atom: Any) -> bool:
    """Return whether cvxpy's perspective agrees with its definition at points of every sign in f's domain."""
    rng = np.random.default_rng(0)
    sense = cp.Minimize if atom.f.is_convex() else cp.Maximize
    for k in range(_POINTS):
        scale = rng.uniform(0.5, 2.0)
        for v in atom.f.variables():
            draw = rng.standard_normal(v.shape) * 10 ** rng.uniform(-1, 1, v.shape)
            v.value = v.project((draw, np.abs(draw), -np.abs(draw))[k % 3])
        expected = scale * np.asarray(atom.f.value)
        if not np.isfinite(expected).all():
            continue
        fixed = [v == scale * v.value for v in atom.f.variables()]
        problem = cp.Problem(sense(atom), [atom.args[0] == scale, *fixed])
        try:
            problem.solve(solver=cp.CLARABEL)
        except cp.SolverError:
            return False
        # Not problem.value, which cvxpy computes from the definition.
        if not abs(problem.solution.opt_val - expected) <= _DIFFERENCE * (1 + abs(expected)):
            return False
    return True
