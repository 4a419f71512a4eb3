"""Ids and names of the user's parameters, variables and duals."""

from __future__ import annotations

from typing import Any

import cvxpy as cp


def identify(item: Any) -> int:
    """Return a number that is unique to one of the user's objects: cvxpy's id if it has one."""
    return int(item.id) if isinstance(item, cp.Variable | cp.Parameter) else id(item)


def label(item: Any) -> str:
    """Return the name of one of the user's objects in messages."""
    return str(item.name()) if isinstance(item, cp.Variable | cp.Parameter) else repr(item)


def find_dual_owners(problem: cp.Problem) -> dict[int, Any]:
    """Return the constraint of each dual variable, keyed by the dual variable's id."""
    return {dual.id: c for c in problem.constraints for dual in c.dual_variables}
