"""Clarabel, an interior-point method: one program in, a raw solution and its status out.

It takes few iterations whatever the conditioning, each of them a factorisation. The schedule calls it for
programs that SCS and Newton's method do not solve from piles, or for all if the user asks for it. It releases
the interpreter lock; ctrl-C takes effect at its next iteration.

Source: Goulart and Chen (2024), Clarabel: An interior-point solver for conic programs with quadratic
objectives.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import clarabel
import numpy as np
import scipy.sparse as sp

from conediff.parallel.interrupts import interrupts_noted
from conediff.program import Array, ConeData, Structure
from conediff.solver.clarabel_cones import ClarabelCones, in_clarabel
from conediff.solver.constants import DISTANT_BOUND
from conediff.solver.raw import RawSolution

# All statuses of Clarabel (its enum SolverStatus). An "almost" certificate has missed Clarabel's tolerances;
# the schedule accepts it if it meets those of `certificates`, as every certificate has to.
_STATUS = {
    "Solved": "solved",
    "AlmostSolved": "inaccurate",
    "InsufficientProgress": "inaccurate",
    "MaxIterations": "inaccurate",
    "MaxTime": "inaccurate",
    "NumericalError": "inaccurate",
    "CallbackTerminated": "inaccurate",
    "PrimalInfeasible": "infeasible",
    "AlmostPrimalInfeasible": "infeasible",
    "DualInfeasible": "unbounded",
    "AlmostDualInfeasible": "unbounded",
    "Unsolved": "failed",
}
# What Rust code raises where it gives up, as Clarabel does where eigenvalues overflow. pyo3 does not export
# the class.
_PANIC = "PanicException"


class ClarabelFailure(Exception):
    """Clarabel has given up on these data."""


def solve_by_clarabel(structure: Structure, data: ConeData, settings: Mapping[str, Any]) -> RawSolution:
    """Solve one program.

    Parameters
    ----------
    structure : Structure
    data : ConeData
        Of one program.
    settings : mapping
        Clarabel's settings by name; those that are not given are Clarabel's defaults, but it prints nothing
        and uses one thread.

    Returns
    -------
    RawSolution

    Raises
    ------
    ClarabelFailure
        If Clarabel gives up, as it does where numbers overflow.
    """
    began = time.perf_counter()
    cones = in_clarabel(structure.cone)
    A = structure.A.matrix(data.A[0])
    rows, b = cones.to_clarabel @ A, cones.to_clarabel @ data.b[0]
    sizes = _row_sizes(cones, rows, b)
    rows, b = sp.diags_array(1 / sizes) @ rows, b / sizes
    P = sp.triu(structure.P.matrix(data.P[0]), format="csc")
    chosen = _settings(settings)
    if any(name == "PSDTriangleConeT" for name, _ in cones.cones):
        clarabel.force_load_blas_lapack()  # here, because an interrupt within Clarabel would be lost
    try:
        solver = clarabel.DefaultSolver(
            sp.csc_matrix(P), data.c[0].copy(), sp.csc_matrix(rows), b, _cones(cones), chosen
        )
        set_up = time.perf_counter()
        with interrupts_noted() as interrupted:
            solver.set_termination_callback(interrupted)
            found = solver.solve()
    except BaseException as error:
        if type(error).__name__ == _PANIC:
            raise ClarabelFailure(str(error)) from error
        raise
    x, y = np.array(found.x), cones.to_clarabel.T @ (np.array(found.z) / sizes)
    status = _STATUS[str(found.status)]
    s = cones.from_clarabel @ (sizes * np.array(found.s))
    beyond = -(A @ x) if status == "unbounded" else data.b[0] - A @ x
    s[cones.free] = beyond[cones.free]
    if status == "infeasible":
        x, y, s = np.nan * x, _normalised(y, data.b[0] @ y), np.nan * s
    elif status == "unbounded":
        size = data.c[0] @ x
        x, y, s = _normalised(x, size), np.nan * y, _normalised(s, size)
    return RawSolution(
        x=x[None],
        y=y[None],
        s=s[None],
        status=status,
        iterations=int(found.iterations),
        setup_time=set_up - began,
        solve_time=time.perf_counter() - set_up,
    )


def _settings(given: Mapping[str, Any]) -> Any:
    """Return Clarabel's record of settings."""
    settings = clarabel.DefaultSettings()
    # One thread: others solve other programs, and results do not depend on the number of processors. Presolve
    # leaves out distant bounds, which `_row_sizes` takes care of; Clarabel 0.11 fails if it does so and then
    # decomposes a PSD cone.
    for name, value in {"verbose": False, "max_threads": 1, "presolve_enable": False, **given}.items():
        setattr(settings, name, value)
    return settings


def _cones(cones: ClarabelCones) -> list[Any]:
    return [
        getattr(clarabel, name)() if argument is None else getattr(clarabel, name)(argument)
        for name, argument in cones.cones
    ]


def _row_sizes(cones: ClarabelCones, rows: sp.csr_array, b: Array) -> Array:
    """Return numbers to divide rows by: b where it is far larger than the row and its cone is a half-line.

    Such a row is a distant bound. Clarabel's own scaling does not look at b.
    """
    largest = abs(rows).max(axis=1).toarray().ravel() if rows.shape[0] else np.zeros(0)
    return np.where(cones.half_lines & (np.abs(b) > DISTANT_BOUND * largest), np.abs(b), 1.0)


def _normalised(direction: Array, size: float) -> Array:
    """Return the direction at which b'y or c'x, ``size`` before, is -1; as it is if that is not negative."""
    return direction / -size if size < 0 else direction
