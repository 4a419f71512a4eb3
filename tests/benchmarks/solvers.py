"""SCS alone and Clarabel on a cone program, as references that use no code of conediff but the data."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from conediff import ConeProgram

Array = NDArray[np.float64]
SCS_TOLERANCE = 1e-8  # eps_abs and eps_rel
SCS_ITERATIONS = 10_000_000  # never reached: the time limit ends a run
STATUSES = {  # the solvers' words in conediff's
    "solved": "solved",
    "solved (inaccurate - reached time_limit_secs)": "inaccurate",
    "infeasible (inaccurate - reached time_limit_secs)": "time limit",
    "unbounded (inaccurate - reached time_limit_secs)": "time limit",
    "infeasible": "infeasible",
    "unbounded": "unbounded",
    "Solved": "solved",
    "AlmostSolved": "inaccurate",
    "PrimalInfeasible": "infeasible",
    "DualInfeasible": "unbounded",
    "MaxTime": "time limit",
}


@dataclass(frozen=True)
class Answer:
    """What a solver says.

    Attributes
    ----------
    status : str
        solved, inaccurate, infeasible or unbounded, or the solver's own word.
    seconds : float
        Wall time with set-up.
    iterations : int
    x, y, s : arrays, shape (n,), (m,), (m,)
        In the rows of the program.
    """

    status: str
    seconds: float
    iterations: int
    x: Array
    y: Array
    s: Array


def by_scs(program: ConeProgram, seconds: float) -> Answer:
    """Solve by SCS to 1e-8 with its other settings at their defaults, in no more than these seconds."""
    import scs

    data = {"P": sp.csc_matrix(sp.triu(program.P)), "A": sp.csc_matrix(program.A)}
    data |= {"b": program.b, "c": program.c}
    start = time.perf_counter()
    solver = scs.SCS(
        data,
        program.cones,
        eps_abs=SCS_TOLERANCE,
        eps_rel=SCS_TOLERANCE,
        max_iters=SCS_ITERATIONS,
        time_limit_secs=seconds,
        verbose=False,
    )
    found = solver.solve()
    elapsed = time.perf_counter() - start
    status = STATUSES.get(found["info"]["status"], found["info"]["status"])
    return Answer(status, elapsed, int(found["info"]["iter"]), found["x"], found["y"], found["s"])


def by_clarabel(program: ConeProgram, seconds: float) -> Answer:
    """Solve by Clarabel at its default settings, in no more than these seconds.

    Raises
    ------
    ValueError
        If the program has a box cone or a complex PSD cone.
    """
    import clarabel

    cones, T = _clarabel_cones(program.cones)
    settings = clarabel.DefaultSettings()
    settings.verbose, settings.time_limit, settings.max_threads = False, seconds, 1
    P, A = sp.csc_matrix(sp.triu(program.P)), sp.csc_matrix(T @ program.A)
    start = time.perf_counter()
    found = clarabel.DefaultSolver(P, program.c, A, T @ program.b, cones, settings).solve()
    elapsed = time.perf_counter() - start
    word = str(found.status)
    x, z, s = (np.array(part) for part in (found.x, found.z, found.s))
    # Clarabel's rows are T times the program's: y = T'z, and T s = s_Clarabel.
    inverse = sp.linalg.splu(sp.csc_matrix(T))
    return Answer(STATUSES.get(word, word), elapsed, int(found.iterations), x, T.T @ z, inverse.solve(s))


def _clarabel_cones(cones: dict[str, Any]) -> tuple[list[Any], sp.csr_array]:
    """Return Clarabel's cones, and the matrix T that maps rows of SCS's cones to their rows.

    Dual cones become primal ones, with rows (u, v, w): (u - v, -u, w) is in the exponential cone if (u, v, w)
    is in its dual, and (u/a, v/(1-a), w) in the power cone if (u, v, w) is in its dual.
    """
    import clarabel as C

    found: list[Any] = []
    blocks: list[Any] = []

    def add(cone: Any, T: Any) -> None:
        found.append(cone)
        blocks.append(T)

    unknown = set(cones) - {"z", "l", "q", "s", "ep", "ed", "p"}
    if unknown:
        raise ValueError(f"Clarabel is not given the cones {', '.join(sorted(unknown))}")
    for kind, cone in (("z", C.ZeroConeT), ("l", C.NonnegativeConeT)):
        if cones.get(kind):
            add(cone(cones[kind]), sp.eye_array(cones[kind]))
    for size in cones.get("q", ()):
        add(C.SecondOrderConeT(size), sp.eye_array(size))
    for order in cones.get("s", ()):
        add(C.PSDTriangleConeT(order), _lower_to_upper(order))
    for _ in range(cones.get("ep", 0)):
        add(C.ExponentialConeT(), sp.eye_array(3))
    for _ in range(cones.get("ed", 0)):
        add(C.ExponentialConeT(), np.array([[1.0, -1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]))
    for a in cones.get("p", ()):
        add(C.PowerConeT(abs(a)), np.eye(3) if a > 0 else np.diag([-1 / a, 1 / (1 + a), 1.0]))
    return found, sp.csr_array(sp.block_diag(blocks))


def _lower_to_upper(order: int) -> sp.csr_array:
    """Return the permutation from the lower triangle to the upper one, both column by column."""
    column, row = np.tril_indices(order)  # of the upper triangle: row <= column, column by column
    lower = row * order - row * (row - 1) // 2 + column - row
    height = order * (order + 1) // 2
    return sp.csr_array((np.ones(height), (np.arange(height), lower)), shape=(height, height))
