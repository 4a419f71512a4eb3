"""Reads diffcp's arguments: solver settings, programs, and tangents of their data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp

from conediff.compat.cones import with_scs_keys
from conediff.compat.constants import (
    CLARABEL_TUNING,
    ECOS_TUNING,
    INACCURATE_TOLERANCES,
    LARGEST_TOLERANCE,
    OTHER_TOLERANCES,
    SCS_BUILDS,
    SMALLEST_TOLERANCE,
)
from conediff.program import ConeProgram

_SOLVERS = ("SCS", "ECOS", "Clarabel", "CLARABEL", None)
_TOLERANCES = OTHER_TOLERANCES | {"eps", "eps_abs", "eps_rel"}
_WITHOUT_EFFECT = SCS_BUILDS | INACCURATE_TOLERANCES | {"solve_method", "max_iter"}


def read_settings(given: Mapping[str, Any], jobs: int) -> dict[str, Any]:
    """Translate the keyword arguments of diffcp's solvers into those of `solve_batch`.

    Parameters
    ----------
    given : mapping
    jobs : int
        Number of threads; -1 means all processors.

    Raises
    ------
    ValueError
        If the solver is unknown.
    """
    solver = given.get("solve_method", "SCS")
    if solver not in _SOLVERS:
        raise ValueError(
            f"unknown solve_method {solver!r}; SCS, ECOS and Clarabel are accepted, and SCS is used for ECOS"
        )
    passed = {name: value for name, value in given.items() if name not in _TOLERANCES | _WITHOUT_EFFECT}
    if solver not in ("SCS", None):
        passed.pop("max_iters", None)  # a limit for an interior-point method, too small for SCS
    if solver == "ECOS":
        passed = {name: value for name, value in passed.items() if name not in ECOS_TUNING}
    if solver in ("Clarabel", "CLARABEL"):
        passed = without_clarabel_names(passed)
        passed["solver"] = "clarabel"
        limits = [given[name] for name in ("max_iter", "max_iters") if name in given]
        if limits:
            passed["max_iter"] = limits[0]
    if asked := [given[name] for name in given.keys() & _TOLERANCES]:
        tol = min(asked)
        if passed.get("refine", True):
            tol = np.clip(tol, SMALLEST_TOLERANCE, LARGEST_TOLERANCE)
        passed.setdefault("tol", float(tol))
    return {"threads": None if jobs == -1 else jobs, **passed}


def without_clarabel_names(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without those of Clarabel that conediff lacks; ``time_limit`` becomes ours."""
    rest = {name: value for name, value in given.items() if name not in CLARABEL_TUNING | {"time_limit"}}
    limit = given.get("time_limit")
    if limit is not None and limit != np.inf:
        rest.setdefault("time_limit_secs", limit)
    return rest


def read_program(A: Any, b: Any, c: Any, cones: Mapping[str, Any], P: Any) -> ConeProgram:
    """Return the program: "f" means the zero cone too, empty cones are dropped, P gets both triangles."""
    if not isinstance(cones, Mapping):
        raise TypeError(f"cones must be a mapping such as {{'z': 1, 'l': 2}}, got {cones!r:.80}")
    some = {key: size for key, size in cones.items() if np.size(size) and not np.array_equal(size, 0)}
    return ConeProgram(A, b, c, with_scs_keys(some), None if P is None else complete_triangle(P, P))


def read_tangent(program: ConeProgram, P: Any, dA: Any, db: Any, dc: Any, dP: Any) -> tuple[Any, ...]:
    """Return dA, db, dc and dP: db and dc of the right length, dP with both triangles (zero if None).

    Raises
    ------
    ValueError
        If dP is given for a program without P, or a length does not fit.
    """
    if dP is not None and P is None:
        raise ValueError("dP was given for a program without P")
    whole = sp.csc_array((program.n, program.n)) if dP is None else complete_triangle(to_csc(dP), P)
    return to_csc(dA), np.reshape(db, program.m), np.reshape(dc, program.n), whole


def to_csc(matrix: Any) -> Any:
    """Return a float64 copy in CSC with sorted rows and no duplicates."""
    copy = sp.csc_array(matrix, dtype=np.float64, copy=True)
    copy.sum_duplicates()
    return copy


def is_upper(P: Any) -> bool:
    """Return whether the matrix is an upper triangle."""
    return not sp.tril(P, -1).count_nonzero()


def complete_triangle(matrix: Any, P: Any) -> Any:
    """Return P, or a tangent of P, with both triangles: mirrored if P is an upper triangle.

    Otherwise P is returned as it is, and of a tangent its symmetric part.
    """
    if is_upper(P):
        return sp.triu(matrix) + sp.triu(matrix, 1).T
    return matrix if matrix is P else (matrix + matrix.T) / 2
