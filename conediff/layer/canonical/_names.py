"""What the user's parameters, variables and duals are known by and called."""

from __future__ import annotations

from typing import Any

import cvxpy as cp


def identity(item: Any) -> int:
    """Return what tells two of the user's objects apart: cvxpy's id where there is one."""
    return int(item.id) if isinstance(item, cp.Variable | cp.Parameter) else id(item)


def label(item: Any) -> str:
    """Return what to call a user's object in messages."""
    return str(item.name()) if isinstance(item, cp.Variable | cp.Parameter) else repr(item)


def dual_owners(problem: cp.Problem) -> dict[int, Any]:
    """Return the constraint that each dual variable belongs to, keyed by the dual variable's id."""
    return {dual.id: c for c in problem.constraints for dual in c.dual_variables}
