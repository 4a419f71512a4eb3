"""Translates the arguments of cvxpylayers and diffcp, so that calls written for them run unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conediff.compat.arguments import without_clarabel_names
from conediff.compat.constants import (
    INACCURATE_TOLERANCES,
    ITERATION_LIMITS,
    METHODS,
    OTHER_TOLERANCES,
    SCS_BUILDS,
)
from conediff.errors import ConediffWarning, warn
from conediff.solver.clarabel_settings import CLARABEL_TOLERANCES

# Values of ``solve_method``, in capitals, and the solver of conediff that they mean.
_SOLVERS = {"SCS": "scs", "DIFFCP": "scs", "CLARABEL": "clarabel"}
_JOBS = ("n_jobs_forward", "n_jobs_backward")
# Settings that are removed: they choose or tune a build of SCS, or are tolerances of other solvers.
_WITHOUT_EFFECT = (SCS_BUILDS | {"cg_rate"} | OTHER_TOLERANCES | INACCURATE_TOLERANCES) - CLARABEL_TOLERANCES
# Names that `translate_arguments` replaces or removes.
FOREIGN = frozenset({"solve_method", "mode", *_JOBS}) | _WITHOUT_EFFECT

# Messages that were issued already, each once per process.
_issued: set[str] = set()


def translate_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return solver arguments with conediff's names and values.

    ``mode`` becomes ``method``; the larger of ``n_jobs_forward`` and ``n_jobs_backward`` becomes ``threads``.
    ``solve_method`` becomes ``solver``, or is removed, with a warning, if it is neither SCS nor Clarabel.
    Settings that only other solvers have are removed. With Clarabel, ``max_iters`` becomes ``max_iter``, and
    ``time_limit`` ``time_limit_secs``;
    with another solver, iteration limits are removed, because they are too small for SCS; otherwise
    ``max_iter`` stays, and is refused later as a misspelt ``max_iters``.

    Raises
    ------
    ValueError
        If a mode or a number of jobs cannot be used.
    TypeError
        If ``arguments`` is not a mapping, or the solver is not a string.
    """
    if not isinstance(arguments, Mapping):
        raise TypeError(f"solver_args must be a mapping of names to values, got {arguments!r}")
    if not FOREIGN.intersection(arguments):
        return dict(arguments)
    result = {name: value for name, value in arguments.items() if name not in FOREIGN}
    named = arguments.get("solve_method")
    solver = read_solver(named)
    if solver is not None:
        result.setdefault("solver", solver)
    if solver == "clarabel":
        result = without_clarabel_names(result)
        if "max_iters" in result:
            result.setdefault("max_iter", result.pop("max_iters"))
    if solver is None and named is not None:
        result = {name: value for name, value in result.items() if name not in ITERATION_LIMITS}
    if "mode" in arguments:
        mode = arguments["mode"]
        if mode not in METHODS:
            raise ValueError(
                f"mode must be one of {', '.join(METHODS)}, got {mode!r}; layers compute exact derivatives, "
                "and conediff.compat has the lpgd modes of diffcp"
            )
        result.setdefault("method", METHODS[mode])
    jobs = [arguments[name] for name in _JOBS if name in arguments]
    if jobs:
        for job in jobs:
            if not isinstance(job, int) or isinstance(job, bool) or (job < 1 and job != -1):
                raise ValueError(f"n_jobs_forward and n_jobs_backward must be positive or -1, got {job!r}")
        result.setdefault("threads", None if -1 in jobs else max(jobs))
    return result


def read_solver(solver: Any) -> str | None:
    """Return conediff's name of a solver; None, with a warning once per name, if conediff does not use it.

    Raises
    ------
    TypeError
        If the solver is not a string or None.
    """
    if solver is not None and not isinstance(solver, str):
        raise TypeError(
            f"the solver must be a name, got {solver!r}; conediff solves with SCS and Clarabel and does not "
            "accept solver objects"
        )
    if solver is None:
        return None
    known = _SOLVERS.get(solver.upper())
    if known is None:
        _warn_once(
            f"the solver {solver!r} is not used: conediff solves with SCS and Clarabel, and refines the "
            "solution to a relative residual of 1e-10"
        )
    return known


def read_constructor_arguments(
    gp: Any,
    solver_args: Any,
    solver: Any = None,
    verbose: bool = False,
    custom_method: Any = None,
) -> tuple[bool, Mapping[str, Any] | None]:
    """Return ``gp`` and ``solver_args`` of a constructor that also accepts the arguments of cvxpylayers.

    Raises
    ------
    TypeError
        If ``gp`` is not a bool, ``custom_method`` is given, or the solver is not a string.
    """
    if gp is None or isinstance(gp, str):  # positions 4 and 5 of cvxpylayers 1.x are solver, gp
        solver, gp = (gp if solver is None else solver), solver_args
        solver_args = None
        gp = False if gp is None else gp
    if not isinstance(gp, bool):
        raise TypeError(f"gp must be True or False, got {gp!r}")
    if custom_method is not None:
        raise TypeError(
            "custom_method is not supported: conediff solves and differentiates by its own methods"
        )
    read_solver(solver)
    if solver is not None:
        solver_args = {"solve_method": solver, **(solver_args or {})}
    if verbose:
        solver_args = {"verbose": True, **(solver_args or {})}
    return gp, solver_args


def _warn_once(message: str) -> None:
    if message not in _issued:
        _issued.add(message)
        warn(message, ConediffWarning)
