"""What became of a solve, in the words of the solver that diffcp's caller named.

diffcp returns the report of the solver that it called, and callers read it: cvxpy looks up ``status_val`` and
``solve_time`` for SCS, ``status`` and ``solveTime`` for ECOS and Clarabel; programs match on "Solver scs
returned status infeasible".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from conediff.api.solution import Solution
from conediff.compat.constants import INTERIOR_POINT_STATUSES, SCS_STATUSES, STATUS_VALUES
from conediff.program import ConeProgram

# diffcp's names of the solvers in its error messages.
_IN_MESSAGES = {"SCS": "scs", "ECOS": "ecos", "Clarabel": "clarabel"}


def named_solver(solve_method: str | None) -> str:
    """Return "SCS", "ECOS" or "Clarabel" for diffcp's ``solve_method``; SCS, which comes first, for None."""
    return {None: "SCS", "CLARABEL": "Clarabel"}.get(solve_method) or str(solve_method)


def solver_status(status: str, solver: str) -> str:
    """Return conediff's status in the words of a solver."""
    return (SCS_STATUSES if solver == "SCS" else INTERIOR_POINT_STATUSES)[status]


def solver_message(status: str, solver: str) -> str:
    """Return how diffcp's errors begin for a status of conediff."""
    return f"Solver {_IN_MESSAGES[solver]} returned status {solver_status(status, solver)}"


def describe_solve(program: ConeProgram, found: Solution, solver: str) -> dict[str, Any]:
    """Return a solver's dictionary of information on a solve.

    For "SCS" with the keys of SCS, times in milliseconds; for "ECOS" and "Clarabel" with the keys to which
    diffcp brings their reports, times in seconds. ``iter`` counts the iterations of conediff's own solvers.
    """
    A, P, b, c, x, y = program.A, program.P, program.b, program.c, found.x, found.y
    status, info = found.status, found.info
    half, linear, dual = x @ (P @ x) / 2, c @ x, b @ y
    certain = {"infeasible": np.inf, "unbounded": -np.inf}.get(status, 0.0)
    primal, solve_time = certain or half + linear, info["solve_time"] + info["refine_time"]
    words = {"status": solver_status(status, solver), "iter": info["iterations"], "pobj": primal}
    if solver != "SCS":
        return {**words, "solveTime": solve_time, "setupTime": info["setup_time"]}
    return {
        **words,
        "status_val": STATUS_VALUES[status],
        "dobj": certain or -half - dual,
        "gap": abs(2 * half + linear + dual),
        "res_pri": np.abs(A @ x + found.s - b).max(initial=0.0),
        "res_dual": np.abs(P @ x + A.T @ y + c).max(initial=0.0),
        "setup_time": 1e3 * info["setup_time"],
        "solve_time": 1e3 * solve_time,
    }
