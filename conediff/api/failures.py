"""What becomes of elements of a batch that have no accurate solution."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from conediff.errors import AccuracyWarning, SolverError, warn
from conediff.solver.result import SolveResult
from conediff.solver.settings import Settings

# What statuses mean, and what to do.
_IN_WORDS = {
    "infeasible": "the problem is infeasible: with these data no point satisfies all constraints",
    "unbounded": "the problem is unbounded: with these data the objective improves without limit",
    "failed": "no accurate solution was found: bring data and variables to about one, or allow more "
    "iterations (max_iters)",
}


def settle_failures(
    stack: SolveResult, settings: Settings, solutions: Any, shape: tuple[int, ...] | None = None
) -> str:
    """Do what the user wants done about elements without an accurate solution.

    Parameters
    ----------
    stack : SolveResult
    settings : Settings
        ``on_failure`` and ``tol`` are read.
    solutions : object
        What the error carries, and what a callable is given.
    shape : tuple of int, optional
        Batch shape in which elements are named; (B,) by default.

    Returns
    -------
    str
        "nan" or "zero_grad": what cotangents of failed elements are to be.

    Raises
    ------
    SolverError
        If elements failed and ``on_failure`` is "raise".

    Warns
    -----
    AccuracyWarning
        If a solution is less accurate than ``tol``.
    """
    # Without refinement SCS's own tolerances hold, which may be looser than ours.
    inaccurate = np.flatnonzero(stack.usable & (stack.residual > 10 * settings.tol))
    if inaccurate.size:
        worst = stack.residual[inaccurate].max()
        warn(
            f"{inaccurate.size} of {len(stack.x)} solutions are less accurate than tol={settings.tol:g}: "
            f"relative KKT residual up to {worst:.1e}; see .info, scale the problem, or allow more "
            "iterations (max_iters)",
            AccuracyWarning,
        )
    failed = np.flatnonzero(~stack.usable)
    answer: Any = settings.on_failure
    if failed.size and callable(answer):
        answer = answer(solutions) or "nan"
        if answer not in ("raise", "nan", "zero_grad"):
            raise ValueError(f"on_failure must answer 'raise', 'nan' or 'zero_grad', not {answer!r}")
    if failed.size and answer == "raise":
        raise _solver_error(stack, failed, shape or (len(stack.x),), solutions)
    return "zero_grad" if answer == "zero_grad" else "nan"


def _solver_error(
    stack: SolveResult, failed: NDArray[np.intp], shape: tuple[int, ...], solutions: Any
) -> SolverError:
    indices = tuple(tuple(int(i) for i in np.unravel_index(k, shape)) for k in failed) if shape else ((),)
    statuses = tuple(str(status) for status in stack.status[failed])
    if len(stack.x) == 1 and shape in ((), (1,)):
        what, its = _IN_WORDS.get(statuses[0], f"the problem is {statuses[0]}"), "its"
    else:
        its = "their"
        names = [index[0] if len(index) == 1 else index for index in indices]
        listed = [f"{name} ({status})" for name, status in zip(names, statuses, strict=True)]
        what = f"{len(failed)} of {len(stack.x)} elements have no solution: " + ", ".join(listed[:10])
        what += ", ..." if len(listed) > 10 else ""
    return SolverError(
        f"{what}. What was found, certificates included, is in .solutions of this error; with "
        "on_failure='nan' or 'zero_grad' (in a layer's solver_args; a keyword of solve) there is no error, "
        f"and NaN in {its} place",
        indices,
        statuses,
        solutions,
    )
