r"""diffcp's interface on conediff: ``import conediff.compat as diffcp`` runs programs written for diffcp.

Names, order of arguments, return values, cone keys and modes are diffcp's. What differs is what was lacking:
a quadratic objective and power cones are allowed, and exact, in every mode; nothing is written into the
caller's arrays, so explicit zeros of A stay, and belong to its sparsity.

Data enter the optimality conditions through products alone: dA moves the solution as db = -dA x together with
dc = dA'y does, and dP as dc = dP x. So the derivative with respect to b and c gives all of it,

.. math:: g_A = y g_c^\top - g_b x^\top, \qquad g_P = \tfrac12 (g_c x^\top + x g_c^\top).

The lpgd modes take differences between perturbed programs (Lagrangian proximal gradient descent: Paulus,
Martius, Musil (2024), arXiv:2407.05920), which tend to this derivative as the perturbation tau tends to zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from conediff.errors import SolverError
from conediff.program import ConeProgram
from conediff.solution import BatchDerivative, Solution, Solutions
from conediff.solve import solve_batch
from conediff.solver import SCS_SETTINGS
from conediff.structure import Array

ZERO, POS, SOC, PSD, EXP = "z", "l", "q", "s", "ep"

# diffcp's mode and our method: LSQR defines the derivative, "auto" computes the same one faster.
_METHODS = {"lsqr": "auto", "lsmr": "lsmr", "dense": "dense"}
# Between which perturbations an lpgd mode takes the difference, in units of tau; 0 is the solution itself.
_SIDES = {"lpgd": (1, -1), "lpgd_right": (1, 0), "lpgd_left": (0, -1)}
_SOLVERS = ("SCS", "ECOS", "Clarabel", "CLARABEL", None)
# What SCS, ECOS and Clarabel call their tolerances; what changes how they get there, not where; what we pass on.
_TOLERANCES = set("eps eps_abs eps_rel abstol reltol feastol tol_gap_abs tol_gap_rel tol_feas".split())
_IGNORED = set("use_indirect gpu mkl abstol_inacc reltol_inacc feastol_inacc max_iter max_threads".split())
_PASSED = SCS_SETTINGS | {"tol", "refine", "threads"}
_STATUS_VALUE = {"solved": 1, "inaccurate": 2, "unbounded": -1, "infeasible": -2, "failed": -4}


class _Point(NamedTuple):
    x: Array
    y: Array
    s: Array


def solve_and_derivative(
    A: Any, b: Any, c: Any, cone_dict: Mapping[str, Any], warm_start: Any = None, mode: str = "lsqr",
    solve_method: str | None = "SCS", P: Any = None, **kwargs: Any,
) -> tuple[Array, Array, Array, Callable[..., Any], Callable[..., Any]]:  # fmt: skip
    """Solve a cone program; return its solution, and the derivative of its solution map.

    Parameters
    ----------
    A : sparse matrix or array, shape (m, n)
    b, c : arrays, shape (m,), (n,)
    cone_dict : mapping
        Of f or z, l, q, s, ep, ed, p and SCS's other keys; rows and scaling as in `ConeProgram`.
    warm_start : tuple of arrays (x, y, s), optional
    mode : {"lsqr", "lsmr", "dense", "lpgd", "lpgd_left", "lpgd_right"}
        "lsqr" solves the reduced system directly, and runs LSQR where that is singular: the same answer.
    solve_method : {"SCS", "ECOS", "Clarabel"}, optional
        Accepted, and without effect: SCS solves, and Newton's method refines.
    P : sparse matrix or array, shape (n, n), optional
        Of the objective x'Px / 2 + c'x: its upper triangle, or the whole symmetric matrix.
    **kwargs
        ``derivative_kwargs``, a dict of ``tau`` (perturbation, required in the lpgd modes) and ``rho``
        (proximal weight, 0 by default); settings of SCS; tolerances and ``verbose`` of ECOS and Clarabel;
        ``tol``, ``refine`` and ``threads`` of `conediff.solve`. Tolerances above 1e-10 are met anyway.

    Returns
    -------
    x, y, s : arrays, shape (n,), (m,), (m,)
    derivative : callable
        ``derivative(dA, db, dc, dP=None)`` returns dx, dy, ds. If P is an upper triangle, that of dP is read,
        otherwise its symmetric part. Both callables also take ``tau`` and ``rho``.
    adjoint_derivative : callable
        ``adjoint_derivative(dx, dy, ds, return_dP=False)`` returns dA, db, dc, and dP if wanted; dA and dP
        are CSC matrices on the sparsity of A and P. If P is an upper triangle, entries of dP off the
        diagonal are those of both triangles together.

    Raises
    ------
    SolverError
        If the program has no solution; from the callables, if a perturbed one has none.
    TypeError
        If a keyword argument is unknown.
    ValueError
        If the mode, the solver or the data cannot be used.
    """
    r = solve_and_derivative_internal(A, b, c, cone_dict, solve_method, warm_start, mode, P=P, **kwargs)
    return r["x"], r["y"], r["s"], r["D"], r["DT"]


def solve_only(
    A: Any, b: Any, c: Any, cone_dict: Mapping[str, Any], warm_start: Any = None,
    solve_method: str | None = "SCS", P: Any = None, **kwargs: Any,
) -> tuple[Array, Array, Array]:  # fmt: skip
    """Solve a cone program; return x, y and s as `solve_and_derivative` does."""
    r = solve_and_derivative_internal(A, b, c, cone_dict, solve_method, warm_start, P=P, **kwargs)
    return r["x"], r["y"], r["s"]


def solve_and_derivative_internal(
    A: Any, b: Any, c: Any, cone_dict: Mapping[str, Any], solve_method: str | None = None,
    warm_start: Any = None, mode: str = "lsqr", raise_on_error: bool = True, P: Any = None, **kwargs: Any,
) -> dict[str, Any]:  # fmt: skip
    """Solve as `solve_and_derivative` does; return a dict of x, y, s, D, DT and, with SCS's keys and units, info.

    With ``raise_on_error=False`` a program without a solution has D and DT None; info tells its status.
    """
    kwargs["solve_method"] = solve_method
    batch = _Batch([A], [b], [c], [cone_dict], [warm_start], [P], mode, (-1, -1), kwargs)
    solution = batch.solutions[0]
    if raise_on_error:
        _check(batch.solutions)
    D, DT = (batch.derivative, batch.adjoint) if solution.status in _USABLE else (None, None)
    [x], [y], [s] = batch.own()
    return {"x": x, "y": y, "s": s, "info": _info(batch.programs[0], solution), "D": D, "DT": DT}
