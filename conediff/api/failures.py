"""Elements of a batch without an accurate solution: raise, warn, or decide what their cotangents are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conediff.errors import AccuracyWarning, SolverError, warn
from conediff.solver.result import SolveResult
from conediff.solver.settings import Settings

# What statuses mean, and what to do.
_MEANINGS = {
    "infeasible": "the problem is infeasible: with these data no point satisfies all constraints",
    "unbounded": "the problem is unbounded: with these data the objective improves without limit",
    "neither": "the problem is infeasible: with these data no point satisfies all constraints (if there "
    "were one, the problem would be unbounded)",
    "failed": "no accurate solution was found: bring data and variables to about one, or allow more "
    "iterations (max_iters)",
}


def handle_failures(
    result: SolveResult,
    settings: Settings,
    solutions: Any,
    shape: tuple[int, ...] | None = None,
    infeasible: Callable[[], NDArray[np.bool_]] | None = None,
) -> None:
    """Do with elements without an accurate solution as ``on_failure`` says.

    This is the only place where it is decided what their cotangents are: ``result.failed_cotangent`` is set.

    Parameters
    ----------
    result : SolveResult
    settings : Settings
        ``on_failure`` and ``tol`` are read.
    solutions : object
        What the error carries, and what a callable is given.
    shape : tuple of int, optional
        Batch shape in which elements are named; (B,) by default.
    infeasible : callable, optional
        Returns which unbounded elements are infeasible as well, shape (B,); asked if an error is raised.

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
    loose = result.has_solution & (result.residual > 10 * settings.tol)
    inaccurate = np.flatnonzero(loose | (result.status == "inaccurate"))
    if inaccurate.size:
        worst = result.residual[inaccurate].max()
        if result.out_of_time[inaccurate].any():
            advice = f"see .info; {_time_limit(settings)} was reached"
        else:
            advice = "see .info, scale the problem, or allow more iterations (max_iters)"
        warn(
            f"{inaccurate.size} of {len(result.x)} solutions are less accurate than tol={settings.tol:g}: "
            f"relative KKT residual up to {worst:.1e}; {advice}",
            AccuracyWarning,
        )
    failed = np.flatnonzero(~result.has_solution)
    answer: Any = settings.on_failure
    if failed.size and callable(answer):
        answer = answer(solutions) or "nan"
        if answer not in ("raise", "nan", "zero_grad"):
            raise ValueError(f"on_failure must answer 'raise', 'nan' or 'zero_grad', not {answer!r}")
    if failed.size and answer == "raise":
        limit = _time_limit(settings) if result.out_of_time[failed].any() else ""
        both = np.zeros(result.count, dtype=bool) if infeasible is None else infeasible()
        raise _solver_error(result, failed, shape or (len(result.x),), solutions, limit, both)
    result.failed_cotangent = 0.0 if answer == "zero_grad" else np.nan


def _time_limit(settings: Settings) -> str:
    return f"the time limit of {settings.time_limit_secs:g} s (time_limit_secs)"


def _solver_error(
    result: SolveResult,
    failed: NDArray[np.intp],
    shape: tuple[int, ...],
    solutions: Any,
    limit: str,
    both: NDArray[np.bool_],
) -> SolverError:
    """Return the error.

    ``limit`` names the time limit if it was reached; ``both`` says which unbounded elements are infeasible
    too.
    """
    indices = tuple(tuple(int(i) for i in np.unravel_index(k, shape)) for k in failed) if shape else ((),)
    statuses = tuple(str(status) for status in result.status[failed])
    if len(result.x) == 1 and shape in ((), (1,)):
        status = "neither" if both.any() else statuses[0]
        what, its = _MEANINGS.get(status, f"the problem is {status}"), "its"
        if limit:
            what = f"{limit} was reached before an accurate solution was found"
    else:
        its = "their"
        names = [index[0] if len(index) == 1 else index for index in indices]
        words = ["infeasible and unbounded" if both[k] else result.status[k] for k in failed]
        listed = [f"{name} ({word})" for name, word in zip(names, words, strict=True)]
        what = f"{len(failed)} of {len(result.x)} elements have no solution: " + ", ".join(listed[:10])
        what += ", ..." if len(listed) > 10 else ""
        what += f"; {limit} was reached" if limit else ""
    return SolverError(
        f"{what}. What was found, certificates included, is in .solutions of this error; with "
        "on_failure='nan' or 'zero_grad' (in a layer's solver_args; a keyword of solve) there is no error, "
        f"and NaN in {its} place",
        indices,
        statuses,
        solutions,
    )
