"""How cvxpylayers and diffcp say what is said otherwise here, so that their users' calls run as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conediff.errors import ConediffWarning, warn

# diffcp's mode and our method: LSQR defines the derivative, "auto" computes the same one faster.
_METHODS = {"lsqr": "auto", "lsmr": "lsmr", "dense": "dense"}
_SAME_SOLVER = (None, "SCS", "DIFFCP")
# Of SCS's builds, whose results agree; the tolerances of other solvers, which refinement meets anyway.
_WITHOUT_EFFECT = {"use_indirect", "gpu", "mkl", "cg_rate"}
_OF_OTHERS = {"abstol", "reltol", "feastol", "abstol_inacc", "reltol_inacc", "feastol_inacc"}
_OF_OTHERS |= {"tol_gap_abs", "tol_gap_rel", "tol_feas"}
# How they limit iterations, to a few dozen where SCS takes thousands; without such a solver a slip for SCS's.
_LIMITS = {"max_iters", "max_iter"}
_JOBS = ("n_jobs_forward", "n_jobs_backward")
# Names that `translated` takes away.
FOREIGN = frozenset({"solve_method", "mode", *_JOBS, *_WITHOUT_EFFECT, *_OF_OTHERS})

_said: set[str] = set()


def translated(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return solver arguments in our own words.

    ``mode`` becomes ``method``, the larger of ``n_jobs_forward`` and ``n_jobs_backward`` ``threads``;
    ``solve_method`` goes, with a warning if it is not SCS, and so do settings that only other solvers have.

    Raises
    ------
    ValueError
        If a mode or a number of jobs cannot be used.
    TypeError
        If the arguments are no mapping, or the solver is no name.
    """
    if not isinstance(arguments, Mapping):
        raise TypeError(f"solver_args must be a mapping of names to values, got {arguments!r}")
    if not FOREIGN.intersection(arguments):
        return dict(arguments)
    result = {name: value for name, value in arguments.items() if name not in FOREIGN}
    solver = arguments.get("solve_method")
    check_solver(solver)
    if str(solver).upper() not in map(str, _SAME_SOLVER):
        result = {name: value for name, value in result.items() if name not in _LIMITS}
    if "mode" in arguments:
        mode = arguments["mode"]
        if mode not in _METHODS:
            raise ValueError(
                f"mode must be one of {', '.join(_METHODS)}, got {mode!r}; derivatives are exact here, and "
                "conediff.compat has the lpgd modes of diffcp"
            )
        result.setdefault("method", _METHODS[mode])
    jobs = [arguments[name] for name in _JOBS if name in arguments]
    if jobs:
        for job in jobs:
            if not isinstance(job, int) or isinstance(job, bool) or (job < 1 and job != -1):
                raise ValueError(f"n_jobs_forward and n_jobs_backward must be positive or -1, got {job!r}")
        result.setdefault("threads", None if -1 in jobs else max(jobs))
    return result


def check_solver(solver: Any) -> None:
    """Say once that another solver than SCS is not used.

    Raises
    ------
    TypeError
        If it is no name.
    """
    if solver is not None and not isinstance(solver, str):
        raise TypeError(
            f"the solver must be a name, got {solver!r}; conediff solves with SCS, and takes no solver of "
            "the user's own"
        )
    if solver is not None and solver.upper() not in _SAME_SOLVER:
        _say_once(
            f"the solver {solver!r} is not used: conediff solves with SCS, and refines what that returns "
            "to a relative residual of 1e-10"
        )


def constructor_arguments(
    gp: Any,
    solver_args: Any,
    solver: Any = None,
    verbose: bool = False,
    custom_method: Any = None,
) -> tuple[bool, Mapping[str, Any] | None]:
    """Return ``gp`` and ``solver_args`` of a constructor that also takes the arguments of cvxpylayers.

    Raises
    ------
    TypeError
        If one of them cannot be honoured.
    """
    if gp is None or isinstance(gp, str):  # the fourth and fifth positions of cvxpylayers 1.x: solver, gp
        solver, gp = (gp if solver is None else solver), solver_args
        solver_args = None
        gp = False if gp is None else gp
    if not isinstance(gp, bool):
        raise TypeError(f"gp must be True or False, got {gp!r}")
    if custom_method is not None:
        raise TypeError("custom_method cannot be used: conediff solves and differentiates by its own methods")
    check_solver(solver)
    if solver is not None:
        solver_args = {"solve_method": solver, **(solver_args or {})}
    if verbose:
        solver_args = {"verbose": True, **(solver_args or {})}
    return gp, solver_args


def _say_once(message: str) -> None:
    if message not in _said:
        _said.add(message)
        warn(message, ConediffWarning)
